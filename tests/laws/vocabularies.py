"""Laws on outcomes: what is padding does not exist, and looking less closely never shows more."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

import tutelage as tl
from laws.subjects import Subject, gradient_of, law, normal
from laws.values import SEEDS
from reference.teachers import log_tail

# What padded columns of a head hold in practice: the values they were initialised with, huge ones, none at all.
JUNK = (7.0, 1e30, -1e30, torch.inf, -torch.inf, torch.nan)


@law
def padded_columns_do_not_exist(subject: Subject) -> None:
    student, teacher, labels = normal(0, 4, 9), normal(1, 4, 9), torch.arange(4)
    exact = student.clone().requires_grad_()
    expected = subject.value(exact, teacher, labels, temperature=2.0)
    (wanted,) = gradient_of(expected, exact)
    for junk in JUNK:
        # No padding, padding on either side, and more of it on either one.
        for ours, theirs in ((0, 3), (3, 0), (2, 5), (5, 2)):
            padded = torch.nn.functional.pad(student, (0, ours), value=junk).requires_grad_()
            wide = torch.nn.functional.pad(teacher, (0, theirs), value=junk)
            prefix = tl.VocabularyMap.prefix(9)
            value = subject.value(padded, wide, labels, temperature=2.0, vocabulary=prefix)
            torch.testing.assert_close(value, expected, rtol=1e-13, atol=0)
            (gradient,) = gradient_of(value, padded)
            torch.testing.assert_close(gradient[:, :9], wanted, rtol=1e-12, atol=1e-16)
            assert gradient[:, 9:].count_nonzero() == 0


@law
def a_map_by_ids_compares_the_columns_it_names(subject: Subject) -> None:
    student_ids, teacher_ids = torch.tensor([7, 0, 3, 11, 4]), torch.tensor([1, 6, 2, 0, 5])
    shared = tl.VocabularyMap(student_ids, teacher_ids)
    student, teacher = torch.full((5, 12), torch.nan).double(), torch.full((5, 8), torch.nan).double()
    student[:, student_ids], teacher[:, teacher_ids] = normal(0, 5, 5), normal(1, 5, 5)
    student.requires_grad_()
    exact = normal(0, 5, 5).requires_grad_()
    # Labels are ids of the student's vocabulary: row i is labelled with the i-th outcome of the map.
    value = subject.value(student, teacher, student_ids, vocabulary=shared)
    expected = subject.value(exact, normal(1, 5, 5), torch.arange(5))
    torch.testing.assert_close(value, expected, rtol=1e-13, atol=0)
    (gradient,), (wanted,) = gradient_of(value, student), gradient_of(expected, exact)
    torch.testing.assert_close(gradient[:, student_ids], wanted, rtol=1e-12, atol=1e-16)
    assert gradient.count_nonzero() == wanted.count_nonzero()


@law
def top_k_of_all_ids_is_dense(subject: Subject) -> None:
    student, teacher = normal(0, 6, 9).requires_grad_(), normal(1, 6, 9)
    ids = torch.stack([torch.randperm(9, generator=torch.Generator().manual_seed(row)) for row in range(6)])
    for temperature in (1.0, 2.0):
        expected = subject.value(student, teacher, temperature=temperature)
        (wanted,) = gradient_of(expected, student)
        nothing = torch.full((6,), -torch.inf, dtype=torch.float64)
        for top_k in (
            tl.TopK(ids, teacher.gather(1, ids), {temperature: nothing}),
            # Dust that rounding left in the tail.
            tl.TopK(ids, teacher.gather(1, ids), {temperature: torch.full_like(nothing, -40.0)}),
            tl.TopK(ids, teacher.gather(1, ids), tail="renormalize"),
        ):
            value = subject.value(student, top_k, temperature=temperature)
            torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(gradient_of(value, student)[0], wanted, rtol=1e-10, atol=1e-14)


@law
def coarsening_never_increases(subject: Subject) -> None:
    """Putting outcomes together loses information: true of f-divergences, and of alpha-beta at its defaults."""

    @given(SEEDS, st.integers(3, 40), st.floats(0.05, 1), st.sampled_from([0.5, 1.0, 2.0]))
    def holds(seed: int, columns: int, share: float, temperature: float) -> None:
        student, teacher = normal(seed, 4, columns), normal(seed + 1, 4, columns)
        ids = teacher.topk(max(1, int(share * (columns - 1)))).indices
        tails = {temperature: log_tail(teacher, ids, temperature)}
        coarse = subject.value(
            student, tl.TopK(ids, teacher.gather(1, ids), tails), temperature=temperature, reduction="none"
        )
        dense = subject.value(student, teacher, temperature=temperature, reduction="none")
        assert bool((coarse <= dense * (1 + 1e-12)).all())
        assert bool((coarse >= 0).all())

    holds()
