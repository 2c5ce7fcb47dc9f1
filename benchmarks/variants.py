"""What is timed: a step that goes forward and backward, with the float64 formula that it must agree with.

Legend: N rows, V outcomes, D hidden width, K kept ids; p the teacher, q the student; T temperature.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import tutelage as tl

Leaves = dict[str, Tensor]
RowLoss = Callable[[Tensor, slice], Tensor]
"""From float64 logits (n, V) of a range of rows to their share of the loss (): the truth of a step."""


class Student(ABC):
    """The tensors that a step differentiates."""

    leaves: Leaves
    rows: int
    largest: str
    """The leaf whose gradient is the result of the step, and no overhead: it is left out of the memory figures."""
    at_once = 256
    """How many rows the truth is made of at a time."""

    @abstractmethod
    def logits(self, leaves: Leaves, rows: slice) -> Tensor:
        """Return the logits (n, V) of some rows, made of the given leaves."""

    def clear(self) -> None:
        """Forget the gradients, as an optimizer's `zero_grad` does between steps."""
        for leaf in self.leaves.values():
            leaf.grad = None


class TensorStudent(Student):
    """Tensors that are differentiated themselves, without a network behind them."""

    @abstractmethod
    def side(self) -> tl.Logits | tl.HeadStates:
        """Return the student as tutelage takes it."""


class DenseStudent(TensorStudent):
    """Logits (N, V) that stand in memory."""

    largest = "values"

    def __init__(self, values: Tensor) -> None:
        self.rows = values.shape[0]
        self.leaves = {"values": values.requires_grad_()}

    def side(self) -> tl.Logits:
        """Return the student as tutelage takes it."""
        return tl.Logits(self.leaves["values"])

    def logits(self, leaves: Leaves, rows: slice) -> Tensor:
        """Return the logits (n, V) of some rows, made of the given leaves."""
        return leaves["values"][rows]


class HeadStudent(TensorStudent):
    """Hidden states (N, D) and the head's weight (V, D), both trained."""

    largest = "weight"

    def __init__(self, hidden: Tensor, weight: Tensor) -> None:
        self.rows = hidden.shape[0]
        self.leaves = {"hidden": hidden.requires_grad_(), "weight": weight.requires_grad_()}

    def side(self) -> tl.HeadStates:
        """Return the student as tutelage takes it."""
        return tl.HeadStates(self.leaves["hidden"], self.leaves["weight"])

    def logits(self, leaves: Leaves, rows: slice) -> Tensor:
        """Return the logits (n, V) of some rows, made of the given leaves."""
        return leaves["hidden"][rows] @ leaves["weight"].T


TOLERANCE = 1e-5
"""The largest relative error of a loss, and of a gradient (2-norm of the difference over 2-norm), that is timed."""


@dataclass(frozen=True, eq=False)
class Variant:
    """One way to compute a loss and its gradients."""

    step: Callable[[], Tensor]
    """Forward and backward; returns the loss. The gradients stand in the student's leaves."""
    student: Student
    truth: RowLoss | None
    """None for the four matrix products, which are `torch.mm` and compute no loss."""
    tolerance: float = TOLERANCE

    def run(self) -> Tensor:
        """Run one step on cleared gradients."""
        self.student.clear()
        return self.step()


Case = dict[str, Variant]
"""Variants by name, interleaved when they are timed; the first one is what the others are divided by in the table."""


class WrongResultError(AssertionError):
    """A variant that does not compute its objective: it must not be timed."""


def check(case: Case) -> dict[str, dict[str, float]]:
    """Return the relative errors of all variants on the very tensors that are timed, or raise `WrongResultError`.

    Errors: {variant: {"loss" or leaf: relative error}}.
    """
    truths: dict[RowLoss, tuple[float, Leaves]] = {}
    errors: dict[str, dict[str, float]] = {}
    for name, variant in case.items():
        if variant.truth is None:
            continue
        if variant.truth not in truths:
            truths[variant.truth] = _truth(variant.student, variant.truth)
        loss, gradients = truths[variant.truth]
        got = variant.run().item()
        errors[name] = {"loss": abs(got - loss) / abs(loss)}
        for leaf, expected in gradients.items():
            gradient = variant.student.leaves[leaf].grad
            assert gradient is not None
            errors[name][leaf] = float((gradient - expected).norm() / expected.norm())
        variant.student.clear()
        for what, error in errors[name].items():
            if not error <= variant.tolerance:
                raise WrongResultError(
                    f"{name}: {what} is off by {error:.1e} of its size, more than {variant.tolerance:g}; not timed"
                )
    return errors


def _truth(student: Student, row_loss: RowLoss) -> tuple[float, Leaves]:
    """Return the loss and the gradients in float64, by autograd through the formula, few rows at a time."""
    leaves = {name: leaf.detach().double().requires_grad_() for name, leaf in student.leaves.items()}
    total = 0.0
    for start in range(0, student.rows, student.at_once):
        rows = slice(start, min(start + student.at_once, student.rows))
        loss = row_loss(student.logits(leaves, rows), rows)
        loss.backward()
        total += loss.item()
    gradients = {}
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        gradients[name] = leaf.grad
    return total, gradients


def generator() -> torch.Generator:
    """Return the source of all random inputs, the same in every process."""
    return torch.Generator().manual_seed(0)
