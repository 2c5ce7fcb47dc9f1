"""The last batches of several ranks, without the rows of the start that they are filled up with.

Where the rows of an epoch are no multiple of what all ranks take at once, accelerate repeats some from the start, so
that every rank has a full batch. They would count twice in the last step, and one process trains each row once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

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


def _first(value: Any, count: int, rows: int) -> Any:
    """Return the first rows of a tensor, and of the mixtures that follow the rows of the data."""
    if not isinstance(value, Tensor) or not value.dim():
        return value
    if len(value) == 2 * rows:
        return value.unflatten(0, (2, rows))[:, :count].flatten(0, 1)
    return value[:count]
