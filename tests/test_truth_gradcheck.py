"""Gradients against differences of values, in float64: no reference is in between that could share a mistake."""

from __future__ import annotations

import pytest
import torch

import tutelage as tl
from reference.cases import TEACHERS, VARIANTS, build, combinations, make_student, make_teacher, students_of

# The head of the adaptive KL is weighted by factors that carry no gradient, so differences of values are not its
# gradient: test_truth compares it with a reference that detaches them.
COMBINATIONS = [(kind, teacher) for kind, teacher in combinations() if kind != "adaptive_kl"]


def _students(kind, teacher):
    """Return all kinds of student for the forward KL, and one in turn for the others: test_truth has all of each."""
    students = students_of(kind)
    turn = list(tl.divergences.ALL).index(kind) + list(TEACHERS).index(teacher)
    return students if kind == "forward_kl" else [students[turn % len(students)]]


# As few numbers as show every kind of outcome: three kept ids and more that share a bucket, a row that does not count.
ROWS, COLUMNS, KEPT, WIDTH = 3, 7, 3, 4


def check(kind, student_kind, teacher_kind, generator, temperature=2.0, reduction="sum", **parameters):
    student = make_student(student_kind, generator, ROWS, COLUMNS, width=WIDTH)
    teacher = make_teacher(teacher_kind, generator, ROWS, COLUMNS, kept=KEPT).at(temperature)
    divergence, labels = build(kind, **parameters), torch.tensor([2, 0, 5])
    weights = torch.tensor([1.0, 0.0, 0.4], dtype=torch.float64)
    if kind == "dist":
        weights[1] = 2.0  # two rows alone always correlate by 1 or -1

    def value(*inputs):
        if student_kind == "head":
            given = tl.HeadStates(*inputs, student.given.softcap, student.given.scale)
        elif student_kind == "capped_logits":
            given = tl.Logits(*inputs, student.given.softcap, student.given.scale)
        else:
            (given,) = inputs
        return tl.divergence(
            given,
            teacher,
            divergence,
            temperature=temperature,
            token_weights=weights,
            labels=labels,
            reduction=reduction,
            backend="torch",
        )

    # Of a head's many numbers a random mixture is checked, of logits each one.
    fast = student_kind == "head"
    assert torch.autograd.gradcheck(value, student.inputs, eps=1e-6, atol=1e-7, rtol=1e-5, fast_mode=fast)


@pytest.mark.parametrize(
    ("kind", "teacher", "student"),
    [(kind, teacher, student) for kind, teacher in COMBINATIONS for student in _students(kind, teacher)],
)
def test_combinations(kind, teacher, student, generator):
    check(kind, student, teacher, generator)


@pytest.mark.parametrize(
    ("kind", "teacher", "place"),
    [
        (kind, teacher, place)
        for kind, teacher in COMBINATIONS
        if teacher in ("logits", "top_k", "smoothed_labels")
        for place in range(len(VARIANTS.get(kind, [])))
    ],
)
def test_parameters(kind, teacher, place, generator):
    check(kind, "logits", teacher, generator, temperature=0.5, **VARIANTS[kind][place])


@pytest.mark.parametrize("kind", [kind for kind in tl.divergences.ALL if kind not in ("adaptive_kl", "dist")])
def test_rows(kind, generator):
    check(kind, "head", "logits", generator, reduction="none")
