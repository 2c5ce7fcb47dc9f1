"""The steps of tutelage, of plain PyTorch and of Liger-Kernel: forward and backward of one objective."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

import tutelage as tl
from benchmarks.truth import HARD, SOFT, TEMPERATURE
from benchmarks.variants import HeadStudent, TensorStudent
from tutelage.distributions import Distribution

Step = Callable[[], Tensor]


def backward(loss: Tensor) -> Tensor:
    """Go backward from a loss and return it."""
    loss.backward()
    return loss.detach()


def soft_and_hard(backend: str) -> tl.Objective:
    """Return the objective of every case but the table of divergences and that of TRL's trainers."""
    return tl.Objective(
        {
            "soft": tl.Term(tl.ForwardKL(), weight=SOFT, temperature=TEMPERATURE),
            "hard": tl.Term(tl.ForwardKL(), teacher="labels", weight=HARD),
        },
        backend=backend,
    )


def tutelage(student: TensorStudent, teacher: Distribution, labels: Tensor, backend: str) -> Step:
    """Return the step of an `Objective` of a soft and a hard term."""
    objective = soft_and_hard(backend)
    return lambda: backward(objective(student.side(), {"teacher": teacher, "labels": tl.Labels(labels)}).loss)


def tutelage_cross_entropy(student: TensorStudent, labels: Tensor, backend: str) -> Step:
    """Return the step of the hard term alone, with weight 1."""
    objective = tl.Objective({"hard": tl.Term(tl.ForwardKL(), teacher="labels")}, backend=backend)
    return lambda: backward(objective(student.side(), {"labels": tl.Labels(labels)}).loss)


def tutelage_divergence(
    student: TensorStudent, teacher: Tensor, labels: Tensor, kind: tl.divergences.Divergence
) -> Step:
    """Return the step of one divergence at the temperature, without T²."""
    given = labels if kind.needs_labels else None
    return lambda: backward(
        tl.divergence(student.side(), teacher, kind, temperature=TEMPERATURE, labels=given, backend="torch")
    )


def eager(student: TensorStudent, teacher: Callable[[], Tensor], labels: Tensor) -> Step:
    """Return the step in plain PyTorch, all logits at once; the teacher's are made within it where they have a head."""

    def step() -> Tensor:
        logits = student.logits(student.leaves, slice(None))
        with torch.no_grad():
            other = teacher()
        soft = _eager_kl(logits, other) * TEMPERATURE**2
        return backward(SOFT * soft + HARD * F.cross_entropy(logits, labels))

    return step


def eager_kl(student: TensorStudent, teacher: Tensor) -> Step:
    """Return the step of the soft term alone in plain PyTorch, without weight and T²."""
    return lambda: backward(_eager_kl(student.logits(student.leaves, slice(None)), teacher))


def eager_cross_entropy(student: TensorStudent, labels: Tensor) -> Step:
    """Return the step of the hard term alone in plain PyTorch."""
    return lambda: backward(F.cross_entropy(student.logits(student.leaves, slice(None)), labels))


def _eager_kl(student: Tensor, teacher: Tensor) -> Tensor:
    log_q, log_p = (F.log_softmax(side / TEMPERATURE, -1) for side in (student, teacher))
    return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


def liger(student: HeadStudent, hidden: Tensor, weight: Tensor, labels: Tensor, compiled: bool) -> Step:
    """Return the step of Liger-Kernel's chunked loss, made to compute the same objective.

    beta = 0 is KL(teacher || student) there (`chunked_loss/jsd_loss.py`). It divides both sides by the temperature but
    never multiplies by T², so that factor goes into the soft weight.
    """

    @cache
    def module() -> torch.nn.Module:
        # Here, so that the cases without Liger run where it is not installed.
        from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss  # type: ignore[import-not-found]

        loss: torch.nn.Module = LigerFusedLinearJSDLoss(
            weight_hard_loss=HARD,
            weight_soft_loss=SOFT * TEMPERATURE**2,
            beta=0.0,
            temperature=TEMPERATURE,
            compiled=compiled,
        )
        return loss

    return lambda: backward(module()(student.leaves["hidden"], student.leaves["weight"], hidden, weight, labels))


def products(student: HeadStudent, hidden: Tensor, weight: Tensor, *, allocates: bool) -> Step:
    """Return the four matrix products of a head step, and nothing else.

    Student forward, teacher forward, gradient on the hidden states, gradient on the weight: all rows at once, into
    memory that is there already, or that each step asks the system for.
    """
    mine, head = (student.leaves[name].detach() for name in ("hidden", "weight"))

    def results() -> tuple[Tensor, ...]:
        logits, other = torch.empty(len(mine), len(head)), torch.empty(len(mine), len(head))
        return logits, other, torch.empty_like(mine), torch.empty_like(head)

    kept = cache(results)

    def step() -> Tensor:
        logits, other, hidden_gradient, weight_gradient = results() if allocates else kept()
        torch.mm(mine, head.T, out=logits)
        torch.mm(hidden, weight.T, out=other)
        torch.mm(logits, head, out=hidden_gradient)
        torch.mm(logits.T, mine, out=weight_gradient)
        return torch.zeros(())

    return step
