"""Adaptive KL: forward and reverse KL mixed row by row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.divergences._base import PerToken, check_range
from tutelage.divergences._rows import forward_kl, log_softmax


@dataclass(frozen=True)
class AdaptiveKL(PerToken):
    """Adaptive KL: forward KL weighted by the gap in the teacher's head, reverse KL by the gap in its tail.

    `w KL(p || q) + (1 - w) KL(q || p)` with `w = gap_head / (gap_head + gap_tail)`, p the teacher, q the student. A
    gap is `sum |p_v - q_v|`; the head is the smallest set of the teacher's likeliest outcomes whose mass reaches mu,
    with all outcomes that tie with its last one; the tail is the rest. The weights carry no gradient and are 1/2
    where both gaps are 0. Range [0, inf). Shapes (..., V) -> (...), nats per token.
    Errors: `ParameterError` unless 0 < mu < 1.

    >>> import torch, tutelage as tl
    >>> student, teacher = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[2.0, 0.0, 0.0]])
    >>> round(tl.divergence(student, teacher, tl.AdaptiveKL()).item(), 4)
    0.8098

    Paper: Wu, Tao, Wang, Yang, Zhao, Wong 2024 (COLING 2025), "Rethinking Kullback-Leibler Divergence in Knowledge
    Distillation for Large Language Models".
    """

    mu: float = 0.5

    def __post_init__(self) -> None:
        check_range(self, "mu", 0, 1, open_low=True, open_high=True)

    def per_token(self, student: Tensor, teacher: Tensor, temperature: Tensor | float, labels: Tensor | None) -> Tensor:
        log_p, log_q = log_softmax(teacher / temperature), log_softmax(student / temperature)
        p, q = log_p.exp(), log_q.exp().detach()
        ordered = p.sort(dim=-1, descending=True).values
        last = (ordered.cumsum(-1) < self.mu).sum(-1, keepdim=True).clamp(max=p.shape[-1] - 1)
        in_head = p >= ordered.gather(-1, last)
        gaps = (p - q).abs()
        head = torch.where(in_head, gaps, 0.0).sum(-1)
        total = gaps.sum(-1)
        weight = torch.where(total > 0, head / torch.where(total > 0, total, 1.0), 0.5)
        return weight * forward_kl(log_p, log_q) + (1 - weight) * forward_kl(log_q, log_p)
