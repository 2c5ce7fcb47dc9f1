"""The same numbers twice: as `tutelage` takes them, and as float64 logits for a reference."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import tutelage as tl
from reference import teachers
from reference.divergences import REFERENCES
from tutelage.distributions import Distribution
from tutelage.errors import ConventionWarning

STUDENTS = ("logits", "capped_logits", "head")
TEACHERS = (
    "logits",
    "capped_logits",
    "head",
    "mixture",
    "mixture_of_heads",
    "mixture_of_logits",
    "top_k",
    "top_k_renormalized",
    "mixture_of_top_k",
    "mixture_of_top_k_renormalized",
    "mixture_of_top_k_logits",
    "sampled",
    "sampled_with_entropy",
    "labels",
    "smoothed_labels",
)
VARIANTS: dict[str, list[dict[str, float]]] = {
    # Both conventional ends, one that is nearly an end, both sides of the middle.
    "jensen_shannon": [{"beta": 0.0}, {"beta": 0.02}, {"beta": 0.2}, {"beta": 0.9}, {"beta": 1.0}],
    "skew_forward_kl": [{"skew": 0.01}, {"skew": 0.5}, {"skew": 0.9}],
    "skew_reverse_kl": [{"skew": 0.01}, {"skew": 0.5}, {"skew": 0.9}],
    # The two KLs, the two other limits, powers that do and do not sum to 1.
    "alpha_beta": [
        {"alpha": a, "beta": b} for a, b in [(1, 0), (0, 1), (2, 0), (0, 2), (0.3, 0.7), (0.3, 0.9), (1, 1), (2, 0.5)]
    ],
    "adaptive_kl": [{"mu": 0.1}, {"mu": 0.9}],
    # Each part alone, so that neither hides behind the other.
    "decoupled_kd": [{"alpha": 1.0, "beta": 0.0}, {"alpha": 0.0, "beta": 1.0}, {"alpha": 2.0, "beta": 0.5}],
    "normalized_kd": [{"gamma": 0.0}, {"gamma": 4.0}],
    "dist": [{"beta": 1.0, "gamma": 0.0}, {"beta": 0.0, "gamma": 1.0}, {"beta": 2.0, "gamma": 0.5}],
}
"""Parameters beside the defaults, for each divergence that has some."""


def build(kind: str, **parameters: float):
    """Return a divergence by its kind; the warnings about conventions have a test of their own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConventionWarning)
        return tl.divergences.ALL[kind](**parameters)


def relative_error(got: Tensor, want: Tensor) -> float:
    """Return |got - want| / |want| in the Euclidean norm, in float64; NaN counts as infinitely wrong."""
    distance = (got.detach().double() - want.detach()).norm() / want.detach().norm()
    return float(distance.nan_to_num(nan=torch.inf))


def draw(generator, *shape: int, spread: float = 2.0**0.5, dtype=torch.float64) -> Tensor:
    """Return normal numbers; they are drawn in float64, so that every dtype gets the same ones but for rounding."""
    return (spread * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype)


@dataclass
class StudentCase:
    """A student, its tensors that need gradients, and its float64 reference with copies of these tensors."""

    given: Tensor | Distribution
    inputs: list[Tensor]
    doubles: list[Tensor]
    reference: Callable[..., Tensor]

    def logits(self) -> Tensor:
        """Return the float64 logits (N, V), differentiable down to `doubles`."""
        return self.reference(*self.doubles)


def make_student(kind: str, generator, rows: int, columns: int, dtype=torch.float64, width: int = 16) -> StudentCase:
    if kind == "head":
        inputs = [
            draw(generator, rows, width, spread=1.0, dtype=dtype),
            draw(generator, columns, width, spread=2 / width**0.5, dtype=dtype),
            draw(generator, columns, spread=0.5, dtype=dtype),
        ]
        options = {"softcap": 8.0, "scale": 0.75}
        inputs = [tensor.requires_grad_() for tensor in inputs]
        given = tl.HeadStates(*inputs, **options)
        reference = teachers.head_logits
    else:
        inputs = [draw(generator, rows, columns, dtype=dtype).requires_grad_()]
        options = {"softcap": 6.0, "scale": 1.25} if kind == "capped_logits" else {}
        given = tl.Logits(*inputs, **options) if options else inputs[0]
        reference = teachers.transformed
    doubles = [tensor.detach().double().requires_grad_() for tensor in inputs]
    return StudentCase(given, inputs, doubles, lambda *tensors: reference(*tensors, **options))


@dataclass
class TeacherCase:
    """A teacher, and what it and a student are once both are brought to what is compared."""

    at: Callable[[float], Tensor | Distribution]
    """The teacher for a temperature; only sampled ones depend on it."""
    sides: Callable[[Tensor, float], tuple[Tensor, Tensor]]
    """(student's logits, temperature) -> float64 logits of both sides as they are compared."""

    def rows(self, kind: str, student: Tensor, temperature: float, labels=None, **parameters) -> Tensor:
        """Return the reference value of each row."""
        return REFERENCES[kind](*self.sides(student, temperature), temperature, labels, **parameters)


@dataclass
class SampledCase(TeacherCase):
    draws: Callable[[float], tuple[Tensor, Tensor, Tensor | None]]

    def rows(self, kind: str, student: Tensor, temperature: float, labels=None, **parameters) -> Tensor:
        assert kind == "forward_kl"
        ids, weights, entropy = self.draws(temperature)
        return teachers.sampled(student, ids, weights, temperature, entropy)


TEMPERATURES = (1.0, 2.0, 0.5)
"""Neutral, softer, sharper: a power of T that is wrong shows at either of the last two."""


def make_teacher(
    kind: str, generator, rows: int, columns: int, dtype=torch.float64, kept: int = 16, temperatures=TEMPERATURES
) -> TeacherCase:
    options = {"softcap": 7.0, "scale": 1.5}
    if kind in ("logits", "capped_logits"):
        options = options if kind == "capped_logits" else {}
        values = draw(generator, rows, columns, dtype=dtype)
        logits = teachers.transformed(values.double(), **options)
        return TeacherCase(lambda _: tl.Logits(values, **options), lambda student, _: (student, logits))
    if kind == "head":
        # A hidden width of its own, unlike the student's.
        hidden = draw(generator, rows, 12, spread=1.0, dtype=dtype)
        weight, bias = draw(generator, columns, 12, spread=0.3, dtype=dtype), draw(generator, columns, dtype=dtype)
        logits = teachers.head_logits(hidden.double(), weight.double(), bias.double(), **options)
        given = tl.HeadStates(hidden, weight, bias, **options)
        return TeacherCase(lambda _: given, lambda student, _: (student, logits))
    if kind in ("labels", "smoothed_labels"):
        labels = torch.randint(columns, (rows,), generator=generator)
        smoothing = 0.1 if kind == "smoothed_labels" else 0.0
        return TeacherCase(
            lambda _: tl.Labels(labels, smoothing),
            lambda student, t: (student, teachers.label_logits(labels, student.shape[1], smoothing, t)),
        )
    if kind.startswith("sampled"):
        return _sampled(generator, rows, columns, dtype, kind == "sampled_with_entropy")
    if "top_k" in kind:
        return _top_k(kind, generator, rows, columns, dtype, kept, temperatures)
    return _mixture(kind, generator, rows, columns, dtype)


_WEIGHTS = (3.0, 1.0, 0.5)
"""Of a mixture's parts: unequal, and no shares of 1 before they are normalised."""


def _mixture(kind, generator, rows, columns, dtype) -> TeacherCase:
    part = "head" if kind == "mixture_of_heads" else "logits"
    kinds = (part, "capped_logits", "logits")
    cases = [make_teacher(name, generator, rows, columns, dtype) for name in kinds]
    space = "logit" if kind == "mixture_of_logits" else "probability"
    given = tl.Mixture([case.at(1.0) for case in cases], _WEIGHTS, space)

    def sides(student, temperature):
        parts = [case.sides(student, temperature)[1] for case in cases]
        return student, teachers.mixture(parts, _WEIGHTS, space, temperature)

    return TeacherCase(lambda _: given, sides)


def _top_k(kind, generator, rows, columns, dtype, kept, temperatures) -> TeacherCase:
    count = 3 if kind.startswith("mixture") else 1
    full = [draw(generator, rows, columns, dtype=dtype) for _ in range(count)]
    # The likeliest ids of the first part, in no order.
    ids = full[0].topk(kept, -1).indices[:, torch.randperm(kept, generator=generator)]
    tail = "bucket" if kind in ("top_k", "mixture_of_top_k") else "renormalize"
    space = "logit" if kind == "mixture_of_top_k_logits" else "probability"
    parts = []
    for logits in full:
        tails = {t: teachers.log_tail(logits.double(), ids, t).to(dtype) for t in temperatures}
        parts.append(tl.TopK(ids, logits.gather(1, ids), tails if tail == "bucket" else {}, tail))
    given = parts[0] if count == 1 else tl.Mixture(parts, _WEIGHTS, space)

    def coarse(logits, temperature):
        if tail == "bucket":
            return teachers.bucketed(logits, ids, temperature)
        return teachers.renormalized(logits, ids)

    def sides(student, temperature):
        sides_of_parts = [coarse(logits.double(), temperature) for logits in full]
        teacher = teachers.mixture(sides_of_parts, _WEIGHTS[:count], space, temperature)
        return coarse(student, temperature), teacher

    return TeacherCase(lambda _: given, sides)


def _sampled(generator, rows, columns, dtype, with_entropy) -> TeacherCase:
    ids = torch.randint(columns, (rows, 8), generator=generator)
    ids[:, 1] = ids[:, 0]  # the same id drawn twice
    weights = torch.rand(rows, 8, generator=generator, dtype=torch.float64)
    weights = (weights / weights.sum(-1, keepdim=True)).to(dtype)
    entropy = torch.rand(rows, generator=generator, dtype=torch.float64).to(dtype) if with_entropy else None
    double = None if entropy is None else entropy.double()
    return SampledCase(
        lambda t: tl.Sampled(ids, weights, t, entropy),
        lambda student, _: (student, student),
        lambda _: (ids, weights.double(), double),
    )


def combinations() -> list[tuple[str, str]]:
    """Return every divergence with every teacher that it takes, by `tutelage`'s own table."""
    generator = torch.Generator().manual_seed(0)
    examples = {name: make_teacher(name, generator, 2, 20).at(1.0) for name in TEACHERS}
    return [
        (kind, name)
        for kind in tl.divergences.ALL
        for name, teacher in examples.items()
        if tl.execution.refusal(build(kind), teacher) is None
    ]


def students_of(kind: str) -> tuple[str, ...]:
    """Return the students that a divergence takes: DIST needs the logits of the whole batch."""
    return ("logits", "capped_logits") if kind == "dist" else STUDENTS
