"""Laws on the value of a row: when it is 0, what leaves it as it is, and what temperature does to it."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

import tutelage as tl
from laws.subjects import Subject, gradient_of, law, normal

# Seeds stand for logits; 2 outcomes are the fewest there are, 40 more than a vector register holds.
SEEDS, COLUMNS = st.integers(0, 10_000), st.integers(2, 40)
TEMPERATURES = st.sampled_from([0.5, 1.0, 3.0])


@law
def equal_sides_are_at_zero(subject: Subject) -> None:
    # All dtypes, and outcomes from few to more than a block of vectorised code takes at once.
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        for columns in (max(2, subject.divergence.least_outcomes), 5, 1000, 4099):
            for temperature in (1.0, 2.0, 0.7):
                logits = normal(columns, 3, columns, spread=4.0, dtype=dtype)
                value = subject.value(logits, logits.clone(), temperature=temperature)
                assert value.item() == 0.0, f"{value.item()} with {columns} outcomes at {temperature} in {dtype}"


@law
def the_gradient_at_equal_sides_is_zero(subject: Subject) -> None:
    logits = normal(0, 4, 50).requires_grad_()
    (gradient,) = gradient_of(subject.value(logits, logits.detach().clone(), temperature=2.0), logits)
    assert gradient.abs().max() < 1e-14


@law
def it_is_positive_unless_the_sides_are_equal(subject: Subject) -> None:
    @given(SEEDS, st.integers(3, 40), st.sampled_from([1e-3, 0.1, 3.0]), TEMPERATURES)
    def holds(seed: int, columns: int, size: float, temperature: float) -> None:
        teacher = normal(seed, 4, columns)
        student = teacher.clone()
        # One outcome alone, for a shift or a stretch of all of them is no difference to some.
        student[:, seed % columns] += size
        assert subject.value(student, teacher, temperature=temperature).item() > 0

    holds()


@law
def it_is_never_negative_but_for_rounding(subject: Subject) -> None:
    @given(SEEDS, st.integers(2, 3000), st.sampled_from([1e-6, 1e-4, 1e-2, 1.0, 30.0]))
    def holds(seed: int, columns: int, size: float) -> None:
        columns = max(columns, subject.divergence.least_outcomes)
        teacher = normal(seed, 4, columns, dtype=torch.float32)
        student = teacher + normal(seed + 1, 4, columns, spread=size, dtype=torch.float32)
        # The rounding of probabilities that sum to 1; decoupled KD multiplies by 8.
        assert subject.value(student, teacher).item() >= -8 * torch.finfo(torch.float32).eps
        assert subject.value(student.double(), teacher.double()).item() >= -8 * torch.finfo(torch.float64).eps

    holds()


@law
def permuting_the_vocabulary_permutes_the_gradient(subject: Subject) -> None:
    @given(SEEDS, COLUMNS)
    def holds(seed: int, columns: int) -> None:
        columns = max(columns, subject.divergence.least_outcomes)
        student, teacher = normal(seed, 5, columns).requires_grad_(), normal(seed + 1, 5, columns)
        order = torch.randperm(columns, generator=torch.Generator().manual_seed(seed))
        labels = order[:5] if columns >= 5 else order[:1].expand(5)
        places = order.argsort()[labels]
        value = subject.value(student, teacher, labels)
        permuted = subject.value(student[:, order], teacher[:, order], places)
        torch.testing.assert_close(permuted, value, rtol=1e-12, atol=1e-14)
        for one, other in zip(gradient_of(permuted, student), gradient_of(value, student), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)

    holds()


@law
def shifting_a_row_changes_nothing(subject: Subject) -> None:
    @given(SEEDS, COLUMNS, st.floats(-300, 300), TEMPERATURES)
    def holds(seed: int, columns: int, shift: float, temperature: float) -> None:
        columns = max(columns, subject.divergence.least_outcomes)
        student, teacher = normal(seed, 3, columns), normal(seed + 1, 3, columns)
        value = subject.value(student, teacher, temperature=temperature)
        shifts = torch.tensor([[shift], [1.0], [-50.0]], dtype=torch.float64)
        shifted = subject.value(student + shifts, teacher - 2 * shifts, temperature=temperature)
        torch.testing.assert_close(shifted, value, rtol=1e-9, atol=1e-11)

    holds()


@law
def a_large_shift_costs_float32_no_digits(subject: Subject) -> None:
    # Multiples of 1/256 up to 16: adding 4,096 is exact in float32, so that nothing but the arithmetic can lose digits.
    student, teacher = (torch.round(256 * normal(seed, 5, 37)) / 256 for seed in (0, 1))
    student, teacher = student.float().requires_grad_(), teacher.float()
    for temperature in (1.0, 3.0):
        value = subject.value(student, teacher, temperature=temperature)
        shifted = subject.value(student + 4096, teacher - 4096, temperature=temperature)
        torch.testing.assert_close(shifted, value, rtol=2e-6, atol=1e-7)
        (gradient,), (wanted,) = gradient_of(shifted, student), gradient_of(value, student)
        assert (gradient - wanted).norm() <= 5e-6 * wanted.norm()


@law
def temperature_divides_the_logits(subject: Subject) -> None:
    student, teacher = normal(0, 6, 20).requires_grad_(), normal(1, 6, 20)
    for temperature in (0.5, 2.0, 10.0):
        softened = subject.value(student, teacher, temperature=temperature)
        divided = subject.value(student / temperature, teacher / temperature)
        torch.testing.assert_close(softened, divided, rtol=1e-10, atol=1e-14)
        for one, other in zip(gradient_of(softened, student), gradient_of(divided, student), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-14)


@law
def a_term_multiplies_by_the_power_it_declares(subject: Subject) -> None:
    student, teacher, labels = normal(0, 6, 20).requires_grad_(), normal(1, 6, 20), torch.arange(6)
    for temperature in (0.5, 2.0, 4.0):
        plain = subject.value(student, teacher, labels, temperature=temperature)
        term = tl.Term(subject.divergence, temperature=temperature, weight=0.25)
        unscaled = tl.Term(subject.divergence, temperature=temperature, scale_by_temperature=False)
        teachers = {"teacher": teacher, "labels": tl.Labels(labels)}
        out = tl.Objective({"term": term})(student, teachers)
        power = {"total_variation": 1, "logit_mse": 0, "logit_cosine": 0}.get(subject.kind, 2)
        torch.testing.assert_close(out.loss, 0.25 * temperature**power * plain, rtol=1e-12, atol=0)
        torch.testing.assert_close(out.parts["term"], plain.detach(), rtol=1e-12, atol=0)
        (gradient,) = gradient_of(out.loss, student)
        (expected,) = gradient_of(0.25 * temperature**power * plain, student)
        torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=1e-16)
        torch.testing.assert_close(tl.Objective({"term": unscaled})(student, teachers).loss, plain, rtol=1e-12, atol=0)


@law
def the_scaled_gradient_stays_as_large_when_t_grows(subject: Subject) -> None:
    student, teacher = normal(0, 8, 30).requires_grad_(), normal(1, 8, 30)
    teachers = {"teacher": teacher, "labels": tl.Labels(torch.arange(8))}
    norms = []
    # From a temperature where softmax is nearly linear to one ten times as high.
    for temperature in (100.0, 1000.0):
        out = tl.Objective({"term": tl.Term(subject.divergence, temperature=temperature)})(student, teachers)
        norms.append(float(gradient_of(out.loss, student)[0].norm()))
    assert 0.8 < norms[1] / norms[0] < 1.25
    assert norms[1] > 1e-4
