"""Rows of inputs with their labels, and the parts into which data falls: who trains on what, who is tested on what."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

UNLABELLED = -100
"""The label of a row whose class is not known, or not told."""


class Source(Protocol):
    """All rows of one file or folder: a tensor, or what reads a row when it is asked for."""

    def __getitem__(self, row: int, /) -> Tensor: ...


class Rows(Dataset[dict[str, Any]]):
    """Some rows of a source, with their labels: {"inputs": float32 tensor, "labels": int, "index": int}.

    source: where rows are read from; index (N,): which of its rows these are, in order, shared by all parts that were
    cut from one source; labels (N,): int64, -100 where a row has none.

    >>> rows = Rows(torch.tensor([[1.0], [2.0], [3.0]]), labels=torch.tensor([0, -100]), index=torch.tensor([2, 0]))
    >>> len(rows), rows[1]
    (2, {'inputs': tensor([1.]), 'labels': -100, 'index': 0})
    """

    def __init__(self, source: Source, labels: Tensor, index: Tensor) -> None:
        assert labels.shape == index.shape, (labels.shape, index.shape)
        self.source = source
        self.labels = labels
        self.index = index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, place: int) -> dict[str, Any]:
        row = int(self.index[place])
        return {"inputs": self.source[row], "labels": int(self.labels[place]), "index": row}

    @cached_property
    def inputs(self) -> Tensor:
        """All inputs at once (N, ...); of a folder of images this reads every file, so prefer `batches` there."""
        return self.source[self.index] if isinstance(self.source, Tensor) else self._read(range(len(self)))

    def batches(self, size: int) -> Iterator[Tensor]:
        """Yield the inputs, `size` rows at a time."""
        for start in range(0, len(self), size):
            if isinstance(self.source, Tensor):
                yield self.source[self.index[start : start + size]]
            else:
                yield self._read(range(start, min(start + size, len(self))))

    def take(self, places: Tensor) -> Rows:
        """Return the rows at these places, or where a mask is True."""
        return Rows(self.source, self.labels[places], self.index[places])

    def with_labels(self, labels: Tensor) -> Rows:
        """Return the same rows with other labels."""
        return Rows(self.source, labels, self.index)

    def _read(self, places: range) -> Tensor:
        return torch.stack([self.source[int(self.index[place])] for place in places])


@dataclass(frozen=True, eq=False)
class Data:
    """The parts of a data set.

    train: what the student sees, its labels hidden but for those that it is told, omitted classes gone; labelled: the
    labelled rows of train, which the baseline learns from; fit: all training rows whose class is known, with it, for
    the teacher; test: held out, all labelled. classes: their names, in the order of the logits; shape: of one input;
    kind: "image" (channels, height, width) or "table" (columns); features: names of the columns; omitted: the classes
    of which train has no row.
    """

    train: Rows
    fit: Rows
    labelled: Rows
    test: Rows
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    kind: str
    features: tuple[str, ...] | None = None
    omitted: tuple[int, ...] = ()

    def digest(self, *, of_all: bool = False) -> str:
        """Return the sha256 of what a teacher is fitted on, inputs, labels and names of classes; or of all parts."""
        digest = hashlib.sha256(repr((self.classes, self.shape)).encode())
        for rows in (self.fit, self.train, self.test) if of_all else (self.fit,):
            digest.update(repr(len(rows)).encode() + rows.labels.numpy().tobytes())
            for batch in rows.batches(256):
                digest.update(batch.contiguous().numpy().tobytes())
        return digest.hexdigest()
