"""The alpha-beta divergence of Cichocki, Cruces and Amari."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.divergences._base import Pointwise, check_range, excess_over_square, log_ratio, product
from tutelage.errors import ParameterError


@dataclass(frozen=True)
class AlphaBeta(Pointwise):
    """Alpha-beta divergence, a family that joins the KLs, Hellinger, and the beta and Rényi-like divergences.

    `sum_v (alpha/s p_v^s + beta/s q_v^s - p_v^alpha q_v^beta) / (alpha beta)` with `s = alpha + beta`, p the teacher,
    q the student; range [0, inf). alpha stresses where the teacher is large, beta where the student is.

    Limits, when a parameter is 0:

    - beta = 0: `sum (p^a log(p^a/q^a) - p^a + q^a) / a²`; (1, 0) is the forward KL;
    - alpha = 0: `sum (q^b log(q^b/p^b) - q^b + p^b) / b²`; (0, 1) is the reverse KL;
    - alpha = beta = 1/2 is four times `Hellinger`.

    Shapes (..., V) -> (...), nats per token. Errors: `ParameterError` unless alpha, beta >= 0 and alpha + beta > 0.

    >>> import torch, tutelage as tl
    >>> student, teacher = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[2.0, 0.0, 0.0]])
    >>> round(tl.divergence(student, teacher, tl.AlphaBeta(0.5, 0.5)).item(), 4)
    0.7746

    Paper: Cichocki, Cruces, Amari 2011 (Entropy 13), "Generalized Alpha-Beta Divergences and Their Application to
    Robust Nonnegative Matrix Factorization"; for distillation: Wang et al. 2025 (ICML), "ABKD".
    """

    alpha: float = 0.5
    beta: float = 0.5

    def __post_init__(self) -> None:
        check_range(self, "alpha", 0, float("inf"))
        check_range(self, "beta", 0, float("inf"))
        if self.alpha + self.beta == 0:
            raise ParameterError("AlphaBeta(alpha=0, beta=0): alpha + beta must be > 0; (1, 0) is the forward KL")

    @property
    def lumps(self) -> bool:
        return self.alpha + self.beta == 1

    @property
    def needs_teacher_support(self) -> bool:
        return self.alpha == 0

    @property
    def needs_float64(self) -> bool:
        """High powers multiply the rounding of the probabilities."""
        return self.alpha + self.beta > 10

    def term(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        # With the larger side taken out, the rest depends on the gap alone, is 0 at gap 0 and cannot overflow.
        ratio = log_ratio(log_p, log_q)
        gap = -ratio.abs()
        if self.alpha == self.beta:
            rest = _rest(self.alpha, self.beta, gap)
        else:
            rest = torch.where(ratio > 0, _rest(self.alpha, self.beta, gap), _rest(self.beta, self.alpha, gap))
        return product(torch.exp((self.alpha + self.beta) * torch.maximum(log_p, log_q)), rest)

    def slope(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        alpha, beta = self.alpha, self.beta
        ratio = log_ratio(log_p, log_q)
        outer = (alpha * torch.maximum(log_p, log_q) if alpha else 0.0) + (beta * log_q if beta else 0.0)
        return product(torch.exp(torch.as_tensor(outer)), torch.sign(ratio) * _power_gap(alpha, -ratio.abs()))


def _power_gap(power: float, gap: Tensor) -> Tensor:
    """Return `(exp(power gap) - 1) / power`, which is the gap at power 0."""
    if power < _NO_POWER:
        return gap
    x = power * gap
    far = torch.expm1(x) / power
    if power > 0.05:
        return far
    # Compiled code takes expm1 as exp(x) - 1 on some devices, of which little is left where x is small.
    near = x.clamp(-0.5, 0.5)
    return torch.where(x == near, gap * (1 + near * excess_over_square(near)), far)


def _rest(a: float, b: float, gap: Tensor) -> Tensor:
    """Return what is left of a term without the larger side: `(b/s exp(s gap) - exp(b gap) + a/s) / (a b)`, s = a + b.

    a is the power of the larger side. It is `(A exp(b gap) - B) / s` with A and B the gaps of the powers, which holds
    at a = 0 and b = 0 too. What is of first order in the gap cancels, with many digits where `s gap` is small.
    """
    total = a + b
    gap_a, gap_b = _power_gap(a, gap), _power_gap(b, gap)
    if min(a, b) > 0.05:
        # The exponential is 1 + b B: one less to take, and no large number to multiply its rounding by.
        far = (gap_a - gap_b + (b * gap_a) * gap_b) / total
    else:
        far = ((product(torch.exp(b * gap), gap_a) if b else gap_a) - gap_b) / total
    if total > 0.2:
        return far
    near = gap.clamp(min=-min(1 / total, 1e30))
    excess_a, excess_b = excess_over_square(a * near), excess_over_square(b * near)
    powers = (1 + a * near * excess_a) * (1 + b * near * excess_b)
    close = near.square() * (a / total * excess_a + b / total * (powers - excess_b))
    return torch.where(gap == near, close, far)


_NO_POWER = 1e-20
"""A power so small that float32 could not hold it; no number differs from its limit at 0 by as much as rounding."""
