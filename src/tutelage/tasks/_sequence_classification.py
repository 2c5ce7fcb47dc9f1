"""Sequence classification: one class for each text, or pair of texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tutelage.tasks._classification import Classification
from tutelage.tasks._suits import check_kind


@dataclass(frozen=True)
class SequenceClassification(Classification):
    """`Classification` of texts: a batch has "input_ids", "attention_mask", and "token_type_ids" for pairs.

    >>> import torch
    >>> from tutelage.tasks import SequenceClassification
    >>> batch = {"input_ids": torch.tensor([[5, 6], [7, 8]]), "labels": torch.tensor([1, -100])}
    >>> sorted(SequenceClassification().inputs(batch)), SequenceClassification().targets(batch)[1].tolist()
    (['input_ids'], [1.0, 0.0])
    """

    name: ClassVar[str] = "sequence_classification"

    def check(self, student: Any) -> None:
        """Raise `ModuleError` for a network with a distribution for each token."""
        reason = "it does not give each text one class"
        check_kind(self.name, student, reason, "a network such as ...ForSequenceClassification")
