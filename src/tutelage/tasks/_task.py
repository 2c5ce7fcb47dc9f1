"""What a task is: the few questions whose answers differ between kinds of data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from torch import Tensor

from tutelage.distributions import Distribution, HeadStates, Labels, Logits


class Task(Protocol):
    """Turns a batch, and what a network makes of it, into what an `Objective` needs.

    `Classification` is one. All of its answers are about one micro-batch.
    """

    compares_rows: ClassVar[bool]
    """Whether each row of a batch is compared once; otherwise it is the tokens of the rows."""

    def check(self, student: Any) -> None:
        """Raise `ModuleError` if this network would be trained wrongly by this task."""

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the networks are called with, by name."""

    def student(self, output: Any) -> Tensor | Logits | HeadStates:
        """Return the student's side from what the student returned."""

    def teacher(self, output: Any) -> Tensor | Distribution:
        """Return a teacher's side from what the teacher returned."""

    def targets(self, batch: Mapping[str, Any]) -> tuple[Labels | None, Tensor | None]:
        """Return the labels, and 1 where there is one, 0 elsewhere; None and None for a batch without labels."""

    def weights(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Return the weight of everything that is compared in terms without labels; None if each row counts once."""
