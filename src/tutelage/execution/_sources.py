"""Where a teacher's rows come from: its tensors with the leading dimensions flattened, and how a block reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tutelage.distributions import Distribution, HeadStates, Labels, Logits, Mixture, Sampled, TopK
from tutelage.divergences import Divergence, Pointwise
from tutelage.errors import TeacherError
from tutelage.execution._readers import Columns, Dense, OneHot, Reader, Samples, SmoothedLabels, Sparse, Transform
from tutelage.vocabulary import VocabularyMap


@dataclass(frozen=True, eq=False)
class Job:
    """One weighted sum over rows: `factor * sum_i weights_i * divergence_i`."""

    divergence: Divergence
    teacher: Distribution
    temperature: float = 1.0
    weights: Tensor | None = None
    """One weight >= 0 per row, in the student's batch shape; None for ones."""
    factor: Tensor | float = 1.0
    """What multiplies the sum; exactly 0.0 means that only the value is wanted."""

    @property
    def trains(self) -> bool:
        return isinstance(self.factor, Tensor) or self.factor != 0


@dataclass(frozen=True, eq=False)
class Source:
    """One teacher: its tensors, rows first, and the reader that makes probabilities of them."""

    reader: Reader
    tensors: list[Tensor]
    heads: list[HeadStates | None]
    """For each tensor: the head that makes raw logits of it, or None if it is read as it is."""


def make_source(
    teacher: Distribution,
    jobs: Sequence[Job],
    temperatures: tuple[float, ...],
    student: Logits | HeadStates,
    vocabulary: VocabularyMap | None,
) -> Source:
    """Return the source of one teacher for the jobs that use it."""
    parts, shares = teacher.heard if isinstance(teacher, Mixture) else ([teacher], (1.0,))
    space = teacher.space if isinstance(teacher, Mixture) else "probability"
    first = parts[0]
    if isinstance(first, (Logits, HeadStates)):
        dense = [part for part in parts if isinstance(part, (Logits, HeadStates))]
        transforms = tuple(Transform(part.softcap, part.scale) for part in dense)
        columns = Columns(None if vocabulary is None else vocabulary.length)
        tensors = [_flat(part.hidden if isinstance(part, HeadStates) else part.values, 1) for part in dense]
        heads = [part if isinstance(part, HeadStates) else None for part in dense]
        return Source(Dense(transforms, shares, space, columns), tensors, heads)
    if isinstance(first, TopK):
        kept = [part for part in parts if isinstance(part, TopK)]
        return _top_k(kept, shares, space, jobs, temperatures, student, vocabulary)
    if isinstance(first, Sampled):
        return _sampled(first, jobs, vocabulary)
    assert isinstance(first, Labels)
    lumps = all(isinstance(job.divergence, Pointwise) and job.divergence.lumps for job in jobs)
    reader = OneHot() if lumps and first.smoothing == 0 else SmoothedLabels(first.smoothing)
    return Source(reader, [_flat(first.targets, 0)], [None])


def _top_k(
    parts: list[TopK],
    shares: tuple[float, ...],
    space: Literal["probability", "logit"],
    jobs: Sequence[Job],
    temperatures: tuple[float, ...],
    student: Logits | HeadStates,
    vocabulary: VocabularyMap | None,
) -> Source:
    ids = _flat(parts[0].indices, 1)
    tensors = [ids if vocabulary is None else vocabulary.places("teacher", ids)]
    tensors += [_flat(part.logits, 1) for part in parts]
    # With every id kept nothing is left for a bucket, whatever dust rounding left in a tail.
    keeps_all = vocabulary is None and ids.shape[1] == student.vocabulary_size
    bucket = parts[0].tail == "bucket" and not keeps_all
    needed = {float(job.temperature) for job in jobs}
    tail_of: list[int | None] = []
    for temperature in temperatures:
        if not bucket or temperature not in needed:
            tail_of.append(None)
            continue
        tail_of.append(len(tensors))
        for part in parts:
            tails = {float(known): tail for known, tail in part.log_tails.items()}
            if temperature not in tails:
                raise _unknown_temperature("a TopK(tail='bucket')", temperature, list(tails))
            tensors.append(_flat(tails[temperature], 0))
    reader = Sparse(shares, space, bucket, vocabulary is not None, tuple(tail_of))
    return Source(reader, tensors, [None] * len(tensors))


def _sampled(teacher: Sampled, jobs: Sequence[Job], vocabulary: VocabularyMap | None) -> Source:
    for job in jobs:
        if job.temperature != teacher.temperature:
            raise _unknown_temperature("a Sampled", job.temperature, [teacher.temperature])
    ids = _flat(teacher.indices, 1)
    tensors = [ids if vocabulary is None else vocabulary.places("teacher", ids), _flat(teacher.weights, 1)]
    tensors += [] if teacher.entropy is None else [_flat(teacher.entropy, 0)]
    return Source(Samples(), tensors, [None] * len(tensors))


def _unknown_temperature(teacher: str, temperature: float, known: list[float]) -> TeacherError:
    listed = ", ".join(f"{value:g}" for value in sorted(known))
    return TeacherError(
        f"temperature {temperature:g} came with {teacher} teacher that was captured at {listed}; train at a captured "
        "temperature, or capture the teacher at this one too"
    )


def _flat(tensor: Tensor, trailing: int) -> Tensor:
    """Return a teacher's tensor with its leading dimensions as one, (N, ...); teachers are constants."""
    return tensor.detach().reshape(-1, *tensor.shape[tensor.dim() - trailing :])
