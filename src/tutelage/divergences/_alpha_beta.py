"""The alpha-beta divergence of Cichocki, Cruces and Amari."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.divergences._base import Pointwise, check_range, log_ratio, product
from tutelage.errors import ParameterError


@dataclass(frozen=True)
class AlphaBeta(Pointwise):
    """Alpha-beta divergence, a family that joins the KLs, Hellinger, and the beta and Rényi-like divergences.

    `sum_v (alpha/s p_v^s + beta/s q_v^s - p_v^alpha q_v^beta) / (alpha beta)` with `s = alpha + beta`, p the teacher,
    q the student; range [0, inf). alpha stresses where the teacher is large, beta where the student is.

    Limits, used when a parameter is exactly 0:

    - beta = 0: `sum (p^a log(p^a/q^a) - p^a + q^a) / a²`; (1, 0) is the forward KL;
    - alpha = 0: `sum (q^b log(q^b/p^b) - q^b + p^b) / b²`; (0, 1) is the reverse KL;
    - alpha = beta = 1/2 is four times `Hellinger`.

    A parameter that is small but not 0 costs digits: about as many as it has zeros after the point.
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

    def term(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        alpha, beta, total = self.alpha, self.beta, self.alpha + self.beta
        if beta == 0:
            powered_p, powered_q = torch.exp(alpha * log_p), torch.exp(alpha * log_q)
            return (product(powered_p, alpha * (log_p - log_q)) + (powered_q - powered_p)) / alpha**2
        if alpha == 0:
            powered_p, powered_q = torch.exp(beta * log_p), torch.exp(beta * log_q)
            return (product(powered_q, beta * (log_q - log_p)) + (powered_p - powered_q)) / beta**2
        # With the larger side taken out, the rest depends on the gap alone, is 0 at gap 0 and cannot overflow.
        ratio = log_ratio(log_p, log_q)
        gap = -ratio.abs()
        both = torch.expm1(total * gap) / total
        rest = torch.where(ratio > 0, beta * both - torch.expm1(beta * gap), alpha * both - torch.expm1(alpha * gap))
        return torch.exp(total * torch.maximum(log_p, log_q)) * rest / (alpha * beta)

    def slope(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        alpha, beta = self.alpha, self.beta
        if alpha == 0:
            return product(torch.exp(beta * log_q), log_q - log_p)
        ratio = log_ratio(log_p, log_q)
        outer = alpha * torch.maximum(log_p, log_q) + (beta * log_q if beta else 0.0)
        return torch.exp(outer) * torch.sign(ratio) * torch.expm1(-alpha * ratio.abs()) / alpha
