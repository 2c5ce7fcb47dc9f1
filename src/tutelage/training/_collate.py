"""Rows to a batch: the collator that is used unless another is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tutelage.errors import DataError, ShapeError
from tutelage.tasks import UNLABELLED, widened


def collate(rows: Sequence[Any]) -> dict[str, Tensor]:
    """Return a batch from rows, which are mappings, or pairs of an input and a label.

    A row may lack "labels", or hold None there: it gets -100, which stands for no label. All else must be in all rows,
    and be numbers. Errors: `ShapeError`, `DataError`.
    """
    named = [_by_name(row) for row in rows]
    names = list(dict.fromkeys(name for row in named for name in row))
    batch = {}
    for name in names:
        values = [row.get(name) for row in named]
        if name == "labels":
            values = [UNLABELLED if value is None else value for value in values]
        missing = sum(value is None for value in values)
        if missing:
            raise ShapeError(
                f"{missing} of {len(named)} rows of a batch have no {name!r}; expected it in all rows or in none (only "
                "'labels' may be missing)"
            )
        tensors = [_numbers(name, value) for value in values]
        shapes = {tuple(tensor.shape) for tensor in tensors}
        if len(shapes) > 1:
            raise ShapeError(
                f"the rows of a batch have {name!r} of shapes {sorted(shapes)}; expected one shape: pass a "
                "data_collator that pads"
            )
        batch[name] = torch.stack(tensors)
    return batch


def _by_name(row: Any) -> dict[str, Any]:
    if isinstance(row, Mapping):
        return dict(row)
    if isinstance(row, (tuple, list)) and len(row) == 2:
        return {"inputs": row[0], "labels": row[1]}
    raise ShapeError(
        f"a row of the data set is {type(row).__name__}; expected a mapping such as {{'inputs': x, 'labels': y}}, or a "
        "pair (x, y)"
    )


def _numbers(name: str, value: Any) -> Tensor:
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        remedy = (
            "tokenize the texts and pass the tokenizer as processing_class, or remove the column"
            if isinstance(value, str)
            else "pass a data_collator that makes tensors of it, or remove the column"
        )
        raise DataError(
            f"a row has {type(value).__name__} as {name!r}, which is no tensor of numbers; expected only what the "
            f"networks are called with and labels: {remedy}"
        ) from None
    # Beside -100, which stands where there is none.
    return widened(tensor) if name == "labels" else tensor
