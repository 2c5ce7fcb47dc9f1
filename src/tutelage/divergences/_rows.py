"""Row-wise pieces of the divergences that run under autograd. All keep gradients finite where the value is."""

from __future__ import annotations

import torch
from torch import Tensor


def log_softmax(logits: Tensor) -> Tensor:
    """Return `log softmax` over the last dimension, exact to rounding also for 100,000 outcomes.

    `torch.log_softmax` adds up a row in one running sum per vector lane on the CPU, which loses a decimal digit
    there; `Tensor.sum` adds pairwise.
    """
    shifted = logits - logits.amax(-1, keepdim=True).detach()
    return shifted - shifted.exp().sum(-1, keepdim=True).log()


def forward_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p || q) of each row; 0 where p = 0, also in the gradients on either side."""
    p, q = log_p.exp(), log_q.exp()
    ratio = torch.where(p > 0, log_p - log_q, 0.0)
    return (p * ratio + (q - p)).sum(-1)


def half_squared_distance_of_directions(a: Tensor, b: Tensor, dim: int = -1, weights: Tensor | None = None) -> Tensor:
    """Return `1 - cosine(a, b)`, as `|a/|a| - b/|b||² / 2`: exactly 0 for equal sides.

    A vector of zeros has no direction: two of them count as equal (0), one beside another vector as orthogonal (1).
    `weights`, broadcastable to a and b, weigh the coordinates of the inner product.
    """
    unit_a, zero_a = _direction(a, dim, weights)
    unit_b, zero_b = _direction(b, dim, weights)
    squares = (unit_a - unit_b).square()
    distance = (squares if weights is None else squares * weights).sum(dim) / 2
    return distance + 0.5 * (zero_a ^ zero_b).to(distance.dtype)


def _direction(x: Tensor, dim: int, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return `x / |x|` and whether x is 0; scaled by its largest entry first, so that no square over- or underflows."""
    largest = x.abs().amax(dim, keepdim=True).detach()
    is_zero = largest == 0
    x = x / torch.where(is_zero, 1.0, largest)
    squares = x.square() if weights is None else x.square() * weights
    norm = torch.where(is_zero, 1.0, squares.sum(dim, keepdim=True)).sqrt()
    # Without a direction there is none to turn to either: no gradient.
    return torch.where(is_zero, 0.0, x / norm), is_zero.squeeze(dim)
