"""Value and gradient in one pass, as an autograd function.

The gradient of the sum is known in the forward, so it is computed there, while a block is in cache, and the backward
only scales it. It is kept unnormalised: coefficients are divided by a power of two that brings the largest of them to
1, so that float16 gradients neither under- nor overflow. Where the rows' values themselves are asked for, their
gradients are not known in the forward: the backward runs the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tutelage.distributions import HeadStates, Logits
from tutelage.divergences import WholeBatch
from tutelage.errors import CompatibilityError, DoubleBackwardError
from tutelage.execution._backends import Backend, choose
from tutelage.execution._budget import Budget, budget_for, exact_dtype
from tutelage.execution._checks import check_values
from tutelage.execution._loop import Gradients, run
from tutelage.execution._plan import Plan, make_plan
from tutelage.execution._sources import Job
from tutelage.execution._stash import put_back, take_out
from tutelage.execution._suspicion import warn_about_graphs, warn_about_probabilities
from tutelage.execution._whole import run_whole_batch
from tutelage.vocabulary import VocabularyMap


def weighted_sum(
    student: Logits | HeadStates,
    jobs: Sequence[Job],
    *,
    labels: Tensor | None = None,
    vocabulary: VocabularyMap | None = None,
    backend: str = "auto",
    validate: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Return `sum_j factor_j sum_i weights_ji divergence_ji`, and the divergences of all rows (J, N), detached."""
    call = _prepare(student, jobs, labels, vocabulary, backend, validate)
    loss, values = _WeightedSum.apply(call, *call.inputs())
    return loss, values


def weighted_rows(
    student: Logits | HeadStates,
    job: Job,
    *,
    labels: Tensor | None = None,
    vocabulary: VocabularyMap | None = None,
    backend: str = "auto",
    validate: bool | None = None,
) -> Tensor:
    """Return `weights_i divergence_i` of each row, in the batch shape, differentiable row by row."""
    if isinstance(job.divergence, WholeBatch):
        raise CompatibilityError(f"{job.divergence.kind} is one value for the batch; use reduction 'mean' or 'sum'")
    call = _prepare(student, [job], labels, vocabulary, backend, validate)
    rows: Tensor = _Rows.apply(call, *call.inputs())
    return rows.reshape(student.batch_shape)


def _prepare(
    student: Logits | HeadStates,
    jobs: Sequence[Job],
    labels: Tensor | None,
    vocabulary: VocabularyMap | None,
    backend: str,
    validate: bool | None,
) -> _Call:
    plan = make_plan(student, jobs, labels, vocabulary)
    looks_at_values = plan.device.type == "cpu" if validate is None else validate
    warn_about_graphs(plan)
    if looks_at_values:
        check_values(plan)
        warn_about_probabilities(plan)
    return _Call(plan, choose(backend, plan), budget_for(plan.device), looks_at_values, torch.is_grad_enabled())


@dataclass(frozen=True, eq=False)
class _Call:
    """A plan with everything that is needed to run it, also a second time."""

    plan: Plan
    backend: Backend
    budget: Budget
    validate: bool
    records: bool
    """Whether a graph is being recorded; without one no gradient is computed."""

    def inputs(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the student's tensors, which may need gradients."""
        return _inputs(self.plan.student)

    def coefficients(self) -> Tensor:
        """Return what multiplies the divergences of all rows in the sum (J, N)."""
        plan, exact = self.plan, exact_dtype(self.plan.device)

        def of(j: int, factor: Tensor | float) -> Tensor:
            # Numbers are filled in by the device itself: copying them there would make the host wait.
            if plan.weights is None:
                weights = torch.ones(plan.rows, dtype=exact, device=plan.device)
            else:
                weights = plan.weights[j].to(exact)
            return weights * (factor.detach().to(plan.device, exact) if isinstance(factor, Tensor) else factor)

        return torch.stack([of(j, job.factor) for j, job in enumerate(plan.jobs)]).to(plan.spec.dtype)

    def weights(self) -> Tensor:
        """Return the weights of all rows for the first job (N,)."""
        plan = self.plan
        return (
            torch.ones(plan.rows, dtype=plan.spec.dtype, device=plan.device)
            if plan.weights is None
            else plan.weights[0]
        )

    def run(self, coefficients: Tensor | None, needs: Sequence[bool]) -> tuple[Tensor, Gradients]:
        """Return the values of all rows (J, N), and the gradients of the inputs that need one."""
        gradients = Gradients() if coefficients is None else self._buffers(needs)
        if not any(needs):
            coefficients = None
        with torch.no_grad(), _without_autocast(self.plan.device.type):
            values = run(self.plan, self.backend, self.budget, coefficients, gradients, validate=self.validate)
            run_whole_batch(self.plan, values, coefficients, gradients.values, validate=self.validate)
        return values, gradients

    def _buffers(self, needs: Sequence[bool]) -> Gradients:
        plan, student = self.plan, self.plan.student
        # Where some rows may not be written by a block, they keep the zeros they start with.
        blockwise = [job for job in plan.jobs if not isinstance(job.divergence, WholeBatch)]
        everywhere = plan.weights is None and len(blockwise) == len(plan.jobs) and any(job.trains for job in blockwise)
        make = torch.empty if everywhere else torch.zeros
        if isinstance(student, Logits):
            shape = (plan.rows, student.vocabulary_size)
            values = make(shape, dtype=student.values.dtype, device=plan.device) if needs[0] else None
            return Gradients(values=values)
        hidden, weight = student.hidden, student.weight
        precise = torch.promote_types(weight.dtype, torch.float32)
        shape = (plan.rows, hidden.shape[-1])
        return Gradients(
            hidden=make(shape, dtype=hidden.dtype, device=plan.device) if needs[0] else None,
            weight=torch.zeros(weight.shape, dtype=precise, device=plan.device) if needs[1] else None,
            bias=torch.zeros(weight.shape[0], dtype=precise, device=plan.device) if needs[2] else None,
        )


def _without_autocast(device: str) -> AbstractContextManager[object]:
    """Return what keeps the loss in float32 or better, whatever precision the model runs in."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def _scaled(
    gradients: Gradients, factor: Tensor, inputs: Sequence[Tensor | None]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients times a factor, in the shapes and dtypes of the inputs; the buffers are used up."""
    scaled: list[Tensor | None] = []
    buffers = (gradients.hidden if gradients.values is None else gradients.values, gradients.weight, gradients.bias)
    for buffer, tensor in zip(buffers, inputs, strict=True):
        if buffer is None or tensor is None:
            scaled.append(None)
        elif buffer.dtype in (torch.float16, torch.bfloat16):
            # The factor may be out of range there (loss scaling): multiply in float32, few rows at a time.
            step = max(1, 2**20 // buffer.shape[-1])
            for part in buffer.split(step):
                part.copy_(part.float() * factor.float())
            scaled.append(buffer.reshape(tensor.shape))
        else:
            scaled.append(buffer.mul_(factor).reshape(tensor.shape).to(tensor.dtype))
    first, weight, bias = scaled
    return first, weight, bias


def _save(ctx: Any, call: _Call) -> None:
    """Leave the tensors of a call to autograd, which frees them after the backward though the loss lives on."""
    tensors: list[Tensor] = []
    ctx.call = take_out(call, tensors)
    # A teacher run in inference mode has tensors that autograd does not keep; these stay with the context.
    ctx.kept = [tensor if tensor.is_inference() else None for tensor in tensors]
    ctx.save_for_backward(*(None if tensor.is_inference() else tensor for tensor in tensors))


def _saved(ctx: Any) -> tuple[Tensor, ...]:
    pairs = zip(ctx.saved_tensors, ctx.kept, strict=True)
    return tuple(kept if saved is None else saved for saved, kept in pairs)


def _inputs(student: Logits | HeadStates) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the student's tensors, which may need gradients."""
    if isinstance(student, HeadStates):
        return student.hidden, student.weight, student.bias
    return student.values, None, None


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, call: _Call, first: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        needs = [call.records and need for need in ctx.needs_input_grad[1:]]
        weighted = call.coefficients()
        scale = _power_of_two_above(weighted)
        values, gradients = call.run(weighted / scale if any(needs) else None, needs)
        # Terms of factor 0 are only looked at, and rows of weight 0 not even that: 0 times infinity must not arise.
        loss = torch.zeros((), dtype=values.dtype, device=values.device)
        for j, job in enumerate(call.plan.jobs):
            if job.trains:
                loss += torch.where(weighted[j] != 0, weighted[j] * values[j], 0.0).sum()
        ctx.gradients, ctx.scale = gradients, scale
        _save(ctx, call)
        loss, values = loss.to(call.plan.dtype), values.to(call.plan.dtype)
        ctx.mark_non_differentiable(values)
        return loss, values

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _grad_values: Tensor) -> tuple[Tensor | None, ...]:
        tensors = _saved(ctx)
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            # A second backward through a retained graph: the buffers of the first one belong to its caller.
            call: _Call = put_back(ctx.call, tensors)
            _, gradients = call.run(call.coefficients() / ctx.scale, ctx.needs_input_grad[1:])
        inputs = _inputs(put_back(ctx.call.plan.student, tensors))
        with torch.no_grad():
            scaled = _scaled(gradients, grad_loss * ctx.scale, inputs)
        return None, *_once(scaled, inputs)


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, first: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        values, _ = call.run(None, (False, False, False))
        _save(ctx, call)
        return (values[0] * call.weights()).to(call.plan.dtype)

    @staticmethod
    def backward(ctx: Any, grad_rows: Tensor) -> tuple[Tensor | None, ...]:
        call: _Call = put_back(ctx.call, _saved(ctx))
        with torch.no_grad():
            weighted = (call.weights() * grad_rows)[None]
            scale = _power_of_two_above(weighted)
            _, gradients = call.run(weighted / scale, ctx.needs_input_grad[1:])
            scaled = _scaled(gradients, scale, call.inputs())
        return None, *_once(scaled, call.inputs())


def _power_of_two_above(coefficients: Tensor) -> Tensor:
    """Return the power of two that is at least the largest coefficient; 1 if all are 0."""
    _, exponent = torch.frexp(coefficients.abs().amax())
    return torch.ldexp(torch.ones((), dtype=coefficients.dtype, device=coefficients.device), exponent)


def _once(gradients: Sequence[Tensor | None], inputs: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return gradients that refuse to be differentiated again, where a graph of the backward is being made."""
    if not torch.is_grad_enabled():
        return list(gradients)
    # They hang on the inputs, so that whoever asks for a derivative by these meets the refusal and not a silent 0.
    return [None if gradient is None else _Refuse.apply(gradient, *inputs) for gradient in gradients]


class _Refuse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *inputs: Tensor | None) -> Tensor:
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Tensor:
        raise DoubleBackwardError(
            "a second derivative of a tutelage loss was asked for; it gives values and first derivatives only. For a "
            "gradient penalty, write that part with plain PyTorch operations"
        )
