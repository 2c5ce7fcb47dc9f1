"""Terms on labels that never see one would stay 0, and say nothing: whoever makes the batches, it is noticed here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import IterableDataset

from tutelage.errors import DataError
from tutelage.model import DistillationModel
from tutelage.networks import LIKE_LABELS

_log = logging.getLogger(__name__)

_ROWS_LOOKED_AT = 1_000

Batch = Mapping[str, Any]


@dataclass(frozen=True)
class RowsOf:
    """The rows of a training, and how batches are made of them.

    unchanged: a context at whose end every random state is as before.
    """

    dataset: Any
    collate: Callable[..., Any]
    size: int
    unchanged: Callable[[], AbstractContextManager[None]]


class LabelWatch:
    """Watches the steps of one training, from its first until a label was seen.

    Batches, and whole data sets of some ranks, may lack labels; a data set of which no row has one is an error where a
    term needs them. If the first step has none, up to 1,000 rows are looked at, through the collator. Where that cannot
    tell, for there are more or they come as a stream, a whole epoch does.

    Errors: `DataError`.
    """

    def __init__(self, model: DistillationModel) -> None:
        self._model = model
        terms = model.objective.terms
        self._terms = [name for name in model.labelled_terms() if terms[name].weight > 0]
        self._started: float | None = None
        self._sum: Tensor | None = None
        self._unread: list[str] = []

    def see(self, counts: Mapping[str, Tensor], batches: Sequence[Batch], epoch: float, rows: RowsOf) -> None:
        """Take note of a step. counts: what each term counts in it, on all ranks. Errors: `DataError`."""
        if self._started is None:
            self._started = epoch
            self._tell(batches)
            if self._terms:
                # The one step whose numbers are waited for.
                self._sum = counts[self._terms[0]].clone()
                self._judge(rows)
        elif self._sum is not None:
            self._sum = self._sum + counts[self._terms[0]]
            self.end(epoch)

    def end(self, epoch: float) -> None:
        """Judge by the steps so far, if they were an epoch. Errors: `DataError`."""
        if self._sum is None or self._started is None or epoch < self._started + 1:
            return
        if not float(self._sum):
            raise self._error("in a whole epoch no row had a label")
        self._sum = None

    def _tell(self, batches: Sequence[Batch]) -> None:
        self._unread = sorted({name for batch in batches for name in self._model.unread(batch)})
        if self._unread:
            _log.warning(
                "no network reads the columns %s, and the task %s reads 'labels'; expected names that they know: "
                "rename them, or remove them from the data set",
                self._unread,
                type(self._model.task).__name__,
            )

    def _judge(self, rows: RowsOf) -> None:
        assert self._sum is not None, self._terms
        if float(self._sum):
            self._sum = None
            return
        none = self._none_of(rows)
        if none:
            raise self._error("no row of the data set has a label")
        if none is None:
            _log.warning(
                "no row of the first step has a label, and the terms %s need them; if no row of the first epoch has "
                "one, training stops",
                self._terms,
            )

    def _none_of(self, rows: RowsOf) -> bool | None:
        """Return whether no row of a data set has a label, None if that cannot be told from a few."""
        if isinstance(rows.dataset, IterableDataset) or not hasattr(rows.dataset, "__len__"):
            return None
        count = len(rows.dataset)
        places = np.linspace(0, count - 1, min(count, _ROWS_LOOKED_AT)).round().astype(int).tolist()
        with rows.unchanged():
            for start in range(0, len(places), rows.size):
                batch = rows.collate([rows.dataset[place] for place in places[start : start + rows.size]])
                if float(self._model.term_counts(batch)[self._terms[0]]):
                    return False
        return True if count <= _ROWS_LOOKED_AT else None

    def _error(self, came: str) -> DataError:
        like = [name for name in self._unread if name in LIKE_LABELS]
        what = "a class for each row" if self._model.task.compares_rows else "one for each token (-100 in a prompt)"
        remedy = f"rename {like[0]!r}, which no network reads, to 'labels'" if like else f"give 'labels', {what}"
        return DataError(
            f"{came}, and the terms {self._terms} need them: they would be 0 for ever; expected 'labels' in some rows, "
            f"and None or -100 in a row without: {remedy}, or leave these terms out"
        )
