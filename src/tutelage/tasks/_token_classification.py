"""Token classification: one class for each word of a text, such as its part of speech."""

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
class TokenClassification:
    """The task of giving each token a class, with labels for all words, for some, or for none.

    A batch is a mapping: "labels" (B, L), -100 for tokens without one (padding, special tokens, the later pieces of a
    word, and all tokens of a row that no one labelled); "target_mask" (B, L), 1 for the tokens at which student and
    teacher are compared, every token of "attention_mask" if it is left out; "index", the rows' numbers. Everything else
    is what the networks are called with. No shift.

    >>> import torch
    >>> from tutelage.tasks import TokenClassification
    >>> batch = {"labels": torch.tensor([[-100, 2, 1]]), "attention_mask": torch.tensor([[1, 1, 1]])}
    >>> TokenClassification().targets(batch)[1].tolist(), TokenClassification().weights(batch).tolist()
    ([[0.0, 1.0, 1.0]], [[1.0, 1.0, 1.0]])
    """

    name: ClassVar[str] = "token_classification"
    compares_rows: ClassVar[bool] = False

    def check(self, student: Any) -> None:
        """Raise `ModuleError` for a network that predicts tokens, or one class for the whole text."""
        reason = "it does not give each token a class"
        check_kind(self.name, student, reason, "a network such as ...ForTokenClassification")

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the networks are called with."""
        return inputs_of(batch)

    def student(self, output: Any) -> Logits | HeadStates:
        """Return what the student says of every token."""
        return side_of("student", output)

    def teacher(self, output: Any) -> Logits | HeadStates:
        """Return what a teacher says of every token."""
        return side_of("teacher", output)

    def targets(self, batch: Mapping[str, Any]) -> tuple[Labels | None, Tensor | None]:
        """Return the classes, and 1 where a token has one."""
        labels = token_labels(batch)
        return (None, None) if labels is None else known(labels)

    def weights(self, batch: Mapping[str, Any]) -> Tensor:
        """Return which tokens count without a label: the target mask, else the tokens that are real."""
        mask = mask_of(batch, "target_mask")
        return certain(mask_of(batch, "attention_mask")) if mask is None else mask
