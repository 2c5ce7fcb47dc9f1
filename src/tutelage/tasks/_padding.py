"""Padding on the left, moved to the right: a token is then where it would be in a row of its own.

Positions that a network counts itself, and the state of one that reads from the left, are right without any word of the
network's. The first token of a row is the first of the batch again, and predicted by nothing.
Legend: B rows, L tokens of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tutelage.tasks._labels import UNSIGNED, widened


def right_padded(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch in which each row begins with its first token, by the zeros of its attention mask (B, L).

    Everything with a value for each token (B, L, ...) moves with it. A batch without such a mask is returned as it is.
    """
    return _moved(batch, first=True)


def left_padded(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch in which each row ends with its last token."""
    return _moved(batch, first=False)


def in_order_of(batch: Mapping[str, Any], values: Tensor) -> Tensor:
    """Return values (B, L or L - 1, ...) of a `right_padded` batch at the places where the batch has its tokens."""
    mask = mask_over_tokens(batch)
    if mask is None or values.dim() < 2 or len(values) != len(mask) or mask.shape[1] - values.shape[1] not in (0, 1):
        return values
    by = _steps(mask, first=True)
    return values if by is None else _rolled(values, -by)


def mask_over_tokens(batch: Mapping[str, Any]) -> Tensor | None:
    """Return the attention mask, None where there is none of (B, L)."""
    mask = batch.get("attention_mask")
    return mask if isinstance(mask, Tensor) and mask.dim() == 2 and mask.numel() else None


def _moved(batch: Mapping[str, Any], *, first: bool) -> dict[str, Any]:
    mask = mask_over_tokens(batch)
    by = None if mask is None else _steps(mask, first=first)
    if mask is None or by is None:
        return dict(batch)
    found = {}
    for name, value in batch.items():
        if name == "position_ids" and isinstance(value, Tensor) and value.shape == (1, mask.shape[1]):
            value = value.expand_as(mask)
        moves = isinstance(value, Tensor) and value.shape[:2] == mask.shape
        found[name] = _rolled(value, by) if moves else value
    return found


def steps_to(side: str | None, mask: Tensor) -> Tensor:
    """Return by how many places (B,) each row moves to be padded on a side; None leaves it where it is."""
    by = None if side is None else _steps(mask, first=side == "right")
    return torch.zeros(len(mask), dtype=torch.int64, device=mask.device) if by is None else by[:, 0]


def _steps(mask: Tensor, *, first: bool) -> Tensor | None:
    """Return by how many places (B, 1) each row has to move to the left, None if it is known that all stay.

    first: for the first token to come first, otherwise for the last to come last.
    """
    real = mask != 0
    # Elsewhere looking would wait for the device; there rows are moved even if all stay where they are.
    if mask.device.type == "cpu" and bool(real[:, 0 if first else -1].all()):
        return None
    # In a row without any token, 0.
    return real.int().argmax(1, keepdim=True) if first else -real.flip(1).int().argmax(1, keepdim=True)


def _rolled(values: Tensor, by: Tensor) -> Tensor:
    # torch moves no unsigned numbers but bytes.
    values = widened(values) if values.dtype in UNSIGNED else values
    places = (torch.arange(values.shape[1], device=by.device) + by) % values.shape[1]
    return values.take_along_dim(places.reshape(*places.shape, *[1] * (values.dim() - 2)), 1)
