"""Divergences to a mixture of both sides: Jensen-Shannon and the skewed KLs. All are bounded."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.divergences._base import Pointwise, check_range, log_ratio, product
from tutelage.divergences._kl import ForwardKL, ReverseKL
from tutelage.errors import ConventionWarning

_NEAR_THE_ENDS = 0.05


def _log_to_mixture(log_p: Tensor, log_q: Tensor, weight_p: float) -> tuple[Tensor, Tensor]:
    """Return `log(p/m)` and `log(q/m)` for `m = weight_p * p + (1 - weight_p) * q`, both exactly 0 where p = q.

    `m` is the larger side times `1 + w (exp(-gap) - 1)`, with w the weight of the smaller side; nothing overflows.
    Where w is close to 1 and the gap is large, that sum cancels: there the logarithm is taken of a sum of positive
    numbers, `(1 - w) + w exp(-gap)`, which in turn would lose digits near p = q.
    """
    weight_q = 1 - weight_p
    ratio = log_ratio(log_p, log_q)
    gap = ratio.abs().neg_()
    # 1 for the smaller side p, 0 for the smaller side q; with equal weights it does not matter which it is.
    p_is_smaller = (ratio < 0).to(ratio.dtype) if weight_p != weight_q else 0.0
    weight = weight_q + (weight_p - weight_q) * p_is_smaller
    log_m_over_larger = torch.log1p(weight * torch.expm1(gap))
    if min(weight_p, weight_q) < 0.1:
        far = torch.log((1 - weight) + weight * torch.exp(gap))
        log_m_over_larger = torch.where(gap > -1, log_m_over_larger, far)
    return ratio.clamp(max=0) - log_m_over_larger, (-ratio).clamp(max=0) - log_m_over_larger


@dataclass(frozen=True)
class JensenShannon(Pointwise):
    """Generalised Jensen-Shannon divergence between teacher and student.

    `beta KL(p || m) + (1 - beta) KL(q || m)` with `m = beta p + (1 - beta) q`, p the teacher, q the student; range
    [0, H(beta)], H the binary entropy in nats (log 2 at beta = 0.5). Shapes (..., V) -> (...), nats per token.

    By convention beta = 0 is the forward KL and beta = 1 the reverse KL, but the formula itself tends to 0 at both
    ends (about beta times the forward KL): beta is no dial between the KLs. A `ConventionWarning` says so for beta
    below 0.05 or above 0.95. Errors: `ParameterError` unless 0 <= beta <= 1.

    >>> import torch, tutelage as tl
    >>> student, teacher = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[2.0, 0.0, 0.0]])
    >>> round(tl.divergence(student, teacher, tl.JensenShannon()).item(), 4)
    0.1857

    Papers: Lin 1991, "Divergence measures based on the Shannon entropy"; Agarwal et al. 2024 (ICLR), "On-Policy
    Distillation of Language Models" (GKD).
    """

    beta: float = 0.5

    def __post_init__(self) -> None:
        check_range(self, "beta", 0, 1)
        if not _NEAR_THE_ENDS <= self.beta <= 1 - _NEAR_THE_ENDS:
            end, name = (0, "forward") if self.beta < 0.5 else (1, "reverse")
            warnings.warn(
                f"JensenShannon(beta={self.beta:g}): beta = {end} is the {name} KL by convention, while the formula "
                f"tends to 0 as beta tends to {end} (at a distance d from the end it is about d times that KL). Use "
                f"{name.capitalize()}KL() for the KL itself, or scale the term's weight by 1/d",
                ConventionWarning,
                stacklevel=3,
            )

    @property
    def needs_teacher_support(self) -> bool:
        """Only the reverse KL, at beta = 1, is infinite where the teacher excludes an outcome."""
        return self.beta == 1

    def term(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        if self.beta in (0, 1):
            return (ForwardKL() if self.beta == 0 else ReverseKL()).term(log_p, log_q, p, q)
        log_p_over_m, log_q_over_m = _log_to_mixture(log_p, log_q, self.beta)
        return self.beta * product(p, log_p_over_m) + (1 - self.beta) * product(q, log_q_over_m)

    def slope(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        if self.beta in (0, 1):
            return (ForwardKL() if self.beta == 0 else ReverseKL()).slope(log_p, log_q, p, q)
        _, log_q_over_m = _log_to_mixture(log_p, log_q, self.beta)
        return (1 - self.beta) * product(q, log_q_over_m)


@dataclass(frozen=True)
class SkewForwardKL(Pointwise):
    """Skewed forward KL: the teacher against a student with a share of the teacher mixed in.

    `KL(p || skew p + (1 - skew) q)`, p the teacher, q the student; range [0, -log skew]. Shapes (..., V) -> (...),
    nats per token. Errors: `ParameterError` unless 0 < skew < 1 (skew = 0 is `ForwardKL`).

    >>> import torch, tutelage as tl
    >>> student, teacher = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[2.0, 0.0, 0.0]])
    >>> round(tl.divergence(student, teacher, tl.SkewForwardKL(0.1)).item(), 4)
    0.6049

    Paper: Ko, Kim, Chen, Yun 2024 (ICML), "DistiLLM: Towards Streamlined Distillation for Large Language Models".
    """

    skew: float = 0.1

    def __post_init__(self) -> None:
        check_range(self, "skew", 0, 1, open_low=True, open_high=True)

    def term(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        log_p_over_m, _ = _log_to_mixture(log_p, log_q, self.skew)
        return product(p, log_p_over_m) + (1 - self.skew) * (q - p)

    def slope(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        log_p_over_m, _ = _log_to_mixture(log_p, log_q, self.skew)
        return -(1 - self.skew) * product(q, torch.expm1(log_p_over_m))


@dataclass(frozen=True)
class SkewReverseKL(Pointwise):
    """Skewed reverse KL: the student against a teacher with a share of the student mixed in.

    `KL(q || skew q + (1 - skew) p)`, p the teacher, q the student; range [0, -log skew]. Shapes (..., V) -> (...),
    nats per token. Errors: `ParameterError` unless 0 < skew < 1 (skew = 0 is `ReverseKL`).

    >>> import torch, tutelage as tl
    >>> student, teacher = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[2.0, 0.0, 0.0]])
    >>> round(tl.divergence(student, teacher, tl.SkewReverseKL(0.1)).item(), 4)
    0.626

    Paper: Ko, Kim, Chen, Yun 2024 (ICML), "DistiLLM: Towards Streamlined Distillation for Large Language Models".
    """

    skew: float = 0.1

    def __post_init__(self) -> None:
        check_range(self, "skew", 0, 1, open_low=True, open_high=True)

    def term(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        _, log_q_over_m = _log_to_mixture(log_p, log_q, 1 - self.skew)
        return product(q, log_q_over_m) + (1 - self.skew) * (p - q)

    def slope(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        _, log_q_over_m = _log_to_mixture(log_p, log_q, 1 - self.skew)
        return product(q, log_q_over_m - self.skew * torch.expm1(log_q_over_m))
