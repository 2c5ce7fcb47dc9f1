"""Checks that look at values before the loop: weights, labels, and the ids of teachers.

Done on the CPU, and elsewhere when `validate=True` allows waiting for the device. Rows of weight 0 are never looked at.
Logits are not checked here: see `_diagnosis`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.distributions import Distribution, Labels, Mixture, Sampled, TopK
from tutelage.errors import LabelError, TeacherError, VocabularyError, WeightError
from tutelage.execution._plan import Plan

_SUM_TOLERANCE = 1e-3
"""How far probabilities may sum from 1: float16 and float32 rounding stay well below, mistakes well above."""


def check_values(plan: Plan) -> None:
    """Raise a named error for weights, labels and teacher ids that cannot be."""
    if plan.weights is not None:
        _check_weights(plan.weights)
    for j, job in enumerate(plan.jobs):
        active = slice(None) if plan.weights is None else (plan.weights[j] != 0).nonzero().squeeze(1)
        if job.divergence.needs_labels and plan.labels is not None and plan.label_places is not None:
            _check_labels(plan.label_places, active, plan.columns, "is not among the compared columns", plan.labels)
        _check_teacher(plan, job.teacher, plan.sources[plan.spec.terms[j].teacher].tensors, active)


def _check_weights(weights: Tensor) -> None:
    bad = ~(weights.isfinite() & (weights >= 0))
    if bool(bad.any()):
        j, row = (int(place) for place in bad.nonzero()[0])
        raise WeightError(
            f"token_weights contain {float(weights[j, row]):g} (row {row}); weights must be finite and >= 0"
        )


def _check_teacher(plan: Plan, teacher: Distribution, tensors: list[Tensor], active: Tensor | slice) -> None:
    first = teacher.parts[0] if isinstance(teacher, Mixture) else teacher
    if isinstance(first, Labels):
        size = plan.student.vocabulary_size
        _check_labels(tensors[0], active, size, "is not an id of the student's vocabulary", tensors[0])
    elif isinstance(first, TopK):
        ids = _rows(first.indices, active)
        _check_ids("TopK", ids, plan)
        mapped = _rows(tensors[0], active) < plan.columns
        _check_kept(ids, mapped, renormalizes=first.tail == "renormalize")
        for i, part in enumerate(teacher.parts if isinstance(teacher, Mixture) else [first]):
            assert isinstance(part, TopK)
            if not torch.equal(_rows(part.indices, active), ids):
                raise TeacherError(f"Mixture part {i} keeps other ids than part 0; TopK parts must share their indices")
            _check_empty_tails(part, active, mapped, plan)
    elif isinstance(first, Sampled):
        _check_ids("Sampled", _rows(first.indices, active), plan)
        _check_samples(_rows(tensors[0], active), _rows(tensors[1], active), plan)


def _rows(tensor: Tensor, active: Tensor | slice) -> Tensor:
    """Return the rows that count of a tensor (..., K), or of one that is flat already."""
    return tensor.reshape(-1, tensor.shape[-1])[active]


def _check_labels(places: Tensor, active: Tensor | slice, size: int, what: str, labels: Tensor) -> None:
    counting = places[active]
    outside = (counting < 0) | (counting >= size)
    if bool(outside.any()):
        first = int(outside.nonzero()[0])
        row = first if isinstance(active, slice) else int(active[first])
        label = int(labels[row])
        raise LabelError(
            f"label {label} in row {row} {what}: expected 0 to {size - 1}; give rows without a label the token weight "
            "0 in the terms that need one"
            + (
                f". No label is ignored, {label} neither. With a module such as DistillationLoss, pass the rows that "
                f"have a label: keep = labels != {label}; loss(student[keep], teacher[keep], labels[keep]). With "
                f"divergence or an Objective, pass token_weights=labels != {label}"
                if label < 0
                else ""
            )
        )


def _check_ids(name: str, ids: Tensor, plan: Plan) -> None:
    # A vocabulary map knows which teacher ids it compares, but not how many more the teacher has.
    size = plan.student.vocabulary_size if plan.vocabulary is None else None
    outside = (ids < 0) if size is None else (ids < 0) | (ids >= size)
    if bool(outside.any()):
        expected = "ids >= 0" if size is None else f"ids from 0 to {size - 1}"
        raise TeacherError(
            f"{name}.indices contain {int(ids[outside][0])}; expected {expected}. Where the teacher's vocabulary is "
            "wider than the student's, pass a VocabularyMap"
        )


def _check_kept(ids: Tensor, mapped: Tensor, renormalizes: bool) -> None:
    if renormalizes and len(ids) > 0 and int(mapped.sum(-1).max()) == 1:
        raise VocabularyError(
            "every row of TopK(tail='renormalize') keeps a single id that the vocabulary map compares, so that the "
            "value is constant and its gradient 0; capture the teacher over the shared columns, or use tail='bucket'"
        )
    if not bool(mapped.any(-1).all()):
        raise VocabularyError(
            f"{int((~mapped.any(-1)).sum())} rows of TopK keep no id that the vocabulary map compares; capture the "
            "teacher over the shared columns"
        )
    ordered = ids.sort(-1).values
    repeated = ordered[:, 1:] == ordered[:, :-1]
    if bool(repeated.any()):
        again = int(ordered[:, 1:][repeated][0])
        raise TeacherError(f"TopK.indices repeat an id in a row: {again} stands there twice; expected distinct ids")


def _check_empty_tails(teacher: TopK, active: Tensor | slice, mapped: Tensor, plan: Plan) -> None:
    """Raise `TeacherError` if a tail has mass where all compared columns are kept, so that there is no place for it."""
    full = mapped.sum(-1) == plan.columns
    if teacher.tail != "bucket" or not bool(full.any()):
        return
    kept = _rows(teacher.logits, active).double().masked_fill(~mapped, -torch.inf)
    for temperature, tail in teacher.log_tails.items():
        others = tail.reshape(-1)[active].double()
        share = (others - torch.logaddexp((kept / temperature).logsumexp(-1), others)).exp()
        if bool((full & (share > _SUM_TOLERANCE)).any()):
            raise TeacherError(
                f"TopK keeps all {plan.columns} ids, yet log_tails[{temperature:g}] leaves up to "
                f"{float(share[full].max()):.3g} of the mass to others; expected -inf"
            )


def _check_samples(places: Tensor, weights: Tensor, plan: Plan) -> None:
    if plan.vocabulary is not None and bool((places >= plan.columns).any()):
        raise VocabularyError(
            "Sampled.indices contain ids that the vocabulary map leaves out; sample over the shared columns"
        )
    total = weights.sum(-1)
    wrong = ~((total - 1).abs() <= _SUM_TOLERANCE) | (weights < 0).any(-1)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise TeacherError(
            f"Sampled.weights sum to {float(total[row]):.6g} in a row, with a least weight of "
            f"{float(weights[row].min()):.3g}; expected weights >= 0 that sum to 1: counts divided by the number of "
            "draws"
        )
