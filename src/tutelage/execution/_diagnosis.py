"""Why a value is not finite, in words.

Logits are not checked before the loop: whatever is wrong with them ends in a value that is not finite. So good input
pays nothing, and bad input is looked at again here.
"""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from tutelage.divergences import Divergence, PerToken
from tutelage.errors import InfiniteDivergenceError, NonFiniteError
from tutelage.execution._block import BlockInputs, BlockSpec
from tutelage.execution._readers import Dense, Samples, Sparse


def explain_non_finite(spec: BlockSpec, inputs: BlockInputs, values: Tensor, rows: slice | Tensor) -> NoReturn:
    """Raise the error that says why the values of a block (J, n) are not all finite."""
    term_index, inner = (int(index) for index in (~values.isfinite()).nonzero()[0])
    term = spec.terms[term_index]
    row = rows.start + inner if isinstance(rows, slice) else int(rows[inner])
    where = f"in row {row} ({term.divergence.kind})"
    student = spec.columns.take(inputs.student, inputs.student_ids) if term.shared else inputs.student
    _explain_logits("student", spec.student.apply(student[inner].to(spec.dtype)), term.divergence, where)
    excludes = bool((student[inner] == -torch.inf).any())
    reader = spec.readers[term.teacher]
    tensors = [tensor[inner] for tensor in inputs.teachers[term.teacher]]
    if isinstance(reader, Dense):
        for raw, transform in zip(tensors, reader.transforms, strict=True):
            compared = reader.columns.take(raw[None], inputs.teacher_ids)[0]
            _explain_logits("teacher", transform.apply(compared.to(spec.dtype)), term.divergence, where)
            excludes |= bool((compared == -torch.inf).any())
    elif isinstance(reader, Sparse):
        _explain_sparse(tensors[1:], where)
        excludes |= any(bool((tensor == -torch.inf).any()) for tensor in tensors[1:])
    elif isinstance(reader, Samples) and not all(bool(tensor.isfinite().all()) for tensor in tensors[1:]):
        raise NonFiniteError(f"Sampled holds weights or an entropy that are not finite {where}; capture that row again")
    if not excludes:
        largest = float(student[inner].abs().max())
        raise NonFiniteError(
            f"the divergence overflows {where}: the largest of the student's logits is {largest:g} in size; scale the "
            "logits, or choose less extreme parameters"
        )
    raise InfiniteDivergenceError(
        f"the divergence is infinite {where}: one side has a logit of -inf where the other has mass. Use a divergence "
        "that is bounded (jensen_shannon, skew_forward_kl, hellinger), or leave out what a side excludes with a "
        "VocabularyMap"
    )


def _explain_logits(side: str, logits: Tensor, divergence: Divergence, where: str) -> None:
    for name, bad in (("NaN", logits.isnan()), ("+inf", logits == torch.inf)):
        if bool(bad.any()):
            raise NonFiniteError(
                f"the {side}'s logits contain {name} {where}, column {int(bad.nonzero()[0])}; the {side} is broken or "
                "has overflowed (float16 ends at 65,504: use bfloat16 or float32)"
            )
    if bool((logits == -torch.inf).all()):
        raise NonFiniteError(
            f"all of the {side}'s logits are -inf {where}; a distribution needs at least one finite logit"
        )
    if isinstance(divergence, PerToken) and divergence.refuses_minus_inf and bool((logits == -torch.inf).any()):
        raise NonFiniteError(
            f"the {side}'s logits contain -inf {where}, column {int((logits == -torch.inf).nonzero()[0])}: this "
            "divergence compares the logits themselves; leave out excluded columns with a VocabularyMap"
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
