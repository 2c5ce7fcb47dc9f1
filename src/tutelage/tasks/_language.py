"""What the tasks over tokens share: sides of (batch, length), labels of -100, and which architecture is meant.

Here is the one shift by one position of the package, and the one place where a mask of tokens is made.
Legend: B rows, L tokens of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tutelage.distributions import Distribution, HeadStates, Labels, Logits
from tutelage.errors import CompatibilityError, DtypeError, ModuleError, ShapeError
from tutelage.tasks._calling import first_logits

UNLABELLED = -100
"""The label of a token that is no target."""

NOT_INPUTS = ("labels", "target_mask", "index")
"""What a batch has beside the networks' inputs."""


def inputs_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything but labels, masks of targets and the rows' numbers."""
    return {name: value for name, value in batch.items() if name not in NOT_INPUTS}


def side_of(network: str, output: Any) -> Logits | HeadStates:
    """Return what a network returned as one distribution per token, (B, L)."""
    if isinstance(output, Distribution) and not isinstance(output, (Logits, HeadStates)):
        raise CompatibilityError(
            f"the {network} returned {type(output).__name__}; expected logits, Logits or HeadStates: other kinds of "
            "teacher are not there yet for tasks over tokens"
        )
    side = output if isinstance(output, (Logits, HeadStates)) else Logits(first_logits(network, output))
    if len(side.batch_shape) != 2:
        values = side.values if isinstance(side, Logits) else side.hidden
        raise ShapeError(
            f"the {network} returned a tensor of shape {tuple(values.shape)}; expected (batch, length, width): this "
            "task compares a distribution for every token, so give it a network that has one"
        )
    return side


def without_last(side: Logits | HeadStates) -> Logits | HeadStates:
    """Return the positions that have a next token. Hidden states are cut, and not logits, which need not exist."""
    if side.batch_shape[1] < 2:
        raise ShapeError(f"the rows have {side.batch_shape[1]} token; expected 2 or more: the first predicts the next")
    if isinstance(side, HeadStates):
        return replace(side, hidden=side.hidden[:, :-1])
    return replace(side, values=side.values[:, :-1])


def labels_of(batch: Mapping[str, Any]) -> Tensor | None:
    """Return the labels (B, L), None for a batch without them."""
    labels = batch.get("labels")
    if labels is None:
        return None
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
        came = f"a tensor of {labels.dtype}" if isinstance(labels, Tensor) else type(labels).__name__
        raise DtypeError(f"the labels are {came}; expected a tensor of ids (int64), -100 where a token is no target")
    _check_rows("labels", labels)
    return labels


def known(labels: Tensor) -> tuple[Labels, Tensor]:
    """Return the labels, id 0 where there is none, and 1 where there is one."""
    there = labels != UNLABELLED
    # Any id would do where there is no label; its token has weight 0 in every term that reads it.
    return Labels(torch.where(there, labels, 0).long()), there.float()


def mask_of(batch: Mapping[str, Any], name: str) -> Tensor | None:
    """Return a mask over tokens (B, L), None where the batch has none of this name and these dimensions."""
    mask = batch.get(name)
    if mask is None or (name == "attention_mask" and isinstance(mask, Tensor) and mask.dim() == 4):
        return None  # which keys a query sees says nothing on which tokens are real
    if not isinstance(mask, Tensor):
        raise DtypeError(f"{name!r} is {type(mask).__name__}; expected a tensor, 1 for tokens that count")
    _check_rows(name, mask)
    return mask.float()


def certain(counts: Tensor | None) -> Tensor:
    """Return the weights of tokens, or raise `ShapeError` where nothing in a batch says which are real."""
    if counts is None:
        raise ShapeError(
            "nothing in the batch says which tokens are compared with a teacher; expected 'attention_mask' or "
            "'target_mask' of (batch, length)"
        )
    return counts


def refuse(student: Any, task: str, endings: tuple[str, ...], reason: str, expected: str) -> None:
    """Raise `ModuleError` if the student is of an architecture that another task is for."""
    # A student that gives hidden states, or has adapters, holds the model it is made from as `model`.
    for network in (student, getattr(student, "model", None)):
        for cls in type(network).__mro__:
            if cls.__name__.endswith(endings):
                raise ModuleError(
                    f"the student is {type(network).__name__}, and the task is {task!r}: {reason}. Expected {expected}"
                )


def _check_rows(name: str, tensor: Tensor) -> None:
    if tensor.dim() != 2:
        raise ShapeError(f"{name!r} has shape {tuple(tensor.shape)}; expected (batch, length), a value for each token")
