"""The pointwise divergences with 60 digits, from the papers' formulas: float64 cancels near the ends of a range.

A term and its derivative by the student's probability, both as printed; the sums over the outcomes are taken with the
same digits. Slow, so for small inputs.
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import torch
from mpmath import log, mpf
from torch import Tensor

DIGITS = 60
"""Parameters down to 1e-24 and powers of the probabilities cancel; 30 digits are left."""
Formula = Callable[[mpf, mpf], mpf]


def formulas(kind: str, **parameters: float) -> tuple[Formula, Formula]:
    """Return (p, q) -> term and (p, q) -> d term / d q, where q and p are > 0."""
    if kind == "jensen_shannon" and parameters["beta"] in (0, 1):
        kind = "forward_kl" if parameters["beta"] == 0 else "reverse_kl"
    match kind:
        case "forward_kl":
            return lambda p, q: _kl(p, q), lambda p, q: -p / q
        case "reverse_kl":
            return lambda p, q: _kl(q, p), lambda p, q: log(q / p) + 1
        case "jeffreys":
            return lambda p, q: (p - q) * log(p / q), lambda p, q: log(q / p) + 1 - p / q
        case "total_variation":
            return lambda p, q: abs(p - q) / 2, lambda p, q: mpmath.sign(q - p) / 2
        case "hellinger":
            return (
                lambda p, q: (mpmath.sqrt(p) - mpmath.sqrt(q)) ** 2 / 2,
                lambda p, q: (1 - mpmath.sqrt(p / q)) / 2,
            )
        case "jensen_shannon":
            b = mpf(parameters["beta"])
            return (
                lambda p, q: b * _kl(p, b * p + (1 - b) * q) + (1 - b) * _kl(q, b * p + (1 - b) * q),
                lambda p, q: (1 - b) * log(q / (b * p + (1 - b) * q)),
            )
        case "skew_forward_kl":
            s = mpf(parameters["skew"])
            return (
                lambda p, q: _kl(p, s * p + (1 - s) * q),
                lambda p, q: -p * (1 - s) / (s * p + (1 - s) * q),
            )
        case "skew_reverse_kl":
            s = mpf(parameters["skew"])
            return (
                lambda p, q: _kl(q, s * q + (1 - s) * p),
                lambda p, q: log(q / (s * q + (1 - s) * p)) + 1 - s * q / (s * q + (1 - s) * p),
            )
        case "alpha_beta":
            return _alpha_beta(mpf(parameters["alpha"]), mpf(parameters["beta"]))
    raise ValueError(kind)


def _kl(a: mpf, b: mpf) -> mpf:
    """Return a log(a / b), and 0 at a = 0."""
    return a * log(a / b) if a else mpf(0)


def _alpha_beta(a: mpf, b: mpf) -> tuple[Formula, Formula]:
    total = a + b
    if b == 0:
        return lambda p, q: (_kl(p**a, q**a) - p**a + q**a) / a**2, lambda p, q: (q ** (a - 1) - p**a / q) / a
    if a == 0:
        return lambda p, q: (_kl(q**b, p**b) - q**b + p**b) / b**2, lambda p, q: q ** (b - 1) * log(q / p)
    return (
        lambda p, q: (a / total * p**total + b / total * q**total - p**a * q**b) / (a * b),
        lambda p, q: (q ** (total - 1) - p**a * q ** (b - 1)) / a,
    )


def value_and_gradient(
    kind: str, student: Tensor, teacher: Tensor, temperature: float, **parameters: float
) -> tuple[Tensor, Tensor]:
    """Return the value of each row (N,) and its gradient on the student's logits (N, V); -inf excludes an outcome."""
    values, gradients = [], []
    with mpmath.workdps(DIGITS):
        term, derivative = formulas(kind, **parameters)
        for z, t in zip(student.tolist(), teacher.tolist(), strict=True):
            q, p = _softmax(z, temperature), _softmax(t, temperature)
            values.append(float(mpmath.fsum(term(a, b) for a, b in zip(p, q, strict=True))))
            slopes = [b * derivative(a, b) for a, b in zip(p, q, strict=True)]
            total = mpmath.fsum(slopes)
            gradients.append([float((s - b * total) / temperature) for s, b in zip(slopes, q, strict=True)])
    return torch.tensor(values, dtype=torch.float64), torch.tensor(gradients, dtype=torch.float64)


def _softmax(logits: list[float], temperature: float) -> list[mpf]:
    highest = max(logits)
    powers = [mpmath.exp((mpf(z) - highest) / mpf(temperature)) for z in logits]
    total = mpmath.fsum(powers)
    return [power / total for power in powers]
