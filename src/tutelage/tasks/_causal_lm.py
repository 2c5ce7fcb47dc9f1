"""Causal language models: what stands at position t predicts the token at t + 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from tutelage.distributions import HeadStates, Labels, Logits
from tutelage.errors import ShapeError
from tutelage.tasks._labels import known
from tutelage.tasks._language import certain, inputs_of, mask_of, side_of, token_labels, without_last
from tutelage.tasks._suits import check_kind


@dataclass(frozen=True)
class CausalLM:
    """The task of predicting the next token, from those before it.

    A batch is a mapping: "labels" (B, L) are the ids themselves, not shifted, -100 where a token is no target;
    "target_mask" (B, L) is 1 for the tokens whose prediction is compared with a teacher's, whether or not they have a
    label; "index" is the rows' numbers. Everything else is what the networks are called with. The last position
    predicts nothing and the first token is predicted by nothing: sides and targets are (B, L - 1), and the shift
    happens here and nowhere else. A token that has nothing before it to be predicted from never counts: one that
    follows padding, by "attention_mask" (B, L), and one at position 0 of "position_ids", where a document starts.

    >>> import torch
    >>> from tutelage.tasks import CausalLM
    >>> batch = {"input_ids": torch.tensor([[5, 6, 7, 0]]), "labels": torch.tensor([[-100, 6, 7, -100]])}
    >>> labels, known = CausalLM().targets(batch)
    >>> labels.targets.tolist(), known.tolist()
    ([[6, 7, 0]], [[1.0, 1.0, 0.0]])
    """

    name: ClassVar[str] = "causal_lm"
    compares_rows: ClassVar[bool] = False

    def check(self, student: Any) -> None:
        """Raise `ModuleError` for a network that sees the token it predicts, or predicts none."""
        reason = "it does not predict a token from those before it alone"
        check_kind(self.name, student, reason, "a causal language model, such as ...ForCausalLM")

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the networks are called with."""
        return inputs_of(batch)

    def student(self, output: Any) -> Logits | HeadStates:
        """Return what the student says at all positions but the last."""
        return without_last(side_of("student", output))

    def teacher(self, output: Any) -> Logits | HeadStates:
        """Return what a teacher says at all positions but the last."""
        return without_last(side_of("teacher", output))

    def targets(self, batch: Mapping[str, Any]) -> tuple[Labels | None, Tensor | None]:
        """Return the labels of all tokens but the first, and 1 where there is one."""
        labels = token_labels(batch)
        if labels is None:
            return None, None
        targets, there = known(labels[:, 1:])
        return targets, _both(there, _follows(batch))

    def weights(self, batch: Mapping[str, Any]) -> Tensor:
        """Return which predictions count without a label: the target mask, else labels, else tokens that are real."""
        counts = None
        if (mask := mask_of(batch, "target_mask")) is not None:
            counts = mask[:, 1:]
        elif (labels := token_labels(batch)) is not None:
            counts = known(labels[:, 1:])[1]
        elif (mask := mask_of(batch, "attention_mask")) is not None:
            counts = mask[:, 1:]
        return certain(_both(counts, _follows(batch)))


def _follows(batch: Mapping[str, Any]) -> Tensor | None:
    """Return 1 for each token but the first that follows one of its document; None where nothing tells.

    What follows padding would be predicted from padding.
    """
    mask = mask_of(batch, "attention_mask")
    return _both(None if mask is None else mask[:, :-1], _continues(batch))


def _continues(batch: Mapping[str, Any]) -> Tensor | None:
    """Return 1 for each token but the first that continues a document, 0 where one starts; None without positions."""
    positions, tokens = batch.get("position_ids"), batch.get("input_ids")
    if positions is None or not isinstance(tokens, Tensor):
        return None
    if not isinstance(positions, Tensor) or positions.shape not in (tokens.shape, (1, *tokens.shape[1:])):
        came = f"of shape {tuple(positions.shape)}" if isinstance(positions, Tensor) else type(positions).__name__
        raise ShapeError(f"'position_ids' are {came}; expected {tuple(tokens.shape)}, a position for each token")
    return (positions[:, 1:] != 0).float().expand(len(tokens), -1)


def _both(mask: Tensor | None, other: Tensor | None) -> Tensor | None:
    if mask is None or other is None:
        return other if mask is None else mask
    return mask * other
