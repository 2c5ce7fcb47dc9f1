"""One weighted, named sum of terms: what is trained, written down once.

`loss = sum_t weight_t * T_t^power_t * part_t`, `part_t = sum_i w_ti d_ti / normaliser_t`: d the divergence of a row in
nats per token, w its token weight, and the power the one that the divergence declares (2 for the KLs).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.distributions import Distribution, HeadStates, Labels, Logits, check_temperature
from tutelage.divergences import Divergence, check_divergence
from tutelage.errors import (
    CompatibilityError,
    EmptyInputError,
    ParameterError,
    ShapeError,
    TeacherError,
    WeightError,
)
from tutelage.execution import (
    Job,
    as_student,
    as_teacher,
    divergence,
    exact_dtype,
    inverse,
    sum_of_weights,
    weighted_sum,
)
from tutelage.parameters import real, refusal
from tutelage.vocabulary import VocabularyMap


@dataclass(frozen=True)
class Term:
    """One divergence to one teacher, with its weight and temperature. T² is applied here and nowhere else.

    `weight * T^power * divergence(student, teacher, T)`: the gradient of a softened divergence shrinks with a power of
    1/T, which the divergence declares as `temperature_power`; the factor keeps it from vanishing against other terms.

    divergence: what is measured; teacher: the name under which the teacher is passed; weight >= 0, finite (0: the part
    is reported, not trained); temperature > 0, of both sides; scale_by_temperature: False leaves out the factor.
    Errors: `ParameterError`, `CompatibilityError`.

    >>> import tutelage as tl
    >>> tl.Term(tl.ForwardKL(), temperature=2.0, weight=0.5).factor
    2.0

    Paper: Hinton, Vinyals, Dean 2015, section 2, on the factor T².
    """

    divergence: Divergence
    teacher: str = "teacher"
    weight: float = 1.0
    temperature: float = 1.0
    scale_by_temperature: bool = True

    def __post_init__(self) -> None:
        check_divergence("Term.divergence", self.divergence)
        if not isinstance(self.teacher, str):
            raise ParameterError(
                f"Term(teacher={self.teacher!r}): expected the name of a teacher; pass its output to the call"
            )
        _check_weight(self)
        object.__setattr__(self, "temperature", check_temperature(self.temperature))

    @property
    def trained(self) -> tuple[Divergence, float]:
        """The divergence with its factor: its weight, times the power of T that it declares."""
        if not self.scale_by_temperature:
            return self.divergence, float(self.weight)
        scaled, power = self.divergence.scaled(self.temperature)
        return scaled, self.weight * power

    @property
    def factor(self) -> float:
        """What multiplies the part in the loss."""
        return self.trained[1]


FeatureLoss = Divergence | Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class FeatureTerm:
    """A loss between an activation of the student and one of a teacher.

    loss: a divergence over the last dimension (`LogitMSE` is the mean squared error, `LogitCosine` the cosine
    distance), or a function of (student, teacher) to a tensor without dimensions; student_layer, teacher_layer: dotted
    paths; projector: what brings the student's activation to the teacher's width. Layers and projectors are for the
    model that gathers the activations; an `Objective` gets them ready made.

    >>> import tutelage as tl
    >>> tl.FeatureTerm(tl.LogitMSE(), student_layer="encoder.2", teacher_layer="encoder.5", weight=0.1).weight
    0.1
    """

    loss: FeatureLoss
    student_layer: str
    teacher_layer: str
    teacher: str = "teacher"
    projector: nn.Module | str | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.loss, Divergence) and (isinstance(self.loss, type) or not callable(self.loss)):
            raise CompatibilityError(
                f"FeatureTerm(loss={self.loss!r}): expected a divergence such as LogitMSE(), or a function"
            )
        _check_weight(self)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an objective returns: the loss with its graph, and each term before its weight and T², detached."""

    loss: Tensor
    parts: dict[str, Tensor]
    """Nats per token, or the unit of the divergence."""


class Objective:
    """A named, weighted sum of terms, computed in one pass over the rows.

    terms: {name: Term or FeatureTerm}; backend: "auto", "torch" or "compile"; validate: whether values are looked at,
    None for yes on a CPU and no elsewhere. Errors: `EmptyInputError`, `CompatibilityError`, `ParameterError`.

    >>> import torch, tutelage as tl
    >>> objective = tl.Objective({
    ...     "soft": tl.Term(tl.ForwardKL(), weight=0.7, temperature=2.0),
    ...     "hard": tl.Term(tl.ForwardKL(), teacher="labels", weight=0.3),
    ... })
    >>> student = torch.tensor([[2.0, 1.0, 0.5]], requires_grad=True)
    >>> teacher = torch.tensor([[1.5, 1.2, 0.8]])
    >>> out = objective(student, {"teacher": teacher, "labels": tl.Labels(torch.tensor([0]))})
    >>> round(out.loss.item(), 6), {name: round(part.item(), 6) for name, part in out.parts.items()}
    (0.186989, {'soft': 0.017028, 'hard': 0.464369})
    """

    def __init__(
        self, terms: Mapping[str, Term | FeatureTerm], backend: str = "auto", validate: bool | None = None
    ) -> None:
        if not isinstance(terms, Mapping):
            raise CompatibilityError(
                f"the terms are {type(terms).__name__}; expected them by name, {{name: Term(...)}}"
            )
        if not terms:
            raise EmptyInputError("Objective({}): an objective needs at least one term")
        for name, term in terms.items():
            if not isinstance(term, (Term, FeatureTerm)):
                raise CompatibilityError(f"term {name!r} is {type(term).__name__}; expected a Term or a FeatureTerm")
        self.terms = dict(terms)
        self.backend = backend
        self.validate = validate

    def __repr__(self) -> str:
        return f"Objective({self.terms!r}, backend={self.backend!r})"

    def __call__(
        self,
        student: Tensor | Logits | HeadStates,
        teachers: Mapping[str, Tensor | Distribution],
        features: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        token_weights: Tensor | Mapping[str, Tensor] | None = None,
        normalizer: Tensor | float | Mapping[str, Tensor | float] | None = None,
        vocabulary: VocabularyMap | None = None,
    ) -> Outcome:
        """Return the loss and its parts.

        student: a tensor of logits (..., V), `Logits` or `HeadStates`. teachers: {name: distribution or logits}, under
        the names of the terms; divergences that need labels read those of "labels". features: {term: (student,
        teacher)} for feature terms. token_weights (...): one tensor, or {term: tensor}, ones where a term is left out.
        normalizer: what each term's sum is divided by, one number or {term: number}; the local sum of its weights
        where it is left out. Give the sum over all micro-batches and ranks of a step to train the same objective
        however a batch is split.
        """
        side = as_student(student)
        if not isinstance(teachers, Mapping):
            raise TeacherError(f"the teachers are {type(teachers).__name__}; expected them by name, {{'teacher': ...}}")
        named = {name: as_teacher(name, teacher) for name, teacher in teachers.items()}
        shares = {
            name: _Share(self._of(name, "token_weights", token_weights), self._of(name, "normalizer", normalizer), side)
            for name in self.terms
        }
        loss, parts = self._divergences(side, named, shares, vocabulary)
        watched: list[Tensor] = []
        for name, term in self.terms.items():
            if isinstance(term, FeatureTerm):
                value = _feature_value(name, term, features or {}, shares[name], self.validate)
                parts[name] = value.detach()
                # A weight of 0 leaves the graph out, so that nothing is trained by 0 times infinity.
                loss = loss + term.weight * value if term.weight else loss
                watched += [] if term.weight else [value]
        if not loss.requires_grad:
            # Nothing is trained, yet a backward must work: the graph of what was watched, with zero gradients.
            loss = sum((torch.where(torch.ones_like(value, dtype=torch.bool), 0.0, value) for value in watched), loss)
        return Outcome(loss, {name: parts[name] for name in self.terms})

    def _divergences(
        self,
        student: Logits | HeadStates,
        teachers: dict[str, Distribution],
        shares: dict[str, _Share],
        vocabulary: VocabularyMap | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        terms = {name: term for name, term in self.terms.items() if isinstance(term, Term)}
        if not terms:
            _, first = next(student.tensors())
            return torch.zeros((), device=first.device), {}
        jobs = [_job(name, term, teachers, shares[name]) for name, term in terms.items()]
        loss, values = weighted_sum(
            student, jobs, labels=_labels(teachers), vocabulary=vocabulary, backend=self.backend, validate=self.validate
        )
        return loss, {name: shares[name].of(row) for name, row in zip(terms, values, strict=True)}

    def _of(self, name: str, what: str, given: Any) -> Any:
        """Return what was given for one term: one value for all, or {term: value}."""
        if not isinstance(given, Mapping):
            return given
        for key in given:
            if key not in self.terms:
                raise ParameterError(f"{what} names the term {key!r}; the objective has {sorted(self.terms)}")
        return given.get(name)


class _Share:
    """What the rows of one term count: their weights, and the normaliser that their sum is divided by."""

    def __init__(self, weights: Tensor | None, normalizer: Tensor | float | None, student: Logits | HeadStates) -> None:
        self.weights = weights
        _, first = next(student.tensors())
        # Filled in by the device itself: copying a number there would make the host wait.
        rows = torch.full((), student.batch_shape.numel(), dtype=exact_dtype(first.device), device=first.device)
        self.local = rows if weights is None else sum_of_weights(weights)
        self.is_global = normalizer is not None
        total = self.local if normalizer is None else _global_sum(normalizer, self.local)
        self.inverse = inverse(total)

    def of(self, row: Tensor) -> Tensor:
        """Return the weighted mean of the values of all rows (N,)."""
        weights = 1.0 if self.weights is None else self.weights.detach().reshape(-1).to(self.inverse.dtype)
        return (row.to(self.inverse.dtype) * (weights * self.inverse)).sum().to(row.dtype)


def _global_sum(normalizer: Tensor | float, local: Tensor) -> Tensor:
    """Return a normaliser as a tensor, after the checks that need not wait for a device."""
    if isinstance(normalizer, Tensor) and normalizer.numel() != 1:
        raise ShapeError(f"normalizer has shape {tuple(normalizer.shape)}; expected one number per term")
    if isinstance(normalizer, Tensor) and normalizer.device.type != "cpu":
        return normalizer.detach().reshape(()).to(local.device, local.dtype)
    number = real(normalizer.detach().reshape(()) if isinstance(normalizer, Tensor) else normalizer)
    if number is None:
        raise WeightError(
            f"normalizer={normalizer!r}: expected a number per term, the sum of the weights of the whole step"
        )
    if not math.isfinite(number) or number < 0:
        raise WeightError(
            f"normalizer={number:g}: expected the finite sum of the token weights of the whole step, >= 0"
        )
    if number == 0 and local.device.type == "cpu" and float(local) != 0:
        raise WeightError(
            f"normalizer=0 came with token weights that sum to {float(local):g}; expected the sum over all "
            "micro-batches and ranks of the step, this one included"
        )
    return torch.full_like(local, number)


def _job(name: str, term: Term, teachers: dict[str, Distribution], share: _Share) -> Job:
    if term.teacher not in teachers:
        raise TeacherError(f"term {name!r} wants the teacher {term.teacher!r}; got {sorted(teachers)}")
    trained, factor = term.trained
    return Job(
        trained, teachers[term.teacher], term.temperature, share.weights, factor * share.inverse if factor else 0.0
    )


def _labels(teachers: dict[str, Distribution]) -> Tensor | None:
    labels = teachers.get("labels")
    return labels.targets if isinstance(labels, Labels) else None


def _feature_value(
    name: str, term: FeatureTerm, features: Mapping[str, tuple[Tensor, Tensor]], share: _Share, validate: bool | None
) -> Tensor:
    pair = features.get(name)
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(side, Tensor) for side in pair):
        raise TeacherError(
            f"term {name!r} compares features, and got {'none' if pair is None else type(pair).__name__}; pass "
            f"features={{{name!r}: (student, teacher)}}"
        )
    student, teacher = pair
    # A mean over the rows of the features counts as much as its micro-batch does in the whole step.
    of_the_step = share.local * share.inverse if share.is_global else torch.ones_like(share.local)
    if isinstance(term.loss, Divergence):
        check_widths(name, student, teacher)
        if share.weights is None:
            value = divergence(student, teacher, term.loss, validate=validate)
            return value * of_the_step.to(value.dtype)
        weighted = divergence(
            student, teacher, term.loss, token_weights=share.weights, reduction="sum", validate=validate
        )
        return weighted * share.inverse.to(weighted.dtype)
    if share.weights is not None:
        raise CompatibilityError(
            f"term {name!r} has a function as its loss, which cannot be told which rows count; give token_weights as "
            "{term: weights} for the other terms, or use a divergence such as LogitMSE()"
        )
    value = term.loss(student, teacher.detach())
    if not isinstance(value, Tensor) or value.dim() != 0:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ShapeError(f"the loss of the feature term {name!r} returned {got}; expected a tensor without dimensions")
    precise = torch.promote_types(value.dtype, torch.float32)
    return value.to(precise) * of_the_step.to(precise)


def check_widths(name: str, student: Tensor, teacher: Tensor) -> None:
    """Raise `ShapeError` unless two activations have the same shape."""
    if student.shape != teacher.shape:
        raise ShapeError(
            f"the features of {name!r} have shapes {tuple(student.shape)} (student) and {tuple(teacher.shape)} "
            "(teacher); expected the same: bring the student's to the teacher's width with a projector"
        )


def _check_weight(term: Term | FeatureTerm) -> None:
    """Raise `ParameterError` unless the weight is finite and >= 0; make a Python number of it."""
    weight = real(term.weight)
    if weight is None or not math.isfinite(weight) or weight < 0:
        raise ParameterError(
            f"{type(term).__name__}(weight={term.weight!r}): the weight must be a finite number >= 0"
            f"{refusal(term.weight)}"
        )
    object.__setattr__(term, "weight", weight)
