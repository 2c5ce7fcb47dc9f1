"""Classification: one row, one distribution over the classes, one label or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from tutelage.distributions import Distribution, HeadStates, Labels, Logits
from tutelage.errors import ShapeError
from tutelage.tasks._calling import first_logits
from tutelage.tasks._labels import UNLABELLED, known, labels_of
from tutelage.tasks._suits import check_kind

_FOR_TOKENS = (
    "Where there is one for each token or pixel, return (rows, positions, classes) and pass "
    "task=TokenClassification(), or CausalLM() or MaskedLM() for a language model; images: "
    "logits.flatten(2).transpose(1, 2), with labels and 'target_mask' of (rows, positions)"
)


@dataclass(frozen=True)
class Classification:
    """The task of telling classes apart, with labels for all rows, for some, or for none.

    A batch is a mapping: "labels" (n,) integers, -100 or no such entry where a row has no label; "index", the number
    of a row in its data set, is for collators and no network sees it; everything else is what the networks are called
    with. Networks return a tensor of logits (n, C), a mapping or object with "logits", or a tuple with a tensor.

    >>> import torch
    >>> from tutelage.tasks import Classification
    >>> batch = {"inputs": torch.zeros(3, 8), "labels": torch.tensor([1, -100, 0])}
    >>> labels, known = Classification().targets(batch)
    >>> labels.targets.tolist(), known.tolist()
    ([1, 0, 0], [1.0, 0.0, 1.0])
    """

    compares_rows: ClassVar[bool] = True
    unlabelled: ClassVar[int] = UNLABELLED
    not_inputs: ClassVar[tuple[str, ...]] = ("labels", "index")

    def check(self, student: Any) -> None:
        """Raise `ModuleError` for a network over tokens: its labels would not be shifted, and padding would count."""
        reason = "it says something of every token, and here each row has one label and counts once"
        expected = (
            "a network that classifies rows, such as ...ForSequenceClassification, or its task, such as CausalLM()"
        )
        check_kind("classification", student, reason, expected)

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return everything but the labels and the rows' numbers."""
        return {name: value for name, value in batch.items() if name not in self.not_inputs}

    def student(self, output: Any) -> Tensor | Logits | HeadStates:
        """Return the student's logits."""
        return _of_rows(
            "student", output if isinstance(output, (Logits, HeadStates)) else first_logits("student", output)
        )

    def teacher(self, output: Any) -> Tensor | Distribution:
        """Return a teacher's logits, or the distribution that it returned."""
        return _of_rows("teacher", output if isinstance(output, Distribution) else first_logits("teacher", output))

    def targets(self, batch: Mapping[str, Any]) -> tuple[Labels | None, Tensor | None]:
        """Return the labels, class 0 where there is none, and a mask that is 1 where there is one."""
        labels = labels_of(batch)
        if labels is not None and labels.dim() != 1:
            raise ShapeError(
                f"the labels have shape {tuple(labels.shape)}; expected (rows,), a class for each row: "
                f"labels.argmax(-1) where they are one-hot. {_FOR_TOKENS}"
            )
        return (None, None) if labels is None else known(labels, self.unlabelled)

    def weights(self, batch: Mapping[str, Any]) -> None:
        """Return None: each row counts once."""
        return


Side = TypeVar("Side", bound=Tensor | Distribution)


def _of_rows(network: str, side: Side) -> Side:
    """Return a side that has one distribution for each row, or raise `ShapeError` with what to do about another."""
    shape = side.shape[:-1] if isinstance(side, Tensor) else side.batch_shape
    if len(shape) == 1:
        return side
    came = tuple(side.shape) if isinstance(side, Tensor) else (*shape, side.vocabulary_size)
    raise ShapeError(
        f"the {network} returned a tensor of shape {came}; expected (rows, classes), with classes last: this task "
        f"compares one distribution for each row. {_FOR_TOKENS}"
    )
