"""HOW a comparison is computed: one loop over blocks of rows, all terms on each, by a choice of backends.

Read `_functional` (the door), `_autograd` (value and gradient), `_plan` and `_sources` (what arrived), `_loop` (chunks
and blocks), `_block` and `_readers` (the arithmetic of a block), `_backends` (who runs it).
"""

from __future__ import annotations

from tutelage.execution._autograd import weighted_rows, weighted_sum
from tutelage.execution._backends import BACKENDS
from tutelage.execution._budget import byte_budget, exact_dtype
from tutelage.execution._compatibility import refusal, table
from tutelage.execution._functional import as_student, as_teacher, dense_logits, divergence, inverse, sum_of_weights
from tutelage.execution._likeliest import likeliest
from tutelage.execution._sources import Job
from tutelage.execution._suspicion import looks_like_probabilities

__all__ = [
    "BACKENDS",
    "Job",
    "as_student",
    "as_teacher",
    "byte_budget",
    "dense_logits",
    "divergence",
    "exact_dtype",
    "inverse",
    "likeliest",
    "looks_like_probabilities",
    "refusal",
    "sum_of_weights",
    "table",
    "weighted_rows",
    "weighted_sum",
]
