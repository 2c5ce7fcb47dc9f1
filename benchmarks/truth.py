"""The objectives in float64, written from their formulas in plain PyTorch and nothing else.

Each function returns a `RowLoss`: the share of some rows in the mean over all N rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import tutelage as tl
from benchmarks.variants import RowLoss
from tutelage.divergences import Divergence, PerToken, Pointwise, WholeBatch

TEMPERATURE, SOFT, HARD = 2.0, 0.7, 0.3
"""`SOFT * T² * KL(p_T || q_T) + HARD * cross-entropy`: the objective of every case but the table of divergences."""

TeacherLogits = Callable[[slice], Tensor]


def distillation(
    teacher: TeacherLogits, labels: Tensor, temperature: float = TEMPERATURE, soft: float = SOFT, hard: float = HARD
) -> RowLoss:
    """Return the soft and the hard term with a teacher known by all its logits."""

    def loss(student: Tensor, rows: slice) -> Tensor:
        log_p = (teacher(rows).double() / temperature).log_softmax(-1)
        log_q = (student / temperature).log_softmax(-1)
        divergence = (log_p.exp() * (log_p - log_q)).sum() * temperature**2
        return (soft * divergence + hard * _cross_entropies(student, labels[rows])) / len(labels)

    return loss


def top_k_distillation(teacher: tl.TopK, labels: Tensor) -> RowLoss:
    """Return the soft term over the kept ids and one bucket for all others, and the hard term."""

    def loss(student: Tensor, rows: slice) -> Tensor:
        ids, tail = teacher.indices[rows], teacher.log_tails[TEMPERATURE][rows, None].double()
        softened = student / TEMPERATURE
        rest = softened.scatter(1, ids, -torch.inf).logsumexp(-1, keepdim=True)
        log_p = torch.cat([teacher.logits[rows].double() / TEMPERATURE, tail], -1).log_softmax(-1)
        log_q = torch.cat([softened.gather(1, ids), rest], -1).log_softmax(-1)
        soft = (log_p.exp() * (log_p - log_q)).sum() * TEMPERATURE**2
        return (SOFT * soft + HARD * _cross_entropies(student, labels[rows])) / len(labels)

    return loss


def cross_entropy(labels: Tensor) -> RowLoss:
    """Return the mean cross-entropy to the labels."""

    def loss(student: Tensor, rows: slice) -> Tensor:
        return _cross_entropies(student, labels[rows]) / len(labels)

    return loss


def divergence(kind: Divergence, teacher: Tensor, labels: Tensor) -> RowLoss:
    """Return the mean of a divergence at the temperature, without T², by autograd through its own float64 value.

    `slope`, and everything in `tutelage.execution`, is checked by this; that the value is what the paper says is for
    the tests to show.
    """

    def loss(student: Tensor, rows: slice) -> Tensor:
        other = teacher[rows].double()
        if isinstance(kind, WholeBatch):
            assert rows == slice(0, len(teacher)), "a whole batch is not split"
            return kind.whole_batch(student, other, TEMPERATURE, torch.ones(len(other), dtype=torch.float64))
        if isinstance(kind, PerToken):
            return kind.per_token(student, other, TEMPERATURE, labels[rows]).sum() / len(teacher)
        assert isinstance(kind, Pointwise)
        log_p, log_q = ((side / TEMPERATURE).log_softmax(-1) for side in (other, student))
        return kind.term(log_p, log_q, log_p.exp(), log_q.exp()).sum() / len(teacher)

    return loss


def _cross_entropies(student: Tensor, labels: Tensor) -> Tensor:
    return (student.logsumexp(-1) - student.gather(1, labels[:, None]).squeeze(1)).sum()
