"""The Kullback-Leibler divergences: forward, reverse, and their sum."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tutelage.divergences._base import Pointwise, product


@dataclass(frozen=True)
class ForwardKL(Pointwise):
    """Forward Kullback-Leibler divergence, KL(teacher || student): the student covers all of the teacher's mass.

    `sum_v p_v (log p_v - log q_v)`, p the teacher, q the student; range [0, inf), infinite where q = 0 < p.
    To a one-hot teacher (`Labels`) it is the cross-entropy. Shapes (..., V) -> (...), nats per token.

    >>> import torch, tutelage as tl
    >>> student, teacher = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[2.0, 0.0, 0.0]])
    >>> round(tl.divergence(student, teacher, tl.ForwardKL()).item(), 4)
    0.7794

    Paper: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network".
    """

    def term(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        return product(p, log_p - log_q) + (q - p)

    def slope(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        return q - p


@dataclass(frozen=True)
class ReverseKL(Pointwise):
    """Reverse Kullback-Leibler divergence, KL(student || teacher): the student seeks one of the teacher's modes.

    `sum_v q_v (log q_v - log p_v)`, p the teacher, q the student; range [0, inf), infinite where p = 0 < q.
    Shapes (..., V) -> (...), nats per token.

    >>> import torch, tutelage as tl
    >>> student, teacher = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[2.0, 0.0, 0.0]])
    >>> round(tl.divergence(student, teacher, tl.ReverseKL()).item(), 4)
    0.8403

    Paper: Gu, Dong, Wei, Huang 2024 (ICLR), "MiniLLM: Knowledge Distillation of Large Language Models".
    """

    @property
    def needs_teacher_support(self) -> bool:
        return True

    def term(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        return product(q, log_q - log_p) + (p - q)

    def slope(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        return product(q, log_q - log_p)


@dataclass(frozen=True)
class Jeffreys(Pointwise):
    """Jeffreys divergence, the sum of forward and reverse KL.

    `sum_v (p_v - q_v) (log p_v - log q_v)`, p the teacher, q the student; range [0, inf), infinite where one side
    gives mass to what the other excludes. Shapes (..., V) -> (...), nats per token.

    >>> import torch, tutelage as tl
    >>> student, teacher = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[2.0, 0.0, 0.0]])
    >>> round(tl.divergence(student, teacher, tl.Jeffreys()).item(), 4)
    1.6197

    Paper: Jeffreys 1946, "An invariant form for the prior probability in estimation problems".
    """

    @property
    def needs_teacher_support(self) -> bool:
        return True

    def term(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        return product(p - q, log_p - log_q)

    def slope(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        return product(q, log_q - log_p) + (q - p)
