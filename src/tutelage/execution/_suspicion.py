"""Warnings about sides that can be computed with and are probably not what was meant.

A side of probabilities is a legal side of logits, and two sides can be swapped: the loss is finite and trains another
objective. Values are looked at on the CPU, or where `validate=True` allows waiting for the device.
"""

from __future__ import annotations

import sys
import warnings
from itertools import chain

import torch
from torch import Tensor

from tutelage.distributions import Distribution, Logits, Mixture
from tutelage.errors import InputWarning
from tutelage.execution._plan import Plan


def looks_like_probabilities(values: Tensor) -> bool:
    """Return whether every row (..., V) is non-negative and sums to 1: the output of a softmax, and no logits.

    Log-probabilities are logits: their softmax is what they are the logarithm of.

    >>> import torch
    >>> logits = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    >>> looks_like_probabilities(logits), looks_like_probabilities(logits.softmax(-1))
    (False, True)
    """
    rows = values.detach().reshape(-1, values.shape[-1])
    # The first row of logits gives them away, so that good input is looked at no further.
    return len(rows) > 0 and _sum_to_1(rows[:1]) and _sum_to_1(rows)


def _sum_to_1(rows: Tensor) -> bool:
    off = (rows.sum(-1, dtype=torch.float32) - 1).abs()
    return bool(rows.amin() >= 0) and bool((off <= 1e-3 + torch.finfo(rows.dtype).eps).all())


def warn_about_graphs(plan: Plan) -> None:
    """Warn where the teacher can be trained and the student cannot: the sides may be swapped."""
    if not torch.is_grad_enabled() or any(tensor.requires_grad for _, tensor in plan.student.tensors()):
        return
    if any(tensor.requires_grad for job in plan.jobs for _, tensor in job.teacher.tensors()):
        _warn(
            "the student has no graph (its tensors do not require grad) and the teacher has one, while gradients reach "
            "the student only: nothing would be trained. The order is (student, teacher); to measure without training, "
            "call it under torch.no_grad()"
        )


def warn_about_probabilities(plan: Plan) -> None:
    """Warn where a divergence takes the softmax of what is a softmax already."""
    jobs = [job for job in plan.jobs if job.divergence.compares_probabilities]
    rows = None if plan.weights is None else (plan.weights != 0).any(0).nonzero().squeeze(1)
    # Zeros and ones are no output of a student, but a small example; as a teacher they are labels.
    if jobs and _suspicious(plan.student, rows, one_hot=False):
        _warn(_PROBABILITIES.format(side="student"))
    teachers = {id(job.teacher): job.teacher for job in jobs}.values()
    parts = chain.from_iterable(side.parts if isinstance(side, Mixture) else [side] for side in teachers)
    if any(_suspicious(part, rows, one_hot=True) for part in parts):
        _warn(_PROBABILITIES.format(side="teacher") + "; for class labels use Labels(ids)")


def _suspicious(side: Distribution, rows: Tensor | None, *, one_hot: bool) -> bool:
    if not isinstance(side, Logits) or side.softcap is not None or side.scale is not None:
        return False
    values = side.values.detach().reshape(-1, side.vocabulary_size)
    if rows is not None:
        values = values[rows] if len(rows) > 0 and looks_like_probabilities(values[rows[:1]]) else values[:0]
    return looks_like_probabilities(values) and (one_hot or bool((values.amax(-1) < 1).any()))


_PROBABILITIES = (
    "every row of the {side} is non-negative and sums to 1: these look like probabilities, and where logits are "
    "expected their softmax is compared, which is nearly uniform. Pass the logits, or probabilities.log()"
)


def _warn(message: str) -> None:
    """Warn at the line that called this package, or a library that calls it, so that each such line warns once."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _LIBRARIES:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, InputWarning, stacklevel=level)


_LIBRARIES = frozenset({"tutelage", "torch", "transformers", "accelerate"})
