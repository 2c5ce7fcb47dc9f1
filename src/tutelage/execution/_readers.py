"""How a teacher's rows are read inside a block: tensors of n rows -> log-probabilities.

A reader is static and hashable; the tensors it reads are passed beside it, so that a compiled block is reused.
Legend: n rows of the block, V compared columns, K kept ids; p the teacher; T the temperature.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Scalar = Tensor | float
"""A temperature: a number when run eagerly, a tensor without dimensions when compiled."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a logits matrix are compared: the first `prefix`, or those of an index passed beside it."""

    prefix: int | None

    def take(self, logits: Tensor, ids: Tensor | None) -> Tensor:
        """Return the compared columns: (n, all) -> (n, V)."""
        if ids is not None:
            return logits.index_select(1, ids)
        return logits if self.prefix is None else logits[:, : self.prefix]

    def add(self, gradient: Tensor, addend: Tensor, ids: Tensor | None) -> None:
        """Add a gradient on the compared columns (n, V) to one on all of them (n, all), in place."""
        if ids is not None:
            gradient.index_add_(1, ids, addend)
        else:
            gradient[:, : self.prefix].add_(addend)


@dataclass(frozen=True)
class Transform:
    """What a model does to the output of its head: `softcap * tanh(scale * x / softcap)`."""

    softcap: float | None
    scale: float | None

    def apply(self, raw: Tensor) -> Tensor:
        """Return the logits."""
        logits = raw if self.scale is None else raw * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def backward(self, gradient: Tensor, raw: Tensor) -> Tensor:
        """Return the gradient on the raw output, from the one on the logits, which it may overwrite."""
        if self.softcap is not None:
            # 1 - tanh(x)², which near the cap would be what rounding leaves of 1.
            power = torch.exp(raw.abs().mul_(-2 * (1.0 if self.scale is None else self.scale) / self.softcap))
            gradient = gradient.mul_(4 * power / (1 + power).square_())
        return gradient if self.scale is None else gradient.mul_(self.scale)


def soften(logits: Tensor, temperature: Scalar, highest: Tensor | None = None) -> Tensor:
    """Return `(logits - max) / T`, a new tensor; the maximum goes first, so that a shift of the row costs no digits.

    highest: the maximum of each row (n, 1), where it is known.
    """
    highest = logits.amax(-1, keepdim=True) if highest is None else highest
    if isinstance(temperature, float) and temperature != 1:
        # One pass instead of two: multiply and add without rounding in between.
        return torch.add(highest * (-1 / temperature), logits, alpha=1 / temperature)
    softened = logits - highest
    return softened if isinstance(temperature, float) else softened.div_(temperature)


def base_2(logits: Tensor, temperature: Scalar, highest: Tensor) -> Tensor:
    """Return `(logits - max) / T * log2(e)`, a new tensor, of which `exp2` makes what `exp` makes of `soften`.

    Powers of 2 take a CPU less than half the time of powers of e.
    """
    return (logits - highest).mul_(_LOG2_E / temperature)


_LOG2_E = math.log2(math.e)


def log_softmax(logits: Tensor, temperature: Scalar, highest: Tensor | None = None) -> Tensor:
    """Return `log softmax(logits / T)`; highest: the maximum of each row, where it is known."""
    softened = soften(logits, temperature, highest)
    return softened.sub_(softened.exp().sum(-1, keepdim=True).log_())


def log_softmax_and_softmax(
    logits: Tensor, temperature: Scalar, highest: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return `log softmax(logits / T)` and its exponential.

    The second is taken of the rounded first, not divided out of the sum: so the two agree to the last digit, and
    `p log(p/q) + q - p` keeps its digits near p = q.
    """
    log_probs = log_softmax(logits, temperature, highest)
    return log_probs, log_probs.exp()


def log_mean(log_probs: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Return `log sum_i share_i p_i`."""
    if len(log_probs) == 1:
        return log_probs[0]
    logs = torch.stack([log_p + _log(share) for log_p, share in zip(log_probs, shares, strict=True)])
    return logs.logsumexp(0)


def _log(share: float) -> float:
    return float(torch.tensor(share, dtype=torch.float64).log())


@dataclass(frozen=True)
class Dense:
    """`Logits`, `HeadStates` after their product, or a `Mixture` of them. Tensors: one raw (n, all) for each part."""

    transforms: tuple[Transform, ...]
    shares: tuple[float, ...]
    space: Literal["probability", "logit"]
    columns: Columns

    @property
    def is_single(self) -> bool:
        """Whether it is one part: logits, and not a mixture."""
        return len(self.transforms) == 1

    def _parts(self, tensors: Sequence[Tensor], ids: Tensor | None, dtype: torch.dtype) -> list[Tensor]:
        return [
            transform.apply(self.columns.take(raw, ids).to(dtype))
            for raw, transform in zip(tensors, self.transforms, strict=True)
        ]

    def log_p_and_p(
        self, tensors: Sequence[Tensor], ids: Tensor | None, dtype: torch.dtype, temperature: Scalar
    ) -> tuple[Tensor, Tensor]:
        """Return log p and p (n, V)."""
        parts = self._parts(tensors, ids, dtype)
        if self.space == "logit" or self.is_single:
            return log_softmax_and_softmax(_weighted_sum(parts, self.shares), temperature)
        log_p = log_mean([log_softmax(part, temperature) for part in parts], self.shares)
        return log_p, log_p.exp()

    def logits(self, tensors: Sequence[Tensor], ids: Tensor | None, dtype: torch.dtype, temperature: Scalar) -> Tensor:
        """Return logits (n, V) whose softmax at T is p."""
        parts = self._parts(tensors, ids, dtype)
        if self.space == "logit" or self.is_single:
            return _weighted_sum(parts, self.shares)
        return log_mean([log_softmax(part, temperature) for part in parts], self.shares) * temperature


def _weighted_sum(parts: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    total = parts[0] * shares[0]
    for part, share in zip(parts[1:], shares[1:], strict=True):
        total = total + part * share
    return total


@dataclass(frozen=True)
class SmoothedLabels:
    """`Labels` as a dense row, for smoothing and for divergences that do not lump. Tensors: targets (n,)."""

    smoothing: float

    def log_p(self, targets: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
        """Return log p (n, V)."""
        other = self.smoothing / columns
        rows = torch.full((targets.shape[0], columns), _log(other), dtype=dtype, device=targets.device)
        return rows.scatter_(1, targets[:, None], _log(1 - self.smoothing + other))


@dataclass(frozen=True)
class OneHot:
    """`Labels` without smoothing: one kept id with all the mass, and an empty bucket. Tensors: targets (n,)."""


@dataclass(frozen=True)
class Sparse:
    """`TopK`, or a `Mixture` of them.

    Tensors: kept ids as places among the compared columns (n, K), the parts' logits (n, K), and for each temperature
    that is used their tails (n,).
    """

    shares: tuple[float, ...]
    space: Literal["probability", "logit"]
    bucket: bool
    mapped: bool
    """Whether an id may be V: outside the compared columns of a vocabulary map."""
    tail_of: tuple[int | None, ...]
    """For each temperature of the plan, the place of the first part's tail among the tensors."""

    def log_p(self, tensors: Sequence[Tensor], dtype: torch.dtype, temperature: Scalar, which: int) -> Tensor:
        """Return log p over the kept ids (n, K), with the bucket as a last column where there is one (n, K + 1)."""
        count = len(self.shares)
        parts = [logits.to(dtype) for logits in tensors[1 : 1 + count]]
        if not self.bucket:
            if self.space == "logit":
                return log_softmax(_weighted_sum(parts, self.shares), temperature)
            return log_mean([log_softmax(part, temperature) for part in parts], self.shares)
        first = self.tail_of[which]
        assert first is not None
        tails = [tail.to(dtype)[:, None] for tail in tensors[first : first + count]]
        return log_mean(
            [
                log_softmax(torch.cat([part / temperature, tail], -1), 1.0)
                for part, tail in zip(parts, tails, strict=True)
            ],
            self.shares,
        )


@dataclass(frozen=True)
class Samples:
    """`Sampled`. Tensors: ids (n, K), weights (n, K), entropy (n,) where it is known."""


Reader = Dense | SmoothedLabels | OneHot | Sparse | Samples
