"""Laws on rows: what is masked does not exist, and how a batch is cut changes nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tutelage as tl
from laws.subjects import Subject, gradient_of, law, normal
from laws.values import SEEDS
from tutelage.errors import InputError

JUNK = torch.nan


@law
def masked_rows_are_deleted_rows(subject: Subject) -> None:
    @given(SEEDS, st.lists(st.booleans(), min_size=2, max_size=9).filter(any))
    def holds(seed: int, kept: list[bool]) -> None:
        keep, rows = torch.tensor(kept), len(kept)
        student, teacher, labels = normal(seed, rows, 12), normal(seed + 1, rows, 12), torch.arange(rows)
        student[~keep], teacher[~keep], labels[~keep] = JUNK, JUNK, -100
        weights = torch.where(keep, torch.rand(rows, generator=torch.Generator().manual_seed(seed)) + 0.1, 0.0)
        masked, deleted = student.clone().requires_grad_(), student[keep].requires_grad_()
        value = subject.value(masked, teacher, labels, token_weights=weights)
        expected = subject.value(deleted, teacher[keep], labels[keep], token_weights=weights[keep])
        torch.testing.assert_close(value, expected, rtol=1e-13, atol=0)
        gradient, wanted = gradient_of(value, masked)[0], gradient_of(expected, deleted)[0]
        torch.testing.assert_close(gradient[keep], wanted, rtol=1e-12, atol=1e-16)
        assert gradient[~keep].count_nonzero() == 0

    holds()


@law
def with_all_rows_masked_it_is_zero_with_a_graph(subject: Subject) -> None:
    student = torch.full((3, 4, 7), JUNK, requires_grad=True)
    teacher, labels = torch.full((3, 4, 7), JUNK), torch.full((3, 4), -100)
    for reduction in ("mean", "sum"):
        value = subject.value(student, teacher, labels, token_weights=torch.zeros(3, 4), reduction=reduction)
        assert value.item() == 0.0
        assert value.requires_grad
        (gradient,) = gradient_of(value, student)
        assert gradient.shape == student.shape
        assert gradient.count_nonzero() == 0


@law
def junk_in_a_row_that_counts_is_an_error(subject: Subject) -> None:
    for side in (0, 1):
        sides = [normal(0, 3, 6), normal(1, 3, 6)]
        sides[side][1, 2] = JUNK
        with pytest.raises(InputError, match="NaN"):
            subject.value(*sides)


@law
def the_byte_budget_changes_nothing(subject: Subject) -> None:
    @given(SEEDS, st.integers(1, 23), st.integers(1, 8))
    def holds(seed: int, rows: int, rows_of_a_block: int) -> None:
        student, teacher = normal(seed, rows, 10).requires_grad_(), normal(seed + 1, rows, 10)
        weights = torch.rand(rows, generator=torch.Generator().manual_seed(seed)) > 0.3
        weights[0] = True
        whole = subject.value(student, teacher, token_weights=weights)
        with tl.execution.byte_budget(rows_of_a_block * 10 * 8):
            cut = subject.value(student, teacher, token_weights=weights)
            gradient = gradient_of(cut, student)[0]
        torch.testing.assert_close(cut, whole, rtol=1e-13, atol=1e-15)
        torch.testing.assert_close(gradient, gradient_of(whole, student)[0], rtol=1e-13, atol=1e-16)

    holds()


@law
def a_batch_is_the_weighted_mean_of_its_rows(subject: Subject) -> None:
    student, teacher, labels = normal(0, 7, 11).requires_grad_(), normal(1, 7, 11), torch.arange(7)
    weights = torch.tensor([1.0, 0.5, 0.0, 2.0, 1.0, 0.0, 0.25], dtype=torch.float64)
    rows = [subject.value(student[i : i + 1], teacher[i : i + 1], labels[i : i + 1]) for i in range(7)]
    total = sum(weight * row for weight, row in zip(weights, rows, strict=True))
    for reduction, expected in (("sum", total), ("mean", total / weights.sum())):
        value = subject.value(student, teacher, labels, token_weights=weights, reduction=reduction)
        torch.testing.assert_close(value, expected, rtol=1e-13, atol=0)
        (gradient,), (wanted,) = gradient_of(value, student), torch.autograd.grad(expected, student, retain_graph=True)
        torch.testing.assert_close(gradient, wanted, rtol=1e-12, atol=1e-16)


@law
def a_column_of_weights_scales_each_row(subject: Subject) -> None:
    student, teacher, labels = normal(0, 7, 11), normal(1, 7, 11), torch.arange(7)
    weights = torch.tensor([1.0, 0.5, 0.0, 2.0, 1.0, 0.0, 0.25], dtype=torch.float64)
    plain = subject.value(student, teacher, labels, reduction="none")
    weighted = subject.value(student, teacher, labels, token_weights=weights, reduction="none")
    assert plain.shape == weighted.shape == (7,)
    torch.testing.assert_close(weighted, weights * plain, rtol=1e-13, atol=0)
    torch.testing.assert_close(plain.mean(), subject.value(student, teacher, labels), rtol=1e-13, atol=0)


@law
def ones_as_weights_are_no_weights(subject: Subject) -> None:
    student, teacher, labels = normal(0, 7, 11), normal(1, 7, 11), torch.arange(7)
    plain = subject.value(student, teacher, labels)
    for ones in (torch.ones(7), torch.ones(7, dtype=torch.bool), torch.full((7,), 3, dtype=torch.int64)):
        weighted = subject.value(student, teacher, labels, token_weights=ones)
        torch.testing.assert_close(weighted, plain, rtol=1e-13, atol=0)
