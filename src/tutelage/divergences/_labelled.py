"""Divergences that treat the labelled outcome apart: decoupled and normalised KD."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from tutelage.divergences._base import Divergence, PerToken, check_range
from tutelage.divergences._rows import forward_kl, log_softmax


def _split(log_probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log p of the label (n, 1), log of the rest's mass (n, 1), and log p within the rest (n, V).

    The label's own place in the last tensor is -inf; so are all places where the rest has no mass at all.
    """
    target = log_probabilities.gather(-1, labels[:, None])
    others = log_probabilities.scatter(-1, labels[:, None], -torch.inf)
    highest = others.amax(-1, keepdim=True).detach()
    is_empty = highest == -torch.inf
    highest = torch.where(is_empty, 0.0, highest)
    total = (others - highest).exp().sum(-1, keepdim=True)
    mass = torch.where(is_empty, -torch.inf, torch.where(is_empty, 1.0, total).log() + highest)
    return target, mass, others - torch.where(is_empty, 0.0, mass)


@dataclass(frozen=True)
class DecoupledKD(PerToken):
    """Decoupled KD: the binary KL of label against rest, and the KL among the rest, each with a weight of its own.

    `alpha KL(b_p || b_q) + beta KL(p_rest || q_rest)` with `b = (p_y, 1 - p_y)` and `p_rest = p_v / (1 - p_y)` over
    v != y, p the teacher, q the student, y the label; range [0, inf). The second part is 0 for two classes, and where
    the teacher gives the rest no mass. Plain forward KL has alpha = 1 and beta = 1 - p_y of each row.
    Shapes (..., V), labels (...) -> (...), nats per token. Errors: `ParameterError` unless alpha, beta >= 0.

    >>> import torch, tutelage as tl
    >>> student, teacher = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[2.0, 0.0, 0.0]])
    >>> round(tl.divergence(student, teacher, tl.DecoupledKD(), labels=torch.tensor([0])).item(), 4)
    1.7147

    Paper: Zhao, Cui, Song, Qiu, Liang 2022 (CVPR), "Decoupled Knowledge Distillation".
    """

    needs_labels: ClassVar[bool] = True

    alpha: float = 1.0
    beta: float = 8.0

    def __post_init__(self) -> None:
        check_range(self, "alpha", 0, float("inf"))
        check_range(self, "beta", 0, float("inf"))

    def per_token(self, student: Tensor, teacher: Tensor, temperature: Tensor | float, labels: Tensor | None) -> Tensor:
        assert labels is not None
        target_p, mass_p, rest_p = _split(log_softmax(teacher / temperature), labels)
        target_q, mass_q, rest_q = _split(log_softmax(student / temperature), labels)
        binary = forward_kl(torch.cat([target_p, mass_p], -1), torch.cat([target_q, mass_q], -1))
        # forward_kl adds q - p, which sums to 0 only if both sides are distributions: not where a rest has no mass.
        has_rest = mass_p.squeeze(-1) > -torch.inf
        among_rest = torch.where(has_rest, forward_kl(rest_p, rest_q), 0.0)
        return self.alpha * binary + self.beta * among_rest


@dataclass(frozen=True)
class NormalizedKD(PerToken):
    """Normalised KD: the teacher-weighted cross-entropy of the label, and the cross-entropy among the rest.

    `-p_y log q_y - gamma sum_{v != y} p_rest_v log q_rest_v`, p the teacher, q the student, y the label. The first
    part is taken at temperature 1 whatever the temperature, the second at T, with `p_rest = p_v / (1 - p_y)`. It is a
    cross-entropy: its least value is not 0 but depends on the teacher. Range [0, inf).

    T² belongs to the second part alone, so `Term` puts it into gamma and not in front.
    Shapes (..., V), labels (...) -> (...), nats per token. Errors: `ParameterError` unless gamma >= 0.

    >>> import torch, tutelage as tl
    >>> student, teacher = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[2.0, 0.0, 0.0]])
    >>> round(tl.divergence(student, teacher, tl.NormalizedKD(), labels=torch.tensor([0])).item(), 4)
    2.4409

    Paper: Yang, Zeng, Li, Zhang, Yuan, Li 2023 (ICCV), "From Knowledge Distillation to Self-Knowledge Distillation: A
    Unified Approach with Normalized Loss and Customized Soft Labels".
    """

    needs_labels: ClassVar[bool] = True
    raw_logits: ClassVar[bool] = True

    gamma: float = 1.5

    def __post_init__(self) -> None:
        check_range(self, "gamma", 0, float("inf"))

    def scaled(self, temperature: float) -> tuple[Divergence, float]:
        return replace(self, gamma=self.gamma * temperature**self.temperature_power), 1.0

    def per_token(self, student: Tensor, teacher: Tensor, temperature: Tensor | float, labels: Tensor | None) -> Tensor:
        assert labels is not None
        target_p = log_softmax(teacher).gather(-1, labels[:, None]).squeeze(-1).exp()
        target_q = log_softmax(student).gather(-1, labels[:, None]).squeeze(-1)
        target = -torch.where(target_p > 0, target_p * torch.where(target_p > 0, target_q, 0.0), 0.0)
        _, _, rest_p = _split(log_softmax(teacher / temperature), labels)
        _, _, rest_q = _split(log_softmax(student / temperature), labels)
        p = rest_p.exp()
        rest = -(p * torch.where(p > 0, rest_q, 0.0)).sum(-1)
        return target + self.gamma * rest
