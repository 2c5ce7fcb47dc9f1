"""Rows of tokens to a batch: the collator that is used where a tokenizer is given, unless there is another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tutelage.errors import DataError
from tutelage.tasks import UNLABELLED, widened

_FILLINGS = {"labels": UNLABELLED}  # all else is filled with 0, and "input_ids" with the padding token
_SHORTEST = 2
"""Of two tokens the first predicts the second; a batch of less has nothing that a causal model could learn."""


class TokenCollator:
    """Pads rows to the longest of a batch, on the right, and makes the mask that says which tokens are real.

    A row has "input_ids" and what goes with them, each a list of numbers of one length, or one number for the row. A
    row without labels has None there, or -100. `tokenizer.padding_side` is for generating: padding on the right needs
    no positions, and is seen by nobody. of_rows: whether a row has one label, and not one for each token.
    Errors: `DataError`.

    >>> import tutelage.data
    >>> from tutelage.training import TokenCollator
    >>> tokenizer = tutelage.data.train_tokenizer(["def f(x): return x"] * 2, size=260)
    >>> rows = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [8, 9], "labels": None}]
    >>> batch = TokenCollator(tokenizer)(rows)
    >>> batch["labels"].tolist(), batch["attention_mask"].tolist()
    ([[-100, 6, 7], [-100, -100, -100]], [[1, 1, 1], [1, 1, 0]])
    """

    def __init__(self, tokenizer: Any, *, of_rows: bool = False) -> None:
        pad_id = tokenizer.pad_token_id
        self.pad_id = tokenizer.eos_token_id if pad_id is None else pad_id
        self.of_rows = of_rows
        if self.pad_id is None:
            raise DataError(
                "the tokenizer has neither a padding nor an end-of-text token; expected one to pad with: set "
                "tokenizer.pad_token, or pass a data_collator"
            )

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        lengths = [_length(row) for row in rows]
        # One row may lack what another has.
        names = list(dict.fromkeys(name for row in rows for name in row if name != "attention_mask"))
        longest = max(_SHORTEST, *lengths)
        batch = {name: self._column(name, [row.get(name) for row in rows], lengths, longest) for name in names}
        masks = [row.get("attention_mask", [1] * length) for row, length in zip(rows, lengths, strict=True)]
        batch["attention_mask"] = self._column("attention_mask", masks, lengths, longest)
        return batch

    def _column(self, name: str, values: Sequence[Any], lengths: Sequence[int], longest: int) -> Tensor:
        filling = self.pad_id if name == "input_ids" else _FILLINGS.get(name, 0)
        tensors = [None if value is None else _numbers(name, value) for value in values]
        present = [tensor for tensor in tensors if tensor is not None]
        if len(present) < len(tensors) and name != "labels":
            raise DataError(f"{len(tensors) - len(present)} of {len(tensors)} rows of a batch have no {name!r}")
        if all(tensor.dim() == 0 for tensor in present) if present else self.of_rows:
            return torch.stack([torch.tensor(filling) if tensor is None else tensor for tensor in tensors])
        dtype = present[0].dtype if present else torch.int64
        column = torch.full((len(values), longest), filling, dtype=dtype)
        for place, (tensor, length) in enumerate(zip(tensors, lengths, strict=True)):
            if tensor is None:
                continue
            if tensor.shape != (length,):
                raise DataError(
                    f"a row has {name!r} of shape {tuple(tensor.shape)} and {length} 'input_ids'; expected a number "
                    "for each of them, or one for the row"
                )
            if name == "position_ids" and int((tensor == 0).sum()) > 1:
                raise DataError(
                    "a row holds several documents, which would see each other; expected rows of one, or "
                    "data_collator=tutelage.data.CausalCollator(pad_id, documents='mask')"
                )
            column[place, :length] = tensor
        return column


def _length(row: Any) -> int:
    if not isinstance(row, Mapping) or "input_ids" not in row:
        came = f"has {sorted(map(str, row))}" if isinstance(row, Mapping) else f"is {type(row).__name__}"
        raise DataError(
            f"a row of the data set {came}; expected a mapping with 'input_ids': tokenize the texts first, or pass a "
            "data_collator"
        )
    length = len(row["input_ids"])
    if not length:
        raise DataError("a row of the data set has no token; expected at least one: leave empty texts out")
    return length


def _numbers(name: str, value: Any) -> Tensor:
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise DataError(
            f"a row has {type(value).__name__} as {name!r}, which is no tensor of numbers; expected only what the "
            "networks are called with, labels and masks: remove the column from the data set"
        ) from None
    if tensor.dtype == torch.bool:
        # A mask stays whole numbers: not all collectives know of bool.
        return tensor.long()
    # Beside -100, which stands where there is none.
    return widened(tensor) if name == "labels" else tensor
