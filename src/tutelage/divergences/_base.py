"""The four shapes a divergence can have.

Legend: n rows, V outcomes; p is the teacher, q the student; all values are nats per token.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tutelage.errors import CompatibilityError, ParameterError
from tutelage.parameters import real, refusal


@dataclass(frozen=True)
class Divergence(ABC):
    """What is measured between a student and a teacher: formulas on tensors, and nothing else.

    A concrete divergence is a frozen dataclass that derives from `Pointwise`, `PerToken` or `WholeBatch`.
    """

    kind: ClassVar[str]
    """The name in recipes, listings, tests and docs: the class name in snake_case."""

    temperature_power: ClassVar[int] = 2
    """The power of 1/T at which the gradient on the logits shrinks as the temperature T grows."""

    needs_labels: ClassVar[bool] = False
    """Whether the formula tells the labelled outcome apart from the others."""

    compares_probabilities: ClassVar[bool] = True
    """Whether the logits are read through a softmax: what is a probability already has no meaning there."""

    scale_free: ClassVar[bool] = False
    """Whether scaling a side changes nothing, so that the gradient grows without bound as the logits shrink."""

    least_outcomes: ClassVar[int] = 2
    """The fewest outcomes that leave something to learn: below, the value is constant and the gradient 0."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()

    @property
    def needs_float64(self) -> bool:
        """Whether its parameters are such that float32 would lose more than 1e-5 of ordinary values."""
        return False

    def scaled(self, temperature: float) -> tuple[Divergence, float]:
        """Return what `Term` trains at this temperature: a divergence, and the factor in front of it."""
        return self, temperature**self.temperature_power


@dataclass(frozen=True)
class Pointwise(Divergence):
    """A divergence that is a sum over the outcomes: `sum_v term(log p_v, log q_v)`.

    With `slope = d term / d log q`, the gradient on the student's temperature-scaled logits is
    `slope - q * sum(slope)` for every such divergence, so the executors are written once for all of them.

    Both methods get the logarithms and the probabilities, which every executor has at hand, as tensors of one
    shape. Write them so that `p = q` gives exactly 0, and, where the sum over v allows it, so that every single
    term is >= 0 and of second order around `p = q` (add `q - p`, which sums to 0): that is what keeps digits
    near convergence. A logarithm may be -inf; `product` and `log_ratio` know the limits.
    """

    @property
    def lumps(self) -> bool:
        """Whether outcomes without teacher mass may be counted as one: `term(0, a) + term(0, b) == term(0, a + b)`."""
        return True

    @property
    def needs_teacher_support(self) -> bool:
        """Whether the divergence is infinite where the teacher excludes what the student does not."""
        return False

    @abstractmethod
    def term(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        """Return each outcome's share of the divergence."""

    @abstractmethod
    def slope(self, log_p: Tensor, log_q: Tensor, p: Tensor, q: Tensor) -> Tensor:
        """Return `d term / d log q`."""


@dataclass(frozen=True)
class PerToken(Divergence):
    """A divergence that needs a whole row of logits; it is differentiated by autograd, block by block."""

    raw_logits: ClassVar[bool] = False
    """Whether the formula depends on the teacher's logits beyond their softmax at the temperature."""

    refuses_minus_inf: ClassVar[bool] = False
    """Whether a logit of -inf has no meaning in the formula."""

    @abstractmethod
    def per_token(self, student: Tensor, teacher: Tensor, temperature: Tensor | float, labels: Tensor | None) -> Tensor:
        """Return the divergence of each row: (n, V), (n, V), labels (n,) -> (n,)."""


@dataclass(frozen=True)
class WholeBatch(Divergence):
    """A divergence that relates the rows to each other, so it exists for a batch and not for a token.

    It is computed over the rows of one call, that is per micro-batch, and is refused on inputs whose logits never
    exist as a whole.
    """

    @abstractmethod
    def whole_batch(self, student: Tensor, teacher: Tensor, temperature: float, weights: Tensor) -> Tensor:
        """Return one value for the batch: (N, V), (N, V), weights (N,) > 0 -> ()."""


def check_divergence(where: str, value: object) -> None:
    """Raise `CompatibilityError` unless the value is a divergence; the class in place of an instance is named."""
    if not isinstance(value, Divergence):
        hint = f"; add parentheses: {value.__name__}()" if isinstance(value, type) else ""
        raise CompatibilityError(f"{where}={value!r}: expected a divergence such as ForwardKL(){hint}")


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return `a * b`, and 0 wherever `a` is 0: the limit that 0 * log 0 stands for."""
    plain = a * b
    return plain if _surely_has_no_nan(plain) else torch.where(a == 0, 0.0, plain)


def log_ratio(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return `log p - log q`, and 0 where both are -inf: two sides that exclude an outcome agree on it."""
    plain = log_p - log_q
    return plain if _surely_has_no_nan(plain) else torch.where(log_p == log_q, 0.0, plain)


def kl_term(weight: Tensor, log_ratio: Tensor, other: Tensor) -> Tensor:
    """Return `a log(a / b) - a + b` for `weight` a, `log_ratio` log(a / b) and `other` b, also where a and b are close.

    Each term is >= 0 and of second order around a = b, which the plain formula takes as a difference of numbers of
    first order; there it is `a excess(-log(a / b))`.
    """
    plain = product(weight, log_ratio) + (other - weight)
    return torch.where(log_ratio.abs() < 0.5, weight * excess(-log_ratio.clamp(-0.5, 0.5)), plain)


def excess(x: Tensor) -> Tensor:
    """Return `exp(x) - 1 - x` with all its digits: the difference of the rest from x is taken by the series."""
    return x.square() * excess_over_square(x)


def excess_over_square(x: Tensor) -> Tensor:
    """Return `(exp(x) - 1 - x) / x²`, which is 1/2 at 0, with all its digits."""
    near = x.clamp(-0.5, 0.5)
    last = 16 if x.dtype == torch.float64 else 9  # the rest of the series is below rounding
    series = torch.full_like(x, 1 / math.factorial(last))
    for n in range(last - 1, 1, -1):
        series = series.mul_(near).add_(1 / math.factorial(n))
    is_near = x == near
    far = torch.where(is_near, 1.0, x)
    return torch.where(is_near, series, (torch.expm1(far) - far) / far.square())


def can_look(x: Tensor) -> bool:
    """Return whether code may branch on values: not where that would wait for a device or cut a compiled graph."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _surely_has_no_nan(x: Tensor) -> bool:
    """Return True if x holds no NaN, as a CPU can tell by one sum, several times faster than it can mend one."""
    return can_look(x) and not bool(x.sum().isnan())


def check_range(
    owner: Divergence, name: str, low: float, high: float, *, open_low: bool = False, open_high: bool = False
) -> None:
    """Raise `ParameterError` unless the field `name` of `owner` is in the interval; make a Python number of it."""
    value = getattr(owner, name)
    number = real(value)
    inside = (
        number is not None
        and math.isfinite(number)
        and (low < number if open_low else low <= number)
        and (number < high if open_high else number <= high)
    )
    if not inside:
        interval = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high or math.isinf(high) else ']'}"
        raise ParameterError(
            f"{type(owner).__name__}({name}={value!r}): {name} must be a finite number in {interval}{refusal(value)}"
        )
    object.__setattr__(owner, name, number)
