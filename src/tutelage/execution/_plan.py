"""From a student and its jobs to a plan: rows flattened, teachers as readers and sources, shapes checked.

Legend: N rows, V compared columns, J terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.distributions import Distribution, HeadStates, Labels, Logits
from tutelage.errors import DeviceError, DtypeError, LabelError, ShapeError, VocabularyError
from tutelage.execution._block import BlockSpec, TermSpec
from tutelage.execution._budget import exact_dtype
from tutelage.execution._compatibility import check_compatible, check_outcomes
from tutelage.execution._readers import Columns, Transform
from tutelage.execution._sources import Job, Source, make_source
from tutelage.vocabulary import VocabularyMap, check_vocabulary


@dataclass(frozen=True, eq=False)
class Plan:
    """All that is known about one call before a row of it is computed."""

    student: Logits | HeadStates
    jobs: list[Job]
    spec: BlockSpec
    sources: list[Source]
    temperatures: tuple[float, ...]
    weights: Tensor | None
    """(J, N), or None if every row counts once for every term."""
    labels: Tensor | None
    """(N,), for divergences that need them."""
    label_places: Tensor | None
    """(N,): the labels as places among the compared columns, V for one that has none."""
    vocabulary: VocabularyMap | None
    student_ids: Tensor | None
    teacher_ids: Tensor | None
    rows: int
    device: torch.device
    dtype: torch.dtype
    """What values are returned in: float32, or float64 if a side is."""
    autocast: torch.dtype | None
    """The dtype in which autocast wants the products of heads, or None outside autocast."""

    @property
    def columns(self) -> int:
        """V, the number of columns that are compared."""
        return self.student.vocabulary_size if self.vocabulary is None else self.vocabulary.length

    def head_columns(self, side: HeadStates) -> int:
        """Return how many rows of a head are used: a map of the first ones spares the rest, unless labels want all."""
        is_student = side is self.student
        ids = self.student_ids if is_student else self.teacher_ids
        needs_all = is_student and not all(term.shared for term in self.spec.terms)
        if self.vocabulary is None or ids is not None or needs_all:
            return side.vocabulary_size
        return self.vocabulary.length


def make_plan(
    student: Distribution, jobs: Sequence[Job], labels: Tensor | None = None, vocabulary: VocabularyMap | None = None
) -> Plan:
    """Check everything that needs no look at values, and lay the call out."""
    check_vocabulary(vocabulary)
    for job in jobs:
        check_compatible(job.divergence, student, job.teacher)
    assert isinstance(student, (Logits, HeadStates))
    if labels is not None:
        check_labels(labels)
    shared = student.vocabulary_size if vocabulary is None else vocabulary.length
    for job in jobs:
        _check_shapes(student, job, labels, vocabulary)
        check_outcomes(job.divergence, student, job.teacher, shared)
    device = _check_devices(student, jobs, labels)

    dtype = _dtype(student, jobs)
    teachers = list({id(job.teacher): job.teacher for job in jobs}.values())
    temperatures = tuple(sorted({float(job.temperature) for job in jobs}))
    sources = [
        make_source(teacher, [job for job in jobs if job.teacher is teacher], temperatures, student, vocabulary)
        for teacher in teachers
    ]
    order = {id(teacher): place for place, teacher in enumerate(teachers)}
    terms = tuple(
        TermSpec(
            job.divergence,
            teacher=order[id(job.teacher)],
            temperature=temperatures.index(float(job.temperature)),
            shared=not isinstance(job.teacher, Labels),
            trains=job.trains,
        )
        for job in jobs
    )
    spec = BlockSpec(
        terms,
        tuple(source.reader for source in sources),
        Transform(student.softcap, student.scale),
        Columns(None if vocabulary is None else vocabulary.length),
        _inner_dtype(dtype, jobs, device),
    )
    needs_labels = any(job.divergence.needs_labels for job in jobs)
    flat_labels = labels.reshape(-1) if needs_labels and labels is not None else None
    return Plan(
        student=student,
        jobs=list(jobs),
        spec=spec,
        sources=sources,
        temperatures=temperatures,
        weights=_weights(jobs, student.batch_shape, spec.dtype, device),
        labels=flat_labels,
        label_places=flat_labels
        if vocabulary is None or flat_labels is None
        else vocabulary.places("student", flat_labels),
        vocabulary=vocabulary,
        student_ids=None if vocabulary is None else vocabulary.ids("student", device),
        teacher_ids=None if vocabulary is None else vocabulary.ids("teacher", device),
        rows=student.batch_shape.numel(),
        device=device,
        dtype=dtype,
        autocast=_autocast_dtype(device.type),
    )


def _autocast_dtype(device: str) -> torch.dtype | None:
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return None


def _dtype(student: Distribution, jobs: Sequence[Job]) -> torch.dtype:
    sides = [student, *(job.teacher for job in jobs)]
    has_double = any(tensor.dtype == torch.float64 for side in sides for _, tensor in side.tensors())
    return torch.float64 if has_double else torch.float32


def _inner_dtype(dtype: torch.dtype, jobs: Sequence[Job], device: torch.device) -> torch.dtype:
    """Return what is computed in: at high temperatures both sides are nearly uniform, and float32 loses their gap."""
    is_hard = any(job.temperature > _HIGH_TEMPERATURE or job.divergence.needs_float64 for job in jobs)
    return exact_dtype(device) if is_hard else dtype


_HIGH_TEMPERATURE = 10.0
"""Above, a divergence of ordinary logits, which shrinks with 1/T², would be off by more than 1e-5 in float32."""


def _weights(jobs: Sequence[Job], batch_shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    if all(job.weights is None for job in jobs):
        return None
    ones = torch.ones(batch_shape, dtype=dtype, device=device)
    return torch.stack([(ones if job.weights is None else job.weights.detach().to(dtype)).reshape(-1) for job in jobs])


def _check_devices(student: Distribution, jobs: Sequence[Job], labels: Tensor | None) -> torch.device:
    name, first = next(iter(student.tensors()))
    named = [(f"student.{name}", tensor) for name, tensor in student.tensors()]
    for job in jobs:
        named += [(f"{type(job.teacher).__name__}.{name}", tensor) for name, tensor in job.teacher.tensors()]
        named += [] if job.weights is None else [("token_weights", job.weights)]
    named += [] if labels is None else [("labels", labels)]
    for other, tensor in named:
        if tensor.device != first.device:
            raise DeviceError(
                f"{other} is on {tensor.device} and student.{name} on {first.device}; move all tensors of one call to "
                "one device"
            )
    return first.device


def _check_shapes(
    student: Logits | HeadStates, job: Job, labels: Tensor | None, vocabulary: VocabularyMap | None
) -> None:
    rows, teacher = student.batch_shape, job.teacher
    if teacher.batch_shape != rows:
        raise ShapeError(
            f"the student has rows {tuple(rows)} and the teacher ({type(teacher).__name__}) "
            f"{tuple(teacher.batch_shape)}; expected the same leading dimensions on both sides"
            f"{_hint_for_one_hot(teacher.batch_shape, student) if isinstance(teacher, Labels) else ''}"
        )
    size = teacher.vocabulary_size
    if vocabulary is not None:
        vocabulary.check("student", student.vocabulary_size)
        if size is not None:
            vocabulary.check("teacher", size)
    elif size is not None and size != student.vocabulary_size:
        raise VocabularyError(
            f"the student has {student.vocabulary_size} outcomes and the teacher {size}; if some of them are the "
            "same, name them: vocabulary=VocabularyMap.prefix(n) where the first n ids agree, or "
            "VocabularyMap(student_ids, teacher_ids)"
        )
    if job.weights is not None:
        check_token_weights(job.weights)
        if job.weights.shape != rows:
            raise ShapeError(
                f"token_weights have shape {tuple(job.weights.shape)}; expected {tuple(rows)}, one per row"
            )
    if job.divergence.needs_labels:
        if labels is None:
            raise LabelError(
                f"{job.divergence.kind} treats the labelled outcome apart; pass labels, int64, shape {tuple(rows)}"
            )
        if labels.shape != rows:
            raise ShapeError(
                f"labels have shape {tuple(labels.shape)}; expected {tuple(rows)}, one per row"
                f"{_hint_for_one_hot(labels.shape, student)}"
            )


def _hint_for_one_hot(shape: torch.Size, student: Logits | HeadStates) -> str:
    is_one_hot = shape == (*student.batch_shape, student.vocabulary_size)
    return ". Labels are class ids: of one-hot rows pass labels.argmax(-1)" if is_one_hot else ""


def check_labels(labels: object) -> None:
    """Raise `DtypeError` unless the labels are a tensor of ids."""
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        raise DtypeError(f"labels are {_type(labels)}; expected torch.int64, a tensor of ids")


def check_token_weights(weights: object) -> None:
    """Raise `DtypeError` unless the weights are a tensor of real numbers or booleans."""
    if not isinstance(weights, Tensor) or weights.dtype.is_complex:
        raise DtypeError(f"token_weights are {_type(weights)}; expected a tensor of numbers or booleans, one per row")


def _type(value: object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
