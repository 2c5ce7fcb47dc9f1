"""Divergences to a mixture of both sides: Jensen-Shannon and the skewed KLs. All are bounded."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.divergences._base import Pointwise, check_range, excess, kl_term, log_ratio, product
from tutelage.divergences._kl import ForwardKL, ReverseKL
from tutelage.errors import ConventionWarning

_NEAR_THE_ENDS = 0.05
_NEARLY_THE_SAME = 0.7
"""The skew above which a side and its mixture are so close that differences of the two lose digits."""


def _logs_to_mixture(log_p: Tensor, log_q: Tensor, share_p: float, share_q: float) -> tuple[Tensor, Tensor]:
    """Return `log(p/m)` and `log(q/m)` for `m = share_p p + share_q q`, both exactly 0 where p = q.

    Both shares are given, for 1 less a rounded share has other digits than the share itself.
    """
    ratio = log_ratio(log_p, log_q)
    if min(share_p, share_q) >= 0.1:
        # `m` is the larger side times `1 + w (exp(-gap) - 1)`, with w the share of the smaller side.
        p_is_smaller = (ratio < 0).to(ratio.dtype) if share_p != share_q else 0.0
        share_of_smaller = share_q + (share_p - share_q) * p_is_smaller
        log_m_over_larger = torch.log1p(share_of_smaller * torch.expm1(-ratio.abs()))
        return ratio.clamp(max=0) - log_m_over_larger, (-ratio).clamp(max=0) - log_m_over_larger
    # With a small share that sum would cancel far from p = q. There the part of m that is larger is taken out, of which
    # `tilt` is the logarithm of p's over q's: a sum of positive numbers is left.
    near = ratio.clamp(-1, 1)
    is_near = ratio == near
    tilt = ratio + (math.log(share_p) - math.log(share_q))
    rest = torch.log1p(torch.exp(-tilt.abs()))
    over_p, over_q = -math.log(share_p) - rest, -math.log(share_q) - rest
    log_p_over_m = torch.where(tilt < 0, ratio + over_q, over_p)
    log_q_over_m = torch.where(tilt < 0, over_q, over_p - ratio)
    return (
        torch.where(is_near, -torch.log1p(share_q * torch.expm1(-near)), log_p_over_m),
        torch.where(is_near, -torch.log1p(share_p * torch.expm1(near)), log_q_over_m),
    )


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
        log_p_over_m, log_q_over_m = _logs_to_mixture(log_p, log_q, self.beta, 1 - self.beta)
        return self.beta * product(p, log_p_over_m) + (1 - self.beta) * product(q, log_q_over_m)

    def slope(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        if self.beta in (0, 1):
            return (ForwardKL() if self.beta == 0 else ReverseKL()).slope(log_p, log_q, p, q)
        _, log_q_over_m = _logs_to_mixture(log_p, log_q, self.beta, 1 - self.beta)
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
        log_p_over_m, _ = _logs_to_mixture(log_p, log_q, self.skew, 1 - self.skew)
        if self.skew > _NEARLY_THE_SAME:
            return kl_term(p, log_p_over_m, p + (1 - self.skew) * (q - p))
        return product(p, log_p_over_m) + (1 - self.skew) * (q - p)

    def slope(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        log_p_over_m, _ = _logs_to_mixture(log_p, log_q, self.skew, 1 - self.skew)
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
        _, log_q_over_m = _logs_to_mixture(log_p, log_q, 1 - self.skew, self.skew)
        if self.skew > _NEARLY_THE_SAME:
            return kl_term(q, log_q_over_m, q + (1 - self.skew) * (p - q))
        return product(q, log_q_over_m) + (1 - self.skew) * (p - q)

    def slope(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        _, log_q_over_m = _logs_to_mixture(log_p, log_q, 1 - self.skew, self.skew)
        if self.skew > _NEARLY_THE_SAME:
            return product(q, (1 - self.skew) * torch.expm1(log_q_over_m) - excess(log_q_over_m))
        return product(q, log_q_over_m - self.skew * torch.expm1(log_q_over_m))
