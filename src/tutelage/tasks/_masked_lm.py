"""Masked language models: what stands at a hidden token predicts it, from both sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from tutelage.distributions import HeadStates, Labels, Logits
from tutelage.tasks._labels import known
from tutelage.tasks._language import certain, inputs_of, mask_of, side_of, token_labels
from tutelage.tasks._suits import check_kind


@dataclass(frozen=True)
class MaskedLM:
    """The task of predicting tokens that were hidden.

    A batch is a mapping: "labels" (B, L), the ids that were hidden and -100 elsewhere; "target_mask" (B, L), 1 for the
    tokens at which student and teacher are compared: the hidden ones if it is left out, and without labels every token
    of "attention_mask"; "index", the rows' numbers. Everything else is what the networks are called with. No shift.

    >>> import torch
    >>> from tutelage.tasks import MaskedLM
    >>> labels, known = MaskedLM().targets({"labels": torch.tensor([[-100, 6, -100]])})
    >>> labels.targets.tolist(), known.tolist()
    ([[0, 6, 0]], [[0.0, 1.0, 0.0]])
    """

    name: ClassVar[str] = "masked_lm"
    compares_rows: ClassVar[bool] = False

    def check(self, student: Any) -> None:
        """Raise `ModuleError` for a network that cannot look ahead, or has no distribution over tokens."""
        reason = "it does not predict the token at a position from both sides of it"
        check_kind(self.name, student, reason, "an encoder with a head over the vocabulary, such as ...ForMaskedLM")

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the networks are called with."""
        return inputs_of(batch)

    def student(self, output: Any) -> Logits | HeadStates:
        """Return what the student says at every position."""
        return side_of("student", output)

    def teacher(self, output: Any) -> Logits | HeadStates:
        """Return what a teacher says at every position."""
        return side_of("teacher", output)

    def targets(self, batch: Mapping[str, Any]) -> tuple[Labels | None, Tensor | None]:
        """Return the hidden ids, and 1 where one was hidden."""
        labels = token_labels(batch)
        return (None, None) if labels is None else known(labels)

    def weights(self, batch: Mapping[str, Any]) -> Tensor:
        """Return which predictions count without a label: the target mask, else hidden tokens, else real ones."""
        mask = mask_of(batch, "target_mask")
        if mask is not None:
            return mask
        labels = token_labels(batch)
        return certain(mask_of(batch, "attention_mask")) if labels is None else known(labels)[1]
