"""Checks that look at values: done on the CPU, and elsewhere when `validate=True` allows waiting for the device.

Rows of weight 0 are never looked at. Integers and weights are checked before the loop. Logits are not: whatever is
wrong with them ends in a value that is not finite, and is explained then, so good input pays nothing.
"""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from tutelage.distributions import Distribution, Labels, Mixture, Sampled, TopK
from tutelage.divergences import PerToken
from tutelage.errors import (
    InfiniteDivergenceError,
    LabelError,
    NonFiniteError,
    TeacherError,
    VocabularyError,
    WeightError,
)
from tutelage.execution._block import BlockInputs, BlockSpec
from tutelage.execution._plan import Plan
from tutelage.execution._readers import Dense, OneHot, Samples, SmoothedLabels, Sparse

_SUM_TOLERANCE = 1e-3
"""How far probabilities may sum from 1: float16 and float32 rounding stay well below, mistakes well above."""


def check_values(plan: Plan) -> None:
    """Raise a named error for weights, labels and teacher ids that cannot be."""
    if plan.weights is not None:
        bad = ~(plan.weights.isfinite() & (plan.weights >= 0))
        if bool(bad.any()):
            row = int(bad.any(0).nonzero()[0])
            value = float(plan.weights[:, row][bad[:, row]][0])
            raise WeightError(f"token_weights contain {value:g} (row {row}); weights must be finite and >= 0")
    for j, job in enumerate(plan.jobs):
        active = None if plan.weights is None else plan.weights[j] != 0
        if job.divergence.needs_labels and plan.labels is not None:
            _check_label_range(plan.labels, plan.columns, active, "is outside the compared columns")
        _check_teacher(plan, job.teacher, plan.spec.terms[j].teacher, active)


def _check_teacher(plan: Plan, teacher: Distribution, place: int, active: Tensor | None) -> None:
    tensors = plan.sources[place].tensors
    first = teacher.parts[0] if isinstance(teacher, Mixture) else teacher
    if isinstance(first, Labels):
        _check_label_range(tensors[0], plan.student.vocabulary_size, active, "is not an id of the student's vocabulary")
    if isinstance(first, (TopK, Sampled)):
        _check_ids(
            plan,
            first,
            _active(first.indices.flatten(0, -2) if first.indices.dim() > 1 else first.indices[None], active),
        )
    if isinstance(first, TopK):
        _check_kept(plan, first, _active(tensors[0], active))
        if isinstance(teacher, Mixture):
            for i, part in enumerate(teacher.parts):
                assert isinstance(part, TopK)
                same = part.indices is first.indices or torch.equal(
                    _active(part.indices.reshape(tensors[0].shape), active),
                    _active(first.indices.reshape(tensors[0].shape), active),
                )
                if not same:
                    raise TeacherError(
                        f"Mixture part {i} keeps other ids than part 0; TopK parts must share their indices"
                    )
    if isinstance(first, Sampled):
        _check_samples(plan, _active(tensors[0], active), _active(tensors[1], active))


def _active(tensor: Tensor, active: Tensor | None) -> Tensor:
    return tensor if active is None else tensor[active]


def _check_label_range(labels: Tensor, size: int, active: Tensor | None, what: str) -> None:
    outside = (labels < 0) | (labels >= size)
    if active is not None:
        outside &= active
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise LabelError(
            f"label {int(labels[row])} in row {row} {what}: expected 0 to {size - 1}; give rows without a label "
            "the token "
            "weight 0 in the terms that need one"
        )


def _check_ids(plan: Plan, teacher: TopK | Sampled, ids: Tensor) -> None:
    name = type(teacher).__name__
    if ids.numel() == 0:
        return
    low, high = int(ids.min()), int(ids.max())
    size = None if plan.vocabulary is not None else plan.student.vocabulary_size
    if low < 0 or (size is not None and high >= size):
        raise TeacherError(
            f"{name}.indices contain {low if low < 0 else high}; expected ids from 0 to "
            f"{'the last of the teacher' if size is None else size - 1}. If the teacher's vocabulary is wider, "
            "pass a VocabularyMap"
        )


def _check_kept(plan: Plan, teacher: TopK, places: Tensor) -> None:
    inside = places < plan.columns
    if plan.vocabulary is not None:
        empty = ~inside.any(-1)
        if bool(empty.any()):
            raise VocabularyError(
                f"{int(empty.sum())} rows of TopK keep no id that the vocabulary map compares; capture the teacher "
                "over the "
                "shared columns"
            )
    ordered = places.sort(-1).values
    repeated = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] < plan.columns)
    if bool(repeated.any()):
        row, column = (int(index) for index in repeated.nonzero()[0])
        raise TeacherError(
            f"TopK.indices repeat an id in a row (place {int(ordered[row, column])}); expected distinct ids"
        )
    if teacher.tail == "bucket" and plan.vocabulary is None and places.shape[1] == plan.columns:
        for temperature, tail in teacher.log_tails.items():
            kept = (teacher.logits.double() / temperature).logsumexp(-1)
            share = (tail.double() - torch.logaddexp(kept, tail.double())).exp()
            if bool((share > _SUM_TOLERANCE).any()):
                raise TeacherError(
                    f"TopK keeps all {plan.columns} ids, yet log_tails[{temperature:g}] leaves up to "
                    f"{float(share.max()):.3g} of "
                    "the mass to others; expected -inf"
                )


def _check_samples(plan: Plan, places: Tensor, weights: Tensor) -> None:
    if plan.vocabulary is not None and bool((places >= plan.columns).any()):
        raise VocabularyError(
            "Sampled.indices contain ids that the vocabulary map leaves out; sample over the shared columns"
        )
    off = ~((weights.sum(-1) - 1).abs() <= _SUM_TOLERANCE) | (weights < 0).any(-1)
    if bool(off.any()):
        row = int(off.nonzero()[0])
        raise TeacherError(
            f"Sampled.weights sum to {float(weights[row].sum()):.6g} in a row (least weight "
            f"{float(weights[row].min()):.3g}); "
            "expected weights >= 0 that sum to 1: counts divided by the number of draws"
        )


def explain_non_finite(spec: BlockSpec, inputs: BlockInputs, values: Tensor, rows: slice | Tensor) -> NoReturn:
    """Raise the error that says why the values of a block (J, n) are not all finite."""
    term_index, inner = (int(index) for index in (~values.isfinite()).nonzero()[0])
    term = spec.terms[term_index]
    row = rows.start + inner if isinstance(rows, slice) else int(rows[inner])
    where = f"in row {row} ({term.divergence.kind})"
    student = spec.columns.take(inputs.student, inputs.student_ids) if term.shared else inputs.student
    _explain_logits("student", spec.student.apply(student[inner].to(spec.dtype)), term.divergence, where)
    reader = spec.readers[term.teacher]
    tensors = [tensor[inner] for tensor in inputs.teachers[term.teacher]]
    if isinstance(reader, Dense):
        for raw, transform in zip(tensors, reader.transforms, strict=True):
            compared = reader.columns.take(raw[None], inputs.teacher_ids)[0]
            _explain_logits("teacher", transform.apply(compared.to(spec.dtype)), term.divergence, where)
    elif isinstance(reader, Sparse):
        _explain_sparse(tensors[1:], where)
    elif isinstance(reader, Samples) and not all(bool(tensor.isfinite().all()) for tensor in tensors[1:]):
        raise NonFiniteError(f"Sampled holds weights or an entropy that are not finite {where}; capture that row again")
    else:
        assert isinstance(reader, (OneHot, SmoothedLabels, Samples))
    raise InfiniteDivergenceError(
        f"the divergence is infinite {where}: one side has a logit of -inf where the other has mass. Use a "
        "divergence that "
        "is bounded (jensen_shannon, skew_forward_kl, hellinger), or leave out what a side excludes with a "
        "VocabularyMap"
    )


def _explain_logits(side: str, logits: Tensor, divergence: object, where: str) -> None:
    for name, bad in (("NaN", logits.isnan()), ("+inf", logits == torch.inf)):
        if bool(bad.any()):
            raise NonFiniteError(
                f"the {side}'s logits contain {name} {where}, column {int(bad.nonzero()[0])}; the {side} is broken "
                "or has "
                "overflowed (float16 ends at 65,504: use bfloat16 or float32)"
            )
    if bool((logits == -torch.inf).all()):
        raise NonFiniteError(
            f"all of the {side}'s logits are -inf {where}; a distribution needs at least one finite logit"
        )
    if isinstance(divergence, PerToken) and divergence.refuses_minus_inf and bool((logits == -torch.inf).any()):
        raise NonFiniteError(
            f"the {side}'s logits contain -inf {where}, column {int((logits == -torch.inf).nonzero()[0])}: this "
            "divergence "
            "compares the logits themselves; leave out excluded columns with a VocabularyMap"
        )


def _explain_sparse(tensors: list[Tensor], where: str) -> None:
    for tensor in tensors:
        if bool(tensor.isnan().any()) or bool((tensor == torch.inf).any()):
            raise NonFiniteError(
                f"TopK holds logits or log_tails that are NaN or +inf {where}; if it came from from_log_probs, its "
                "probabilities sum to more than 1"
            )
    if all(bool((tensor == -torch.inf).all()) for tensor in tensors):
        raise NonFiniteError(f"all logits and tails of TopK are -inf {where}; a distribution needs some mass")
