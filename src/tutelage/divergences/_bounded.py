"""Total variation and squared Hellinger distance: bounded by 1, finite for any two sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tutelage.divergences._base import Pointwise


@dataclass(frozen=True)
class TotalVariation(Pointwise):
    """Total variation distance: the largest difference that teacher and student give to any event.

    `1/2 sum_v |p_v - q_v|`, p the teacher, q the student; range [0, 1]. At p = q the subgradient 0 is taken. Its
    gradient shrinks with 1/T, so `Term` multiplies by T and not by T². Shapes (..., V) -> (...), a probability.

    >>> import torch, tutelage as tl
    >>> student, teacher = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[2.0, 0.0, 0.0]])
    >>> round(tl.divergence(student, teacher, tl.TotalVariation()).item(), 4)
    0.575

    Paper: Wen, Li, Du, Mou 2023 (ACL), "f-Divergence Minimization for Sequence-Level Knowledge Distillation".
    """

    temperature_power: ClassVar[int] = 1

    def term(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        return 0.5 * (p - q).abs()

    def slope(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        return 0.5 * q * torch.sign(q - p)


@dataclass(frozen=True)
class Hellinger(Pointwise):
    """Squared Hellinger distance.

    `1/2 sum_v (sqrt p_v - sqrt q_v)²`, p the teacher, q the student; range [0, 1]. Shapes (..., V) -> (...), no unit.

    >>> import torch, tutelage as tl
    >>> student, teacher = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[2.0, 0.0, 0.0]])
    >>> round(tl.divergence(student, teacher, tl.Hellinger()).item(), 4)
    0.1936

    Paper: Hellinger 1909, "Neue Begründung der Theorie quadratischer Formen von unendlichvielen Veränderlichen".
    """

    def term(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        return 0.5 * (torch.exp(0.5 * log_p) - torch.exp(0.5 * log_q)).square()

    def slope(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        root_q = torch.exp(0.5 * log_q)
        return 0.5 * root_q * (root_q - torch.exp(0.5 * log_p))
