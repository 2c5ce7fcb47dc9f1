"""What the tasks over tokens share: sides of (batch, length), labels of -100, and masks.

Here is the one shift by one position of the package, and the one place where a mask of tokens is made.
Legend: B rows, L tokens of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from tutelage.distributions import Distribution, HeadStates, Logits
from tutelage.errors import CompatibilityError, DtypeError, ShapeError
from tutelage.tasks._calling import first_logits
from tutelage.tasks._labels import labels_of

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
            "task compares a distribution for every token, so give it a network that has one, or pass "
            "task=Classification() for one that has a distribution for each row"
        )
    return side


def without_last(side: Logits | HeadStates) -> Logits | HeadStates:
    """Return the positions that have a next token. Hidden states are cut, and not logits, which need not exist."""
    if side.batch_shape[1] < 2:
        raise ShapeError(f"the rows have {side.batch_shape[1]} token; expected 2 or more: the first predicts the next")
    if isinstance(side, HeadStates):
        return replace(side, hidden=side.hidden[:, :-1])
    return replace(side, values=side.values[:, :-1])


def token_labels(batch: Mapping[str, Any]) -> Tensor | None:
    """Return the labels (B, L), None for a batch without them."""
    labels = labels_of(batch)
    if labels is not None:
        _check_rows("labels", labels)
    return labels


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


def _check_rows(name: str, tensor: Tensor) -> None:
    if tensor.dim() != 2:
        raise ShapeError(
            f"{name!r} has shape {tuple(tensor.shape)}; expected (batch, length), a value for each token. Where a "
            "network says something of whole rows, pass task=tutelage.tasks.Classification()"
        )
