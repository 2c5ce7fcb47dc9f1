"""Distances between the logits themselves, and the KL between standardised logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tutelage.divergences._base import PerToken
from tutelage.divergences._rows import forward_kl, half_squared_distance_of_directions, log_softmax


@dataclass(frozen=True)
class LogitMSE(PerToken):
    """Mean squared error between the raw logits, or between any two activations.

    `1/V sum_v (z_v - t_v)²`, t the teacher's logits, z the student's; range [0, inf). The temperature does not enter.
    Shapes (..., V) -> (...), squared logits. A logit of -inf is refused.

    >>> import torch, tutelage as tl
    >>> tl.divergence(torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 4.0]]), tl.LogitMSE()).item()
    2.5

    Paper: Ba, Caruana 2014 (NIPS), "Do Deep Nets Really Need to be Deep?".
    """

    temperature_power: ClassVar[int] = 0
    raw_logits: ClassVar[bool] = True
    refuses_minus_inf: ClassVar[bool] = True
    compares_probabilities: ClassVar[bool] = False
    least_outcomes: ClassVar[int] = 1

    def per_token(self, student: Tensor, teacher: Tensor, temperature: Tensor | float, labels: Tensor | None) -> Tensor:
        return (student - teacher).square().mean(-1)


@dataclass(frozen=True)
class LogitCosine(PerToken):
    """Cosine distance between the raw logits, or between any two activations.

    `1 - <z, t> / (|z| |t|)`, t the teacher's logits, z the student's; range [0, 2]. The temperature does not enter. Two
    zero vectors are at distance 0, one zero vector at distance 1 from any other, both without a gradient.
    Shapes (..., V) -> (...), no unit. A logit of -inf is refused.

    >>> import torch, tutelage as tl
    >>> tl.divergence(torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]]), tl.LogitCosine()).item()
    2.0

    Paper: Sanh, Debut, Chaumond, Wolf 2019, "DistilBERT, a distilled version of BERT" (on hidden states).
    """

    temperature_power: ClassVar[int] = 0
    raw_logits: ClassVar[bool] = True
    refuses_minus_inf: ClassVar[bool] = True
    compares_probabilities: ClassVar[bool] = False
    scale_free: ClassVar[bool] = True

    def per_token(self, student: Tensor, teacher: Tensor, temperature: Tensor | float, labels: Tensor | None) -> Tensor:
        return half_squared_distance_of_directions(student, teacher)


@dataclass(frozen=True)
class StandardizedKL(PerToken):
    """Forward KL between logits that are standardised row by row before the temperature.

    `KL(softmax(n(t)/T) || softmax(n(z)/T))` with `n(x) = (x - mean x) / (1e-7 + std x)`, the standard deviation with
    V - 1 below the line, t the teacher's logits, z the student's; range [0, inf). Shifting or scaling a side changes
    nothing, so the student need not match the teacher's logit range. A row of equal logits standardises to 0, without a
    gradient. Two logits standardise to the same two numbers whatever they are, so it needs three outcomes.
    Shapes (..., V) -> (...), nats per token. A logit of -inf is refused.

    >>> import torch, tutelage as tl
    >>> student, teacher = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[2.0, 0.0, 0.0]])
    >>> round(tl.divergence(student, 5 * teacher + 1, tl.StandardizedKL(), temperature=2.0).item(), 4)
    0.2725

    Paper: Sun, Ren, Li, Wang, Cao 2024 (CVPR), "Logit Standardization in Knowledge Distillation".
    """

    raw_logits: ClassVar[bool] = True
    refuses_minus_inf: ClassVar[bool] = True
    scale_free: ClassVar[bool] = True
    least_outcomes: ClassVar[int] = 3

    def per_token(self, student: Tensor, teacher: Tensor, temperature: Tensor | float, labels: Tensor | None) -> Tensor:
        log_p = log_softmax(_standardize(teacher) / temperature)
        return forward_kl(log_p, log_softmax(_standardize(student) / temperature))


def _standardize(logits: Tensor) -> Tensor:
    # Relative to the range of the row, no square leaves the range of the arithmetic.
    logits = logits - logits.amax(-1, keepdim=True).detach()
    span = -logits.amin(-1, keepdim=True).detach()
    # A row of equal logits has no direction to leave in: it counts as 0 and gets no gradient, instead of one of 1e7.
    is_flat = span == 0
    span = torch.where(is_flat, 1.0, span)
    logits = logits / span
    centred = logits - logits.mean(-1, keepdim=True)
    variance = centred.square().sum(-1, keepdim=True) / (logits.shape[-1] - 1)
    return torch.where(is_flat, 0.0, centred / (torch.where(is_flat, 1.0, variance).sqrt() + 1e-7 / span))
