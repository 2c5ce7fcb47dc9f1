"""Forward and reverse KL of two dense sides, value and gradient together, in half the passes over memory.

The general way makes log p, p, log q, q, a term and a slope, which for these two is more than they need. Legend: n
rows, V columns; p the teacher, q the student; T temperature; u and w the student's and the teacher's softened logits in
base 2, U and W the sums of their powers; d = w - u.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tutelage.divergences import Divergence, ForwardKL, ReverseKL, can_look
from tutelage.execution._readers import base_2


def can_fuse(divergence: Divergence, logits: Tensor) -> bool:
    """Return whether `fused_kl` knows a divergence, and may look at its result before it is used."""
    # Compiled code is fused anyway, and a GPU would be waited for.
    return type(divergence) in (ForwardKL, ReverseKL) and can_look(logits)


def fused_kl(
    divergence: Divergence,
    student: Tensor,
    teacher: Tensor,
    temperature: float,
    highest: Tensor,
    factor: Tensor | None,
) -> tuple[Tensor, Tensor | None] | None:
    """Return values (n,) and, times a factor (n, 1), gradients on the student's logits / T (n, V); None without factor.

    student, teacher: logits (n, V); highest: the student's largest of each row (n, 1). Returns None if a value is not
    finite: with an outcome that a side excludes, a limit has to be taken that the general way knows.
    """
    u, w = base_2(student, temperature, highest), base_2(teacher, temperature, teacher.amax(-1, keepdim=True))
    d = w - u
    powers_u, powers_w = u.exp2_(), w.exp2_()
    # What is left of log(W / U) near p = q are digits that a sum in float32 would not have.
    sum_u, sum_w = (powers.sum(-1, keepdim=True, dtype=torch.float64) for powers in (powers_u, powers_w))
    is_forward = isinstance(divergence, ForwardKL)
    mean_d = torch.linalg.vecdot(*((powers_w, d) if is_forward else (powers_u, d)))[:, None]
    mean_d = mean_d / (sum_w if is_forward else sum_u)
    distance = mean_d * math.log(2) - (sum_w / sum_u).log()
    value = (distance if is_forward else -distance).squeeze(-1).to(student.dtype)
    if not bool(value.isfinite().all()):
        return None
    if factor is None:
        return value, None
    q = powers_u.mul_((factor / sum_u).to(u.dtype))
    if is_forward:
        return value, q.sub_(powers_w.mul_((factor / sum_w).to(u.dtype)))
    return value, d.sub_(mean_d.to(u.dtype)).mul_(q).mul_(-math.log(2))
