"""Door 1: one divergence between two sides, as a function on tensors."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tutelage.distributions import Distribution, HeadStates, Logits, Mixture, check_temperature, hint_for
from tutelage.divergences import Divergence, ForwardKL, check_divergence
from tutelage.errors import CompatibilityError, DtypeError, ParameterError
from tutelage.execution._autograd import weighted_rows, weighted_sum
from tutelage.execution._budget import exact_dtype
from tutelage.execution._plan import check_token_weights, make_plan
from tutelage.execution._readers import Dense
from tutelage.execution._sources import Job
from tutelage.vocabulary import VocabularyMap


def divergence(
    student: Tensor | Logits | HeadStates,
    teacher: Tensor | Distribution,
    divergence: Divergence = ForwardKL(),
    *,
    temperature: float = 1.0,
    token_weights: Tensor | None = None,
    labels: Tensor | None = None,
    vocabulary: VocabularyMap | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    backend: str = "auto",
    validate: bool | None = None,
) -> Tensor:
    """Return a divergence between student and teacher in nats per token, with its gradient on the student.

    `mean = sum_i w_i d_i / sum_i w_i`, `sum = sum_i w_i d_i`, `none = w_i d_i` of each row, with d the divergence and w
    the token weights. The temperature softens both sides; no T² is applied (see `Term`). Rows of weight 0 cost no
    work on a CPU, are never validated, and get no gradient; if all weights are 0, so is the result, with a graph.

    student: a tensor of logits (..., V), `Logits` or `HeadStates`; teacher: a tensor of logits or any distribution,
    a constant. token_weights (...): numbers >= 0 or booleans. labels (...): int64 ids of the student's vocabulary, for
    divergences that need them. vocabulary: which columns are compared. backend: "auto", "torch" or "compile".
    validate: whether values are looked at; None for yes on a CPU and no elsewhere, where it would wait for the device.
    Returned in float32, or float64 if a side is; computed in float64 also at temperatures above 10, where float32 would
    lose what is left of the gap between the sides. Errors: subclasses of `InputError` (a ValueError), `BackendError`.

    >>> import torch, tutelage as tl
    >>> student = torch.tensor([[0.0, 1.0, 0.0], [9.0, 9.0, 9.0]], requires_grad=True)
    >>> teacher = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    >>> tl.divergence(student, teacher, tl.ForwardKL(), reduction="none")
    tensor([0.7794, 0.0000], grad_fn=<ViewBackward0>)
    >>> tl.divergence(student, teacher, tl.ForwardKL(), token_weights=torch.tensor([1.0, 0.0])).item()  # the first row
    0.7793...
    """
    check_divergence("divergence", divergence)
    temperature = check_temperature(temperature)
    if reduction not in ("mean", "sum", "none"):
        raise ParameterError(f"reduction={reduction!r}: expected 'mean', 'sum' or 'none'")
    student_side, teacher_side = as_student(student), as_teacher("teacher", teacher)
    rows = student_side.batch_shape.numel()
    factor: Tensor | float = 1.0
    if reduction == "mean":
        factor = 1.0 / rows if token_weights is None else inverse(sum_of_weights(token_weights))
    job = Job(divergence, teacher_side, temperature, token_weights, factor)
    if reduction == "none":
        return weighted_rows(
            student_side, job, labels=labels, vocabulary=vocabulary, backend=backend, validate=validate
        )
    total, _ = weighted_sum(
        student_side, [job], labels=labels, vocabulary=vocabulary, backend=backend, validate=validate
    )
    return total


def dense_logits(teacher: Mixture, temperature: float) -> Tensor:
    """Return logits (..., V) whose softmax at the temperature is a mixture of `Logits`."""
    student = Logits(torch.zeros_like(next(teacher.tensors())[1]))
    plan = make_plan(student, [Job(ForwardKL(), teacher, temperature)])
    reader = plan.sources[0].reader
    assert isinstance(reader, Dense)
    logits = reader.logits(plan.sources[0].tensors, None, plan.spec.dtype, temperature)
    return logits.to(plan.dtype).reshape(*teacher.batch_shape, -1)


def as_student(student: Tensor | Distribution) -> Logits | HeadStates:
    """Return the student's side; a tensor is its logits."""
    side = Logits(student) if isinstance(student, Tensor) else student
    if not isinstance(side, (Logits, HeadStates)):
        raise CompatibilityError(
            f"the student is {type(student).__name__}; expected a tensor of logits, Logits or HeadStates, so that "
            f"every outcome can get a gradient{hint_for(student)}"
        )
    return side


def as_teacher(name: str, teacher: Tensor | Distribution) -> Distribution:
    """Return a teacher's side; a tensor is its logits."""
    if isinstance(teacher, Distribution):
        return teacher
    if isinstance(teacher, Tensor) and teacher.dtype.is_floating_point:
        return Logits(teacher)
    got = f"a tensor of {teacher.dtype}" if isinstance(teacher, Tensor) else type(teacher).__name__
    raise DtypeError(
        f"the teacher {name!r} is {got}; expected floating-point logits or a distribution (class ids: Labels(ids))"
        f"{hint_for(teacher)}"
    )


def sum_of_weights(token_weights: Tensor) -> Tensor:
    """Return the sum of the weights; kept exact, so that neither it nor its inverse leaves the range of float32."""
    check_token_weights(token_weights)
    return token_weights.detach().sum(dtype=exact_dtype(token_weights.device))


def inverse(normalizer: Tensor) -> Tensor:
    """Return 1 over a normaliser, and 0 where it is 0: there is nothing to divide."""
    return torch.where(normalizer == 0, 0.0, 1 / normalizer)
