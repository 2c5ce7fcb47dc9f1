"""Laws on gradients: who gets one, of which dtype and size, how often, and that there is no second derivative."""

from __future__ import annotations

import pytest
import torch

import tutelage as tl
from laws.subjects import Subject, gradient_of, law, normal
from tutelage.errors import DoubleBackwardError, InputWarning


@law
def gradients_reach_the_student_only(subject: Subject) -> None:
    student, teacher = normal(0, 3, 6).requires_grad_(), normal(1, 3, 6).requires_grad_()
    subject.value(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0
    with pytest.warns(InputWarning, match="the student has no graph"):
        without = subject.value(student.detach(), teacher)
    assert not without.requires_grad


@law
def the_gradient_has_the_dtype_of_what_it_belongs_to(subject: Subject) -> None:
    # What is computed in: float32, or float64 where a side is.
    double, single, brain, half = torch.float64, torch.float32, torch.bfloat16, torch.float16
    for ours, theirs, expected in [
        (double, double, double),
        (single, double, double),
        (double, brain, double),
        (single, single, single),
        (brain, single, single),
        (half, half, single),
        (brain, brain, single),
    ]:
        student, teacher = normal(0, 3, 6, dtype=ours).requires_grad_(), normal(1, 3, 6, dtype=theirs)
        value = subject.value(student, teacher)
        assert value.dtype == expected
        value.backward()
        assert student.grad.dtype == ours
        assert student.grad.shape == student.shape
        exact = normal(0, 3, 6, dtype=ours).double().requires_grad_()
        (wanted,) = gradient_of(subject.value(exact, teacher.double()), exact)
        eps = torch.finfo(ours).eps if ours in (brain, half) else 1e-6
        assert (student.grad.double() - wanted).norm() <= eps * wanted.norm()


@law
def what_comes_from_above_multiplies(subject: Subject) -> None:
    student, teacher = normal(0, 3, 6).requires_grad_(), normal(1, 3, 6)
    (plain,) = gradient_of(subject.value(student, teacher), student)
    (scaled,) = gradient_of(-3.5 * subject.value(student, teacher) + 7, student)
    torch.testing.assert_close(scaled, -3.5 * plain, rtol=1e-14, atol=0)
    (squared,) = gradient_of(subject.value(student, teacher).square(), student)
    torch.testing.assert_close(squared, 2 * subject.value(student, teacher).detach() * plain, rtol=1e-13, atol=0)


@law
def loss_scaling_costs_half_precision_nothing(subject: Subject) -> None:
    # 65,536 is where torch.amp.GradScaler starts, and more than float16 holds.
    student, teacher = normal(0, 512, 6, dtype=torch.float16).requires_grad_(), normal(1, 512, 6, dtype=torch.float16)
    (scaled,) = gradient_of(65_536.0 * subject.value(student, teacher), student)
    exact = student.detach().double().requires_grad_()
    (wanted,) = gradient_of(65_536.0 * subject.value(exact, teacher.double()), exact)
    assert (scaled.double() - wanted).norm() <= torch.finfo(torch.float16).eps * wanted.norm()


@law
def a_retained_graph_gives_the_same_again(subject: Subject) -> None:
    student, teacher = normal(0, 5, 6).requires_grad_(), normal(1, 5, 6)
    value = subject.value(student, teacher, token_weights=torch.tensor([1.0, 0.0, 0.5, 2.0, 0.0]))
    (first,) = torch.autograd.grad(value, student, retain_graph=True)
    kept = first.clone()
    first.fill_(99.0)  # the caller may do with it what it wants
    (second,) = torch.autograd.grad(2 * value, student, retain_graph=True)
    (third,) = torch.autograd.grad(value, student)
    torch.testing.assert_close(second, 2 * kept, rtol=1e-14, atol=0)
    torch.testing.assert_close(third, kept, rtol=1e-14, atol=0)


@law
def a_second_derivative_is_refused(subject: Subject) -> None:
    student, teacher = normal(0, 3, 6).requires_grad_(), normal(1, 3, 6)
    (gradient,) = torch.autograd.grad(subject.value(student, teacher), student, create_graph=True)
    with pytest.raises(DoubleBackwardError, match="second derivative"):
        gradient.sum().backward()


@law
def the_sides_are_left_as_they_are(subject: Subject) -> None:
    student, teacher, labels = normal(0, 4, 6).requires_grad_(), normal(1, 4, 6), torch.arange(4)
    weights = torch.tensor([1.0, 0.0, 2.0, 0.5])
    before = [tensor.detach().clone() for tensor in (student, teacher, labels, weights)]
    subject.value(student, teacher, labels, token_weights=weights).backward()
    for tensor, copy in zip((student, teacher, labels, weights), before, strict=True):
        assert torch.equal(tensor, copy)


@law
def the_same_call_gives_the_same_bits(subject: Subject) -> None:
    student, teacher = normal(0, 50, 300, dtype=torch.float32).requires_grad_(), normal(1, 50, 300, dtype=torch.float32)
    values = [subject.value(student, teacher, temperature=2.0) for _ in range(2)]
    assert torch.equal(*values)
    assert torch.equal(*(gradient_of(value, student)[0] for value in values))


@law
def terms_do_not_disturb_each_other(subject: Subject) -> None:
    """Beside two other terms, one at the same and one at another temperature, it stays what it is alone."""
    student, labels = normal(0, 5, 9).requires_grad_(), torch.arange(5)
    teachers = {"teacher": normal(1, 5, 9), "other": normal(2, 5, 9), "labels": tl.Labels(labels)}
    terms = {
        "same": tl.Term(tl.ReverseKL(), teacher="other", temperature=2.0, weight=0.5),
        "subject": tl.Term(subject.divergence, temperature=2.0, weight=1.5),
        "hard": tl.Term(tl.ForwardKL(), teacher="labels", weight=0.3),
    }
    weights = {"subject": torch.tensor([1.0, 0.5, 0.0, 2.0, 1.0]), "hard": torch.tensor([0.0, 1.0, 0.0, 1.0, 3.0])}
    together = tl.Objective(terms)(student, teachers, token_weights=weights)
    alone = {
        name: tl.Objective({name: term})(student, teachers, token_weights={name: weights.get(name)})
        for name, term in terms.items()
    }
    torch.testing.assert_close(together.loss, sum(out.loss for out in alone.values()), rtol=1e-13, atol=0)
    for name, out in alone.items():
        torch.testing.assert_close(together.parts[name], out.parts[name], rtol=1e-13, atol=0)
    gradients = [gradient_of(out.loss, student)[0] for out in alone.values()]
    torch.testing.assert_close(gradient_of(together.loss, student)[0], sum(gradients), rtol=1e-12, atol=1e-16)
