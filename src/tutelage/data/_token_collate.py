"""Rows of tokens to a batch: padding that nothing sees, and documents of one row that do not see each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from tutelage.data._rows import UNLABELLED
from tutelage.errors import DataError, ParameterError

# Added to an attention score, it leaves a weight of exactly 0; -inf would make NaN of a row in which nothing is seen.
_UNSEEN = torch.finfo(torch.float32).min


class CausalCollator:
    """Makes batches for causal language models, padded to their longest row: tensors (B, L) by name.

    "input_ids", "labels", "target_mask", "position_ids", "index" (B,), and "attention_mask". Positions count the tokens
    of a document, whatever is padded on whichever side. Padding has label -100, is no target, and is at position 0.

    pad_id: the id to pad with, which no network sees; side: "right" or "left". documents: how those that share a row
    are kept apart. None: rows have one each, and the mask is (B, L), 1 for tokens. "mask": the mask is (B, 1, L, L), 0
    where a token sees another and hugely negative elsewhere, which eager and SDPA attention add to their scores; layers
    with a sliding window would lose it. "positions": no mask, for networks that take positions that start at 0 again
    for another document, as transformers does without a cache. `tasks.leak_between_documents` asks a network whether it
    does. Errors: `ParameterError`, `DataError`.

    >>> from tutelage.data import CausalCollator, TokenRows
    >>> from tutelage.data._token_rows import Document
    >>> rows = TokenRows.of([Document([5, 6, 7], [True] * 3), Document([8, 9], [True] * 2)])
    >>> batch = CausalCollator(pad_id=0)([rows[0], rows[1]])
    >>> batch["input_ids"].tolist(), batch["labels"].tolist()
    ([[5, 6, 7], [8, 9, 0]], [[-100, 6, 7], [-100, 9, -100]])
    """

    def __init__(
        self,
        pad_id: int,
        side: Literal["right", "left"] = "right",
        documents: Literal["mask", "positions"] | None = None,
    ) -> None:
        check_padding("CausalCollator", pad_id, side)
        if documents not in ("mask", "positions", None):
            raise ParameterError(f"CausalCollator(documents={documents!r}): expected 'mask', 'positions' or None")
        self.pad_id, self.side, self.documents = pad_id, side, documents

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        length = max(2, *(len(row["input_ids"]) for row in rows), 2)
        batch = pad_rows(rows, {**PADDING, "input_ids": self.pad_id, "position_ids": 0}, self.side, length)
        real = real_tokens(rows, self.side, length)
        if self.documents is None:
            for row in rows:
                if int((row["position_ids"] == 0).sum()) > 1:
                    raise DataError(
                        f"row {row.get('index')} has several documents, which would see each other; expected rows of "
                        "one, or a collator that keeps them apart: CausalCollator(documents='mask')"
                    )
            batch["attention_mask"] = real.long()
            return batch
        if self.documents == "positions":
            # Padding without a mask is a document of its own, and not one for each of its tokens.
            batch["position_ids"] = torch.where(real, batch["position_ids"], _count_up(~real))
        else:
            document = (batch["position_ids"] == 0).cumsum(1)
            together = document[:, None, :, None] == document[:, None, None, :]
            earlier = torch.ones(length, length, dtype=torch.bool).tril()
            batch["attention_mask"] = torch.where(together & earlier, 0.0, _UNSEEN)
        return batch


PADDING: Mapping[str, int] = {"labels": UNLABELLED, "target_mask": 0}
"""What stands where a row has ended."""


def pad_rows(
    rows: Sequence[Mapping[str, Any]], padding: Mapping[str, int], side: str, length: int
) -> dict[str, Tensor]:
    """Return the named columns of the rows, padded to a length, and their numbers."""
    batch = {}
    for name, filling in padding.items():
        values = [torch.as_tensor(row[name]) for row in rows]
        # A mask stays whole numbers: not all collectives know of bool.
        batch[name] = torch.full((len(rows), length), filling, dtype=torch.int64)
        for place, value in enumerate(values):
            start = length - len(value) if side == "left" else 0
            batch[name][place, start : start + len(value)] = value
    batch["index"] = torch.tensor([int(row["index"]) for row in rows])
    return batch


def real_tokens(rows: Sequence[Mapping[str, Any]], side: str, length: int) -> Tensor:
    """Return which places of a padded batch (B, L) hold a token."""
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])[:, None]
    places = torch.arange(length)[None, :]
    return places >= length - lengths if side == "left" else places < lengths


def check_padding(owner: str, pad_id: int, side: str) -> None:
    """Raise `ParameterError` unless the id can be one and the side is a side."""
    if isinstance(pad_id, bool) or not isinstance(pad_id, int) or pad_id < 0:
        raise ParameterError(
            f"{owner}(pad_id={pad_id!r}): expected the id of a token; a tokenizer without a padding token can pad with "
            "its end-of-sequence token, as no padding counts"
        )
    if side not in ("right", "left"):
        raise ParameterError(f"{owner}(side={side!r}): expected 'right' or 'left'")


def _count_up(mask: Tensor) -> Tensor:
    """Return 0, 1, 2, ... along the places of each row where the mask is True."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)
