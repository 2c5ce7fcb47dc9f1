"""DIST: correlations within and between rows instead of an exact match."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.divergences._base import WholeBatch, check_range
from tutelage.divergences._rows import half_squared_distance_of_directions, log_softmax


@dataclass(frozen=True)
class Dist(WholeBatch):
    """DIST: one minus the correlation of teacher and student, over each row's classes and over each class's rows.

    `beta (1 - mean_i r(p_i., q_i.)) + gamma (1 - mean_v r(p_.v, q_.v))`, r the Pearson correlation, p the teacher, q
    the student, both softened by T; range [0, 2 (beta + gamma)]. Token weights weigh the rows in both means and in the
    correlations between rows. A constant row or column has no correlation: it counts as 1 beside another constant
    one and as 0 beside one that varies.

    It relates the rows of one batch to each other, so it is computed per micro-batch: its value depends on how a
    batch is split. Shapes (N, V) -> (), no unit. Errors: `ParameterError` unless beta, gamma >= 0.

    >>> import torch, tutelage as tl
    >>> student = torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 0.0]])
    >>> teacher = torch.tensor([[2.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    >>> round(tl.divergence(student, teacher, tl.Dist()).item(), 4)
    3.0

    Paper: Huang, You, Wang, Qian, Xu 2022 (NeurIPS), "Knowledge Distillation from A Stronger Teacher".
    """

    beta: float = 1.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        check_range(self, "beta", 0, float("inf"))
        check_range(self, "gamma", 0, float("inf"))

    def whole_batch(self, student: Tensor, teacher: Tensor, temperature: float, weights: Tensor) -> Tensor:
        log_p, log_q = log_softmax(teacher / temperature), log_softmax(student / temperature)
        p, q = log_p.exp(), log_q.exp()
        total = weights.sum()
        shares = (weights / torch.where(total == 0, 1.0, total))[:, None]
        over_classes = half_squared_distance_of_directions(
            _centre(q, -1, 1 / q.shape[-1]), _centre(p, -1, 1 / p.shape[-1])
        )
        # A correlation does not depend on the scale: relative to their largest, rare outcomes do not underflow.
        p, q = _over_largest_row(log_p, shares), _over_largest_row(log_q, shares)
        over_rows = half_squared_distance_of_directions(_centre(q, 0, shares), _centre(p, 0, shares), 0, shares)
        return self.beta * (over_classes * shares.squeeze(-1)).sum() + self.gamma * over_rows.mean()


def _over_largest_row(log_probabilities: Tensor, shares: Tensor) -> Tensor:
    """Return each outcome's probabilities (N, V) over its largest one among the rows that count."""
    counting = torch.where(shares > 0, log_probabilities, -torch.inf)
    largest = counting.amax(0, keepdim=True).detach()
    # An outcome that no row gives mass stays at 0 everywhere.
    return torch.where(shares > 0, log_probabilities - torch.where(largest.isfinite(), largest, 0.0), -torch.inf).exp()


def _centre(x: Tensor, dim: int, shares: Tensor | float) -> Tensor:
    """Return x less its mean along `dim`, and exactly 0 where x is constant there but for rounding."""
    centred = x - (x * shares).sum(dim, keepdim=True)
    rounding = 8 * torch.finfo(x.dtype).eps * x.amax(dim, keepdim=True)
    return torch.where(centred.abs().amax(dim, keepdim=True) <= rounding, 0.0, centred)
