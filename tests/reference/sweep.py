"""Random comparisons over all divergences, students, teachers, dtypes and legal parameters, each drawn from its number.

`ordinary` measures how far float32 is from the truth on logits of a size that networks give; `extreme` checks, on what
floats can just say, that a finite loss has finite gradients and that no divergence is negative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

import tutelage as tl
from reference import exact
from reference.cases import build, make_student, make_teacher, students_of
from reference.divergences import at_a_jump
from tutelage.distributions import Distribution
from tutelage.divergences import Divergence, Pointwise, WholeBatch
from tutelage.errors import NonFiniteError

T = TypeVar("T")
KINDS = list(tl.divergences.ALL)
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
    "smoothed_labels",
    "labels",
)
HIGHEST = 1e3
"""The largest number drawn where a range is open."""
ROWS = 8


class Source:
    """A source of random choices."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator, dtype=torch.float64))

    def power(self, low: float, high: float) -> float:
        """Return a number between 10^low and 10^high, of any order of magnitude with equal chance."""
        return float(10 ** self.uniform(low, high))

    def pick(self, choices: Sequence[T]) -> T:
        return choices[int(torch.randint(len(choices), (), generator=self.generator))]

    def share(self) -> float:
        """Return a number in (0, 1), as often close to an end as inside."""
        return min(self.pick([self.power(-20, 0), 1 - self.power(-12, 0), self.uniform(0.02, 0.98)]), 1 - 2**-53)

    def weight(self) -> float:
        """Return a number in [0, 1000]: 0, one that nearly is, an ordinary or a large one."""
        return self.pick([0.0, self.power(-20, 0), self.uniform(0.1, 2), self.power(0, math.log10(HIGHEST))])

    def divergence(self) -> tuple[str, dict[str, float]]:
        kind = self.pick(KINDS)
        match kind:
            case "jensen_shannon":
                return kind, {"beta": self.pick([0.0, 1.0, self.share(), self.share()])}
            case "skew_forward_kl" | "skew_reverse_kl":
                return kind, {"skew": self.share()}
            case "adaptive_kl":
                return kind, {"mu": self.uniform(0.01, 0.99)}
            case "alpha_beta":
                alpha, beta = self.weight(), self.weight()
                return kind, {"alpha": alpha, "beta": beta} if alpha + beta > 0 else {"alpha": 1.0, "beta": 0.0}
            case "normalized_kd":
                return kind, {"gamma": self.weight()}
            case "decoupled_kd" | "dist":
                names = ("alpha", "beta") if kind == "decoupled_kd" else ("beta", "gamma")
                return kind, {name: self.weight() for name in names}
        return kind, {}


def ordinary(seed: int) -> tuple[str, float, float] | None:
    """Return the divergence with the errors of its value and gradient in float32, relative to max(|truth|, 1e-6).

    The value is the mean over 8 rows, the gradient's error is taken in the Euclidean norm of each tensor. None where
    the draw has no meaning: a teacher that the divergence does not take, or a jump of the gradient.
    """
    source = Source(seed)
    kind, parameters = source.divergence()
    student_kind, teacher_kind = source.pick(students_of(kind)), source.pick(TEACHERS)
    columns, generator = source.pick([3, 4, 5, 9, 17]), source.generator
    # The tails of a TopK are given in float32: at high temperatures their rounding is a larger change than 1e-5.
    highest = 1.0 if "top_k" in teacher_kind else math.log10(HIGHEST)
    temperature = source.pick([1.0, source.power(-0.7, 1), source.power(-0.7, highest)])
    student = make_student(student_kind, generator, ROWS, columns, torch.float32, width=6)
    case = make_teacher(
        teacher_kind, generator, ROWS, columns, torch.float32, kept=min(3, columns - 1), temperatures=(temperature,)
    )
    divergence, teacher = build(kind, **parameters), case.at(temperature)
    labels = torch.randint(columns, (ROWS,), generator=generator)
    if _refused(divergence, teacher):
        return None
    try:
        value = tl.divergence(student.given, teacher, divergence, temperature=temperature, labels=labels)
    except NonFiniteError:
        # To labels a tiny power of AlphaBeta can be larger than any float32.
        rows, _ = exact.value_and_gradient(
            kind, *case.sides(student.logits().detach(), temperature), temperature, **parameters
        )
        return None if float(rows.max()) > torch.finfo(torch.float32).max else (kind, math.inf, math.inf)
    gradients = torch.autograd.grad(value, student.inputs)

    logits, other = case.sides(student.logits(), temperature)
    mu = {"mu": parameters["mu"]} if kind == "adaptive_kl" else {}
    if bool(at_a_jump(kind, logits.detach(), other, temperature, **mu).any()):
        return None
    if isinstance(divergence, Pointwise):
        rows, by_logits = exact.value_and_gradient(kind, logits.detach(), other, temperature, **parameters)
        want, by_inputs = rows.mean(), torch.autograd.grad(logits, student.doubles, by_logits / ROWS)
    else:
        want = case.rows(kind, student.logits(), temperature, labels, **parameters).mean()
        by_inputs = torch.autograd.grad(want, student.doubles)
    off = [_error(got, true) for got, true in zip(gradients, by_inputs, strict=True)]
    return kind, _error(value, want), max(off)


def _error(got: Tensor, want: Tensor) -> float:
    error = (got.detach().double() - want.detach()).norm() / want.detach().norm().clamp(min=1e-6)
    return float(error.nan_to_num(nan=torch.inf))


def _refused(divergence: Divergence, teacher: Distribution) -> bool:
    is_head = isinstance(teacher, tl.HeadStates) and isinstance(divergence, WholeBatch)
    return is_head or tl.execution.refusal(divergence, teacher) is not None


def extreme(seed: int) -> str | None:
    """Return what is wrong with the value or the gradients of an extreme comparison, None for nothing."""
    source = Source(seed)
    kind, parameters = source.divergence()
    divergence, dtype = (
        build(kind, **parameters),
        source.pick([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    )
    columns = source.pick([divergence.least_outcomes, 3, 9, 33])
    temperature = source.pick([1.0, source.power(-1, 1), source.power(-10, math.log10(HIGHEST))])
    student, inputs = _extreme_student(source, kind, columns, dtype)
    teacher = _extreme_teacher(source, divergence, columns, dtype, temperature)
    labels = torch.randint(columns, (ROWS,), generator=source.generator)
    if _refused(divergence, teacher):
        return None

    def run(**options: Any) -> Tensor:
        return tl.divergence(student, teacher, divergence, temperature=temperature, labels=labels, **options)

    finite = torch.ones(ROWS, dtype=torch.bool)
    if not isinstance(divergence, WholeBatch):
        rows = run(reduction="none", validate=False).detach()
        finite = rows.isfinite()
        largest = max(1.0, *parameters.values()) if kind in ("decoupled_kd", "dist") else 1.0
        if bool((rows[finite] < -1e-6 * largest).any()):
            return f"{float(rows[finite].min())} < 0"
    if not bool(finite.any()):
        return None
    value = run(reduction="sum", token_weights=finite, validate=False)
    gradients = torch.autograd.grad(value, inputs)
    # A gradient may be too large for float16, of which the largest number is 65,504; then it is infinite there.
    wrong = Tensor.isnan if dtype == torch.float16 else lambda x: ~x.isfinite()
    if not bool(value.isfinite()) or not any(bool(wrong(gradient).any()) for gradient in gradients):
        return None
    if dtype == torch.float16:
        # A head multiplies the gradient on the logits by zeros, too, of which an infinite one leaves no number.
        logits = student.values if isinstance(student, tl.Logits) else student.hidden @ student.weight.T
        logits = logits.detach().float().requires_grad_()
        student = replace(student, values=logits) if isinstance(student, tl.Logits) else tl.Logits(logits)
        value = run(reduction="sum", token_weights=finite, validate=False)
        (gradient,) = torch.autograd.grad(value, student.values)
        if bool(gradient.isfinite().all()) and float(gradient.abs().max()) > torch.finfo(dtype).max:
            return None
    return f"the value is {float(value)} and a gradient is not finite"


def _extreme_rows(source: Source, rows: int, columns: int, dtype: torch.dtype, *, excluded: bool = False) -> Tensor:
    """Return rows of +-1e4, one-hot rows, equal rows, tiny, subnormal, large and ordinary ones, in any mixture."""
    noise = torch.randn(rows, columns, generator=source.generator, dtype=torch.float64)
    hot = torch.zeros_like(noise).scatter_(1, torch.randint(columns, (rows, 1), generator=source.generator), 1.0)
    kinds = [
        noise,
        1e4 * noise.sign(),
        1e4 * hot,
        source.power(0, 4) * hot,
        torch.full_like(noise, 7.0),
        torch.zeros_like(noise),
        1e-7 * noise,
        source.power(-44, 0) * noise,
        source.power(0, 4) * noise,
        7.0 + source.power(-8, 0) * noise,
    ]
    which = torch.randint(len(kinds), (rows, 1), generator=source.generator)
    # As often all rows are of one kind: a batch without any variance.
    which = which if source.pick([True, False]) else which[:1].expand(rows, 1)
    chosen = torch.stack(kinds).gather(0, which.expand(rows, columns)[None]).squeeze(0)
    if excluded:
        is_excluded = torch.rand(rows, columns, generator=source.generator) < 0.3
        chosen = chosen.masked_fill(is_excluded & (chosen < chosen.amax(-1, keepdim=True)), -torch.inf)
    return chosen.to(dtype)


def _may_exclude(source: Source, kind: str) -> bool:
    return (
        kind != "dist"
        and not getattr(tl.divergences.ALL[kind], "refuses_minus_inf", False)
        and source.pick([True, False])
    )


def _extreme_student(source: Source, kind: str, columns: int, dtype: torch.dtype) -> tuple[Any, list[Tensor]]:
    how = source.pick(students_of(kind))
    if how == "head":
        hidden, weight = _extreme_rows(source, ROWS, 4, dtype), _extreme_rows(source, columns, 4, dtype)
        inputs = [hidden.requires_grad_(), weight.requires_grad_()]
        return tl.HeadStates(*inputs), inputs
    values = _extreme_rows(source, ROWS, columns, dtype, excluded=_may_exclude(source, kind) and how == "logits")
    values.requires_grad_()
    options = {"softcap": source.power(-2, 2), "scale": source.power(-2, 2)} if how == "capped_logits" else {}
    return tl.Logits(values, **options), [values]


def _extreme_teacher(
    source: Source, divergence: Divergence, columns: int, dtype: torch.dtype, temperature: float
) -> Distribution:
    how = source.pick(["logits", "head", "mixture", "mixture of logits", "top_k", "renormalized", "labels", "smoothed"])
    targets = torch.randint(columns, (ROWS,), generator=source.generator)
    full = _extreme_rows(source, ROWS, columns, dtype, excluded=_may_exclude(source, divergence.kind))
    match how:
        case "head":
            weight = _extreme_rows(source, columns, 4, dtype)
            return tl.HeadStates(_extreme_rows(source, ROWS, 4, dtype), weight)
        case "mixture" | "mixture of logits":
            other = tl.Logits(_extreme_rows(source, ROWS, columns, dtype))
            space = "probability" if how == "mixture" else "logit"
            return tl.Mixture([tl.Logits(full), other], [source.power(-20, 0), 1.0], space)
        case "top_k" | "renormalized" if columns > 2:
            kept, ids = full.topk(2)
            rest = full.double().scatter(1, ids, -torch.inf) / temperature
            if how == "renormalized":
                return tl.TopK(ids, kept, tail="renormalize")
            return tl.TopK(ids, kept, {temperature: rest.logsumexp(-1).to(dtype)})
        case "labels":
            return tl.Labels(targets)
        case "smoothed":
            return tl.Labels(targets, source.share())
    return tl.Logits(full)
