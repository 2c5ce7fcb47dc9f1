"""The last batches of several ranks, without the rows of the start that they are filled up with.

Where the rows of an epoch are no multiple of what all ranks take at once, accelerate repeats some from the start, so
that every rank has a full batch. They would count twice in the last step, and one process trains each row once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tutelage.errors import DataError

_log = logging.getLogger(__name__)

EMPTY = "_is_empty"
"""The entry of a batch of which no row counts: its forward and backward only keep the ranks in step."""


def without_repeats(batch: Mapping[str, Any], rows: int, length: int, rank: int, ranks: int) -> Mapping[str, Any]:
    """Return the last batch of an epoch with the rows that are no repeats; with one row and the mark, if none is left.

    rows: of the data in the batch, of which a mixing collator made twice as many; length: rows of the epoch.
    """
    return first_rows(batch, own_rows(rows, length % (rows * ranks), rank), rows)


def first_rows(batch: Mapping[str, Any], own: int, rows: int) -> Mapping[str, Any]:
    """Return a batch with its first rows alone, `own` of `rows`; with one row and the mark, if it is to have none."""
    if own == rows:
        return batch
    found = {name: _first(value, own or 1, rows) for name, value in batch.items()}
    return found if own else {**found, EMPTY: True}


def own_rows(rows: int, in_all: int, rank: int) -> int:
    """Return how many of a rank's rows are no repeats. in_all: those of all ranks together; 0 or less if none are."""
    return rows if in_all <= 0 else min(rows, max(0, in_all - rank * rows))


def epoch_of(loader: Any, ranks: int) -> tuple[int, int] | None:
    """Return how many rows an epoch has and how many each rank takes at once, None for a loader that does not tell."""
    sampler: Any = getattr(loader, "batch_sampler", None)
    splits = False
    while sampler is not None:
        # A resumed epoch skips batches of what shards them.
        splits = splits or bool(getattr(sampler, "split_batches", False))
        if getattr(sampler, "batch_sampler", None) is None:
            break
        sampler = sampler.batch_sampler
    try:
        size = int(sampler.batch_size)
        return len(sampler.sampler), size // ranks if splits else size
    except (AttributeError, TypeError):
        return None


def check_some(rows: int, ranks: int) -> None:
    """Raise `DataError` for a rank that got no row at all, not even a repeat."""
    if not rows:
        raise DataError(
            f"an iterable data set has fewer rows than there are processes, {ranks}, so that one has nothing to ask a "
            "network; expected a row for each: add rows, or use a data set with a length"
        )


def warn_of_repeats(rows: int) -> None:
    """Say that repeats count, where nothing tells them from the other rows."""
    _log.warning(
        "the last rows of the data set may count twice: a batch of %d rows does not tell which are repeats, with which "
        "the ranks are filled up; dataloader_drop_last=True leaves these batches out",
        rows,
    )


def _first(value: Any, count: int, rows: int) -> Any:
    """Return the first rows of a tensor, and of the mixtures that follow the rows of the data."""
    if not isinstance(value, Tensor) or not value.dim():
        return value
    if len(value) == 2 * rows:
        return value.unflatten(0, (2, rows))[:, :count].flatten(0, 1)
    return value[:count]
