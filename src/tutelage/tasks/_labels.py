"""Labels as whole numbers, and which of them stand for none: one rule for all tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tutelage.distributions import Labels
from tutelage.errors import DtypeError, LabelError

UNLABELLED = -100
"""The label of a row, or a token, that has none."""

UNSIGNED = (torch.uint8, torch.uint16, torch.uint32, torch.uint64)


def labels_of(batch: Mapping[str, Any]) -> Tensor | None:
    """Return the labels of a batch as they came, None for a batch without them. Errors: `DtypeError`."""
    labels = batch.get("labels")
    if labels is None:
        return None
    if (
        not isinstance(labels, Tensor)
        or labels.is_floating_point()
        or labels.is_complex()
        or labels.dtype == torch.bool
    ):
        came = f"a tensor of {labels.dtype}" if isinstance(labels, Tensor) else type(labels).__name__
        raise DtypeError(f"the labels are {came}; expected a tensor of whole numbers (int64), -100 for no label")
    return labels


def known(labels: Tensor, unlabelled: int = UNLABELLED) -> tuple[Labels, Tensor]:
    """Return the labels, 0 where there is none, and 1 where there is one.

    An unsigned type cannot hold -100, so each of its values is a label: compared in its own type, -100 would be the 156
    of a byte.
    """
    wide = widened(labels)
    there = torch.ones_like(wide, dtype=torch.bool) if labels.dtype in UNSIGNED else wide != unlabelled
    # Any class would do where there is no label; its row has weight 0 in every term that reads it.
    return Labels(torch.where(there, wide, 0)), there.float()


def widened(labels: Tensor) -> Tensor:
    """Return whole numbers as int64, which holds -100 beside all of them, and others as they are.

    Errors: `LabelError`.
    """
    if labels.is_floating_point() or labels.dtype == torch.bool:
        return labels
    wide = labels.long()
    if labels.dtype == torch.uint64 and labels.device.type == "cpu" and bool((wide < 0).any()):
        raise LabelError("a label is 2**63 or more, which int64 does not hold; expected the numbers of classes")
    return wide
