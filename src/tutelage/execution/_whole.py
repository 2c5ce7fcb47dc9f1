"""Divergences over the whole batch: outside the loop, on all rows that count at once."""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.distributions import Logits
from tutelage.divergences import WholeBatch
from tutelage.errors import InfiniteDivergenceError, NonFiniteError
from tutelage.execution._block import value_and_gradient
from tutelage.execution._plan import Plan
from tutelage.execution._readers import Dense


def run_whole_batch(
    plan: Plan, values: Tensor, coefficients: Tensor | None, gradient: Tensor | None, *, validate: bool
) -> None:
    """Write the value of each whole-batch term to all its rows of `values` (J, N), and add to the gradient (N, V)."""
    for j, job in enumerate(plan.jobs):
        if isinstance(job.divergence, WholeBatch):
            upstream = None if coefficients is None or not job.trains else coefficients[j].sum()
            _run_term(plan, j, job.divergence, values, upstream, gradient, validate)


def _run_term(
    plan: Plan,
    j: int,
    divergence: WholeBatch,
    values: Tensor,
    upstream: Tensor | None,
    gradient: Tensor | None,
    validate: bool,
) -> None:
    spec, term, temperature = plan.spec, plan.spec.terms[j], plan.jobs[j].temperature
    reader = spec.readers[term.teacher]
    assert isinstance(reader, Dense)
    assert isinstance(plan.student, Logits)
    weights = torch.ones_like(values[j]) if plan.weights is None else plan.weights[j]
    raw = plan.student.values.detach().reshape(plan.rows, -1)
    teacher = reader.logits(plan.sources[term.teacher].tensors, plan.teacher_ids, spec.dtype, temperature)
    counts = weights != 0
    rows: slice | Tensor = slice(None)
    if plan.weights is not None and plan.device.type == "cpu":
        rows = counts.nonzero().squeeze(1)
        if len(rows) == 0:
            return
        raw, teacher, weights = raw[rows], teacher[rows], weights[rows]
    elif plan.weights is not None:
        # A GPU is not asked which rows count: the others become zeros, which their weight leaves out.
        raw, teacher = torch.where(counts[:, None], raw, 0.0), torch.where(counts[:, None], teacher, 0.0)

    def value_of(raw: Tensor) -> Tensor:
        logits = spec.columns.take(spec.student.apply(raw), plan.student_ids)
        return divergence.whole_batch(logits, teacher, temperature, weights)

    raw = raw.to(spec.dtype)
    if upstream is None or gradient is None:
        value = value_of(raw)
    else:
        value, addend = value_and_gradient(value_of, raw, upstream)
        gradient[rows] += addend.to(gradient.dtype)
    if validate and not bool(value.isfinite()):
        _explain(divergence.kind, raw, teacher)
    values[j, rows] = torch.where(counts[rows], value, 0.0)


def _explain(kind: str, student: Tensor, teacher: Tensor) -> None:
    for side, logits in (("student", student), ("teacher", teacher)):
        if not bool(logits.isfinite().all()):
            raise NonFiniteError(f"the {side}'s logits contain NaN or infinities ({kind}); expected finite numbers")
    raise InfiniteDivergenceError(f"{kind} is not finite on finite logits; please report this")
