"""Rows of tokens in memory: one array of ids, and where documents and rows begin in it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from tutelage.data._rows import UNLABELLED
from tutelage.errors import DataError, ShapeError

IntArray = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Document:
    """Tokens that belong together: a piece of text, a prompt with its completion, a conversation."""

    ids: Sequence[int]
    targets: Sequence[bool]
    """Which of them are to be predicted; the first is predicted by nothing and never counts."""


class TokenRows(Dataset[dict[str, Any]]):
    """Rows of one document, or packed with several: tensors by name, each as long as the row.

    A row has "input_ids"; "position_ids", 0 where a document starts; "target_mask", whether a token is to be predicted;
    "labels", the id of a target and -100 elsewhere, or everywhere in a document that has no labels; "index", the number
    of the row.

    left_out: how many of the rows that were read are not here, and why. Errors: `DataError` if there is no target.

    >>> from tutelage.data import TokenRows
    >>> rows = TokenRows.of([Document([5, 6, 7], [False, False, True]), Document([8, 9], [True, True])])
    >>> len(rows), rows[1]["input_ids"].tolist(), rows[1]["labels"].tolist()
    (2, [8, 9], [-100, 9])
    """

    def __init__(
        self,
        ids: np.ndarray,
        targets: np.ndarray,
        labelled: np.ndarray,
        offsets: IntArray,
        rows: IntArray,
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        assert ids.shape == targets.shape, (ids.shape, targets.shape)
        assert len(labelled) == len(offsets) - 1, (labelled.shape, offsets.shape)
        assert offsets[-1] == len(ids), (offsets[-1], len(ids))
        assert rows[-1] == len(labelled), (rows[-1], len(labelled))
        self.ids, self.targets, self.labelled = (
            ids.astype(np.int32),
            targets.astype(bool),
            labelled.astype(bool),
        )  # copies
        self.offsets, self.rows = offsets, rows
        self.left_out = dict(left_out or {})
        self.targets[offsets[:-1][np.diff(offsets) > 0]] = False
        if not self.targets.any():
            gone = f"; left out were {self.left_out}" if self.left_out else ""
            raise DataError(
                f"{len(self)} rows have no token to predict{gone}; expected completions, assistant turns, or texts of "
                "two tokens or more"
            )

    @classmethod
    def of(cls, documents: Sequence[Document], left_out: Mapping[str, int] | None = None) -> TokenRows:
        """Return one row for each document."""
        lengths = np.array([len(document.ids) for document in documents], dtype=np.int64)
        return cls(
            np.fromiter((i for document in documents for i in document.ids), np.int32, int(lengths.sum())),
            np.fromiter((t for document in documents for t in document.targets), bool, int(lengths.sum())),
            np.ones(len(documents), dtype=bool),
            _offsets(lengths),
            np.arange(len(documents) + 1, dtype=np.int64),
            left_out,
        )

    def __len__(self) -> int:
        return len(self.rows) - 1

    def __getitem__(self, place: int) -> dict[str, Any]:
        if not 0 <= place < len(self):
            raise IndexError(place)  # what ends a loop over the rows
        documents = np.arange(self.rows[place], self.rows[place + 1])
        start, end = self.offsets[self.rows[place]], self.offsets[self.rows[place + 1]]
        lengths = self.offsets[documents + 1] - self.offsets[documents]
        ids = torch.from_numpy(self.ids[start:end].astype(np.int64))
        targets = torch.from_numpy(self.targets[start:end].copy())
        labelled = torch.from_numpy(np.repeat(self.labelled[documents], lengths))
        return {
            "input_ids": ids,
            "position_ids": torch.from_numpy(np.concatenate([np.arange(length) for length in lengths])),
            "target_mask": targets,
            "labels": torch.where(targets & labelled, ids, UNLABELLED),
            "index": place,
        }

    @property
    def lengths(self) -> IntArray:
        """The number of tokens of each document."""
        return np.diff(self.offsets)

    @property
    def target_count(self) -> int:
        """How many tokens are to be predicted."""
        return int(self.targets.sum())

    def with_labels(self, labelled: Sequence[bool]) -> TokenRows:
        """Return the same rows, of which these documents (N,) have labels; of the others only teachers know."""
        which = np.asarray(labelled, dtype=bool)
        if which.shape != self.labelled.shape:
            raise ShapeError(f"labelled has shape {which.shape}; expected {self.labelled.shape}, one for each document")
        return TokenRows(self.ids, self.targets, which, self.offsets, self.rows, self.left_out)

    def in_order(self, order: IntArray, rows: IntArray) -> TokenRows:
        """Return the documents in another order, in rows that begin with these of them."""
        lengths = self.lengths[order]
        starts = np.repeat(self.offsets[order] - _offsets(lengths)[:-1], lengths)
        places = starts + np.arange(int(lengths.sum()))
        return TokenRows(
            self.ids[places], self.targets[places], self.labelled[order], _offsets(lengths), rows, self.left_out
        )

    def digest(self) -> str:
        """Return the sha256 of all tokens, targets and boundaries."""
        digest = hashlib.sha256()
        for array in (self.ids, self.targets, self.labelled, self.offsets, self.rows):
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def _offsets(lengths: IntArray) -> IntArray:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])
