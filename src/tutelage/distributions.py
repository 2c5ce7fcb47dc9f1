"""HOW a side arrives: `Logits`, `HeadStates`, `TopK`, `Sampled`, `Labels`, `Mixture`.

These types hold tensors, check that their shapes and dtypes belong together, and nothing else; `execution` turns
them into probabilities. Values (ids in range, weights that sum to 1) are checked there, for the rows that count.
Legend: ... any leading dimensions, V outcomes, D hidden width, K kept ids; p the teacher, q the student.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from tutelage.errors import (
    CompatibilityError,
    DtypeError,
    EmptyInputError,
    ParameterError,
    ShapeError,
    TeacherError,
    WeightError,
)
from tutelage.parameters import real, refusal


class Distribution(ABC):
    """One side of a comparison: a probability distribution over a vocabulary for each row."""

    @property
    @abstractmethod
    def batch_shape(self) -> torch.Size:
        """The leading dimensions: one distribution for each of their elements."""

    @property
    @abstractmethod
    def vocabulary_size(self) -> int | None:
        """V, or None where the type only knows ids."""

    @abstractmethod
    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every tensor of the distribution with its name."""


@dataclass(frozen=True, eq=False)
class Logits(Distribution):
    """Unnormalised log-probabilities, all of them in memory: `softmax(logits / T)`.

    `logits = softcap * tanh(scale * values / softcap)`, without the tanh where softcap is None.

    values: (..., V) floating point; softcap > 0 (Gemma 2 uses 30); scale > 0 (Cohere, Granite).
    Errors: `EmptyInputError`, `ShapeError`, `DtypeError`, `ParameterError`.

    >>> import torch, tutelage as tl
    >>> tl.Logits(torch.zeros(2, 5), softcap=30.0).vocabulary_size
    5
    """

    values: Tensor
    softcap: float | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        _check_floating("Logits.values", self.values, "pass logits; wrap class ids in Labels")
        _check_rows("Logits.values", self.values, "(..., V)")
        _check_positive(self, "softcap", "scale")

    @property
    def batch_shape(self) -> torch.Size:
        return self.values.shape[:-1]

    @property
    def vocabulary_size(self) -> int:
        return self.values.shape[-1]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield "values", self.values


@dataclass(frozen=True, eq=False)
class HeadStates(Distribution):
    """Hidden states and the language-model head: the logits are made block by block and never exist as a whole.

    `logits = softcap * tanh(scale * (hidden @ weight.T + bias) / softcap)`, without the tanh where softcap is None.
    A head that does not require grad costs no weight gradient; a tied one gets its share like any tensor.

    hidden: (..., D); weight: (V, D); bias: (V,) or None; softcap, scale > 0 or None.
    Errors: `EmptyInputError`, `ShapeError`, `DtypeError`, `ParameterError`.

    >>> import torch, tutelage as tl
    >>> states = tl.HeadStates(torch.zeros(2, 3, 8), weight=torch.zeros(100, 8))
    >>> states.batch_shape, states.vocabulary_size
    (torch.Size([2, 3]), 100)
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None
    softcap: float | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        for name, tensor in self.tensors():
            _check_floating(f"HeadStates.{name}", tensor, "pass hidden states and the head's weight")
        _check_rows("HeadStates.hidden", self.hidden, "(..., D)")
        _check_rows("HeadStates.weight", self.weight, "(V, D)")
        if self.weight.dim() != 2 or self.weight.shape[1] != self.hidden.shape[-1]:
            raise ShapeError(
                f"HeadStates.weight has shape {tuple(self.weight.shape)} and hidden {tuple(self.hidden.shape)}; "
                f"expected weight (V, {self.hidden.shape[-1]}): one row per outcome, as in torch.nn.Linear.weight"
            )
        if self.bias is not None and self.bias.shape != self.weight.shape[:1]:
            raise ShapeError(
                f"HeadStates.bias has shape {tuple(self.bias.shape)}; expected ({self.weight.shape[0]},), one per "
                "outcome"
            )
        _check_positive(self, "softcap", "scale")

    @property
    def batch_shape(self) -> torch.Size:
        return self.hidden.shape[:-1]

    @property
    def vocabulary_size(self) -> int:
        return self.weight.shape[0]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield "hidden", self.hidden
        yield "weight", self.weight
        if self.bias is not None:
            yield "bias", self.bias


@dataclass(frozen=True, eq=False)
class TopK(Distribution):
    """A teacher's K likeliest outcomes, with a declared tail.

    tail = "bucket": the K kept ids and one bucket, which holds the rest of both sides, are compared. The bucket's mass
    is exact at each temperature in `log_tails`; at another one it is unknown, which is an error.
    tail = "renormalize": both sides renormalise over the kept ids; needs no `log_tails`.
    With K = V both equal `Logits`. Pointwise divergences only: the others need all logits.

    indices: (..., K) int64 ids of the teacher's vocabulary, distinct in a row; logits: (..., K), up to a shift of the
    row; log_tails: {T: (...)}, the logsumexp of logits / T over the ids that are not kept, with the same shift,
    -inf when K = V. It is not the log-normaliser over all ids: 1 less the kept mass would cancel.
    Errors: `EmptyInputError`, `ShapeError`, `DtypeError`, `ParameterError`, `TeacherError`.

    >>> import torch, tutelage as tl
    >>> logits = torch.tensor([[3.0, 1.0, 0.0, -1.0]])
    >>> kept, ids = logits.topk(2)
    >>> rest = torch.tensor([[0.0, -1.0]])
    >>> teacher = tl.TopK(ids, kept, log_tails={2.0: (rest / 2).logsumexp(-1)})
    >>> round(tl.divergence(torch.zeros(1, 4), teacher, temperature=2.0).item(), 4)
    0.2702
    """

    indices: Tensor
    logits: Tensor
    log_tails: Mapping[float, Tensor] = field(default_factory=dict)
    tail: Literal["bucket", "renormalize"] = "bucket"

    def __post_init__(self) -> None:
        _check_ids("TopK.indices", self.indices)
        _check_floating("TopK.logits", self.logits, "pass the logits of the kept ids")
        _check_rows("TopK.indices", self.indices, "(..., K)")
        if self.logits.shape != self.indices.shape:
            raise ShapeError(
                f"TopK.logits has shape {tuple(self.logits.shape)} and indices {tuple(self.indices.shape)}; expected "
                "the same"
            )
        if self.tail not in ("bucket", "renormalize"):
            raise ParameterError(f"TopK(tail={self.tail!r}): tail must be 'bucket' or 'renormalize'")
        if self.tail == "bucket" and not self.log_tails:
            raise TeacherError(
                "TopK(tail='bucket') came without log_tails; give "
                "{T: logsumexp of logits / T over the ids that are not "
                "kept} for each temperature you train with, or choose tail='renormalize'"
            )
        tails = {check_temperature(temperature): values for temperature, values in self.log_tails.items()}
        object.__setattr__(self, "log_tails", tails)
        for temperature, values in tails.items():
            _check_floating(f"TopK.log_tails[{temperature:g}]", values, "pass log-sums of exponentials")
            if values.shape != self.batch_shape:
                raise ShapeError(
                    f"TopK.log_tails[{temperature:g}] has shape {tuple(values.shape)}; expected "
                    f"{tuple(self.batch_shape)}, one value per row"
                )

    @classmethod
    def from_log_probs(
        cls, indices: Tensor, log_probs: Tensor, tail: Literal["bucket", "renormalize"] = "bucket"
    ) -> TopK:
        """Return the teacher whose kept ids have these log-probabilities; its bucket is known at temperature 1 only.

        The tail is what the kept probabilities leave of 1, taken in float64. Where rounding leaves a sum just above 1
        (by no more than 1e-3), the tail is empty; with a larger sum the row cannot be used.

        indices: (..., K) int64; log_probs: (..., K), each <= 0.

        >>> import torch, tutelage as tl
        >>> teacher = tl.TopK.from_log_probs(torch.tensor([[2, 0]]), torch.tensor([[0.5, 0.25]]).log())
        >>> round(teacher.log_tails[1.0].exp().item(), 4)
        0.25
        """
        _check_floating("log_probs", log_probs, "pass log-probabilities")
        kept = log_probs.double().exp().sum(-1)
        rest = torch.log1p(-kept.clamp(max=1.0))
        too_much = kept > 1 + 1e-3
        return cls(indices, log_probs, {1.0: torch.where(too_much, torch.nan, rest).to(log_probs.dtype)}, tail)

    @property
    def batch_shape(self) -> torch.Size:
        return self.indices.shape[:-1]

    @property
    def vocabulary_size(self) -> None:
        return None

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield "indices", self.indices
        yield "logits", self.logits
        for temperature, values in self.log_tails.items():
            yield f"log_tails[{temperature:g}]", values


@dataclass(frozen=True, eq=False)
class Sampled(Distribution):
    """A teacher known by samples: random-sampling knowledge distillation. Forward KL only.

    With ids drawn from the teacher at `temperature` and weights that are counts over their sum (or importance
    weights), the mean gradient is that of the dense forward KL. The value is the cross-entropy
    `-sum_k weight_k log q(id_k)`, less the teacher's `entropy` where that was kept: only then is it an estimate of the
    divergence, and an estimate may be negative.

    indices: (..., K) int64 ids of the teacher's vocabulary, repeats allowed; weights: (..., K) >= 0 that sum to 1;
    entropy: (...) nats, or None. Errors: `EmptyInputError`, `ShapeError`, `DtypeError`, `ParameterError`, and
    `TeacherError` for weights that do not sum to 1.

    >>> import torch, tutelage as tl
    >>> teacher = tl.Sampled(torch.tensor([[0, 3]]), torch.tensor([[0.75, 0.25]]), temperature=1.0)
    >>> round(tl.divergence(torch.zeros(1, 4), teacher).item(), 4)
    1.3863

    Paper: Anshumann et al. 2025 (ACL), "Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs".
    """

    indices: Tensor
    weights: Tensor
    temperature: float
    entropy: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "temperature", check_temperature(self.temperature))
        _check_ids("Sampled.indices", self.indices)
        _check_floating("Sampled.weights", self.weights, "pass counts divided by their sum")
        _check_rows("Sampled.indices", self.indices, "(..., K)")
        if self.weights.shape != self.indices.shape:
            raise ShapeError(
                f"Sampled.weights has shape {tuple(self.weights.shape)} and indices {tuple(self.indices.shape)}; "
                "expected the same"
            )
        if self.entropy is not None:
            _check_floating("Sampled.entropy", self.entropy, "pass nats")
            if self.entropy.shape != self.batch_shape:
                raise ShapeError(
                    f"Sampled.entropy has shape {tuple(self.entropy.shape)}; expected {tuple(self.batch_shape)}, one "
                    "per row"
                )

    @property
    def batch_shape(self) -> torch.Size:
        return self.indices.shape[:-1]

    @property
    def vocabulary_size(self) -> None:
        return None

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield "indices", self.indices
        yield "weights", self.weights
        if self.entropy is not None:
            yield "entropy", self.entropy


@dataclass(frozen=True, eq=False)
class Labels(Distribution):
    """A one-hot teacher: forward KL to it is the cross-entropy.

    `p = (1 - smoothing) onehot + smoothing / V`, at every temperature: a one-hot distribution does not soften. With
    smoothing, forward KL is the smoothed cross-entropy less its entropy, which is constant, so that a perfect student
    has 0. There is no ignored label: give such rows the token weight 0, and any value here.

    targets: (...) int64 ids of the student's vocabulary; 0 <= smoothing <= 1.
    Errors: `EmptyInputError`, `DtypeError`, `ParameterError`, and `LabelError` for ids outside the vocabulary.

    >>> import torch, tutelage as tl
    >>> logits, labels = torch.tensor([[2.0, 1.0, 0.5]]), torch.tensor([0])
    >>> round(tl.divergence(logits, tl.Labels(labels)).item(), 6)
    0.464369
    """

    targets: Tensor
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        _check_ids("Labels.targets", self.targets)
        if self.targets.numel() == 0:
            raise EmptyInputError(f"Labels.targets has shape {tuple(self.targets.shape)}; expected at least one label")
        smoothing = real(self.smoothing)
        if smoothing is None or not 0 <= smoothing <= 1:
            raise ParameterError(
                f"Labels(smoothing={self.smoothing!r}): smoothing must be in [0, 1]{refusal(self.smoothing)}"
            )
        object.__setattr__(self, "smoothing", smoothing)

    @property
    def batch_shape(self) -> torch.Size:
        return self.targets.shape

    @property
    def vocabulary_size(self) -> None:
        return None

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield "targets", self.targets


@dataclass(frozen=True, eq=False)
class Mixture(Distribution):
    """An ensemble of teachers: their probabilities, or their logits, averaged after the temperature.

    space = "probability": `sum_i w_i softmax(z_i / T)`; space = "logit": `softmax(sum_i w_i z_i / T)`.

    parts: all of them `Logits` or `HeadStates`, or all of them `TopK` with the same indices and the same tail (their
    buckets mix too; a bucket has no logits, so space = "logit" needs tail = "renormalize"); weights: one >= 0 per
    part, used as shares of their sum; None for equal ones. To mix with labels, give them a `Term` of their own.
    Errors: `EmptyInputError`, `ShapeError`, `WeightError`, `CompatibilityError`, `ParameterError`.

    >>> import torch, tutelage as tl
    >>> teachers = [tl.Logits(torch.tensor([[2.0, 0.0]])), tl.Logits(torch.tensor([[0.0, 2.0]]))]
    >>> tl.divergence(torch.zeros(1, 2), tl.Mixture(teachers)).item()
    0.0
    """

    parts: Sequence[Distribution]
    weights: Sequence[float] | None = None
    space: Literal["probability", "logit"] = "probability"

    def __post_init__(self) -> None:
        if not isinstance(self.parts, Sequence):
            raise CompatibilityError(f"Mixture({_named(self.parts)}): expected a list of teachers")
        if len(self.parts) == 0:
            raise EmptyInputError("Mixture([]): a mixture needs at least one teacher")
        if self.space not in ("probability", "logit"):
            raise ParameterError(f"Mixture(space={self.space!r}): space must be 'probability' or 'logit'")
        if self.weights is not None:
            object.__setattr__(self, "weights", check_shares("Mixture.weights", self.weights, len(self.parts)))
        first = self.parts[0]
        for i, part in enumerate(self.parts):
            dense = isinstance(part, (Logits, HeadStates)) and isinstance(first, (Logits, HeadStates))
            sparse = isinstance(part, TopK) and isinstance(first, TopK)
            if not dense and not sparse:
                raise CompatibilityError(
                    f"Mixture part {i} is {_named(part)} and part 0 {_named(first)}; expected all Logits or "
                    "HeadStates, or all TopK. Give other teachers, and labels, a Term of their own"
                )
            if part.batch_shape != first.batch_shape:
                raise ShapeError(
                    f"Mixture part {i} has rows {tuple(part.batch_shape)} and part 0 {tuple(first.batch_shape)}; "
                    "expected the same"
                )
            if part.vocabulary_size != first.vocabulary_size:
                raise ShapeError(
                    f"Mixture part {i} has {part.vocabulary_size} outcomes and part 0 {first.vocabulary_size}; "
                    "expected the same"
                )
            if isinstance(part, TopK) and isinstance(first, TopK):
                self._check_top_k(i, part, first)

    def _check_top_k(self, i: int, part: TopK, first: TopK) -> None:
        if part.indices is not first.indices and part.indices.shape != first.indices.shape:
            raise ShapeError(
                f"Mixture part {i} keeps {part.indices.shape[-1]} ids and part 0 {first.indices.shape[-1]}; TopK "
                "parts must share their indices"
            )
        if part.tail != first.tail:
            raise CompatibilityError(
                f"Mixture part {i} has tail={part.tail!r} and part 0 tail={first.tail!r}; expected the same"
            )
        if self.space == "logit" and part.tail == "bucket":
            raise CompatibilityError(
                "Mixture(space='logit') of TopK teachers with tail='bucket': the logits of the ids in a bucket are "
                "gone, so they cannot be averaged; use space='probability', or tail='renormalize'"
            )

    @property
    def heard(self) -> tuple[list[Distribution], tuple[float, ...]]:
        """The parts whose weight is not 0, and their weights as shares that sum to 1."""
        shares = shares_of(self.weights, len(self.parts))
        parts = [part for part, share in zip(self.parts, shares, strict=True) if share > 0]
        return parts, tuple(share for share in shares if share > 0)

    @property
    def batch_shape(self) -> torch.Size:
        return self.parts[0].batch_shape

    @property
    def vocabulary_size(self) -> int | None:
        return self.parts[0].vocabulary_size

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        for i, part in enumerate(self.parts):
            for name, tensor in part.tensors():
                yield f"parts[{i}].{name}", tensor


def check_temperature(temperature: object) -> float:
    """Return a temperature as a Python number; `ParameterError` unless it is > 0 and its square fits float32."""
    number = real(temperature)
    if number is None or not math.isfinite(number) or number <= 0:
        raise ParameterError(f"temperature={temperature!r}: it must be a finite number > 0{refusal(temperature)}")
    if not _LEAST_TEMPERATURE <= number <= 1 / _LEAST_TEMPERATURE:
        raise ParameterError(
            f"temperature={temperature!r}: expected a number between {_LEAST_TEMPERATURE:g} and "
            f"{1 / _LEAST_TEMPERATURE:g}; beyond, logits / T and T² leave the range of the arithmetic"
        )
    return number


_LEAST_TEMPERATURE = 1e-10


def check_shares(name: str, weights: Sequence[float], count: int | None = None) -> tuple[float, ...]:
    """Return weights as Python numbers; `WeightError` unless all are finite and >= 0, and they do not sum to 0.

    count: how many are expected, if that is known.
    """
    if isinstance(weights, (str, bytes)) or getattr(weights, "ndim", 1) != 1 or not hasattr(weights, "__iter__"):
        raise WeightError(f"{name} = {weights!r}: expected a list of numbers, one for each")
    given = list(weights)
    if count is not None and len(given) != count:
        raise WeightError(f"{name} has {len(given)} numbers for {count} entries; give one weight for each")
    numbers = [real(weight) for weight in given]
    if not all(number is not None and math.isfinite(number) and number >= 0 for number in numbers):
        raise WeightError(f"{name} = {given}: weights must be finite and >= 0{''.join(map(refusal, given[:1]))}")
    found = tuple(number for number in numbers if number is not None)
    if sum(found) == 0:
        raise WeightError(f"{name} = {given} sum to 0; at least one weight must be > 0")
    return found


def shares_of(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """Return weights as shares of their sum, equal ones for None."""
    if weights is None:
        return (1 / count,) * count
    largest = max(weights)  # taken out, so that no sum overflows
    total = math.fsum(weight / largest for weight in weights)
    return tuple(weight / largest / total for weight in weights)


def _named(part: object) -> str:
    return type(part).__name__


def hint_for(side: object) -> str:
    """Return what to pass instead of an object that is no side of a comparison; empty if that is not known."""
    if not isinstance(side, Tensor) and isinstance(getattr(side, "logits", None), Tensor):
        return ". This is the output of a model: pass its logits, output.logits"
    if isinstance(side, (list, tuple)) and side and all(isinstance(part, (Tensor, Distribution)) for part in side):
        return (
            ". For several teachers pass Mixture([Logits(first), Logits(second)]), or use EnsembleDistiller; where a "
            "model returns a tuple, pass the entry that holds its logits"
        )
    return ""


def _check_floating(name: str, tensor: Tensor, advice: str) -> None:
    if not isinstance(tensor, Tensor):
        raise DtypeError(f"{name} is a {type(tensor).__name__}; expected a torch.Tensor{hint_for(tensor)}")
    if not tensor.dtype.is_floating_point:
        raise DtypeError(f"{name} has dtype {tensor.dtype}; expected floating point: {advice}")


def _check_ids(name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise DtypeError(f"{name} is a {type(tensor).__name__}; expected a torch.Tensor of int64")
    if tensor.dtype != torch.int64:
        advice = "use .long() if these are ids"
        if tensor.dtype.is_floating_point and tensor.dim() > 1:
            advice += ", .argmax(-1) if these are one-hot rows"
        raise DtypeError(f"{name} has dtype {tensor.dtype}; expected torch.int64 ({advice})")


def _check_rows(name: str, tensor: Tensor, expected: str) -> None:
    if tensor.dim() == 0:
        raise ShapeError(f"{name} is a single number; expected shape {expected}")
    if tensor.numel() == 0:
        raise EmptyInputError(
            f"{name} has shape {tuple(tensor.shape)}, without elements; expected {expected}, none of them 0"
        )


def _check_positive(owner: Distribution, *names: str) -> None:
    """Make Python numbers of optional fields; `ParameterError` unless they are finite and > 0."""
    for name in names:
        value = getattr(owner, name)
        number = real(value)
        if value is not None and (number is None or not math.isfinite(number) or number <= 0):
            raise ParameterError(
                f"{type(owner).__name__}({name}={value!r}): {name} must be a finite number > 0, or None{refusal(value)}"
            )
        object.__setattr__(owner, name, number)
