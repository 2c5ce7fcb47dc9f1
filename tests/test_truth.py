"""Every divergence on every pair of inputs gives what its paper's formula gives, values and gradients."""

from __future__ import annotations

import math

import pytest
import torch

import tutelage as tl
from reference.cases import (
    TEACHERS,
    VARIANTS,
    build,
    combinations,
    make_student,
    make_teacher,
    relative_error,
    students_of,
)
from reference.divergences import REFERENCES, at_a_jump
from tutelage.errors import CompatibilityError, ConventionWarning

COMBINATIONS = combinations()
# In float64 a few rows show that the formula is right. In float32, 64 rows of 1,000 outcomes hold outcomes of all sizes
# and sums that are long enough for rounding to show.
SIZES = {torch.float64: (12, 60), torch.float32: (64, 1000)}
# Temperature, reduction and whether rows are weighted, so that each factor in front of a gradient occurs with others.
# In float32 rounding is looked at, which the sharpest softmax and the longest sums make largest.
CALLS = {
    torch.float64: [(1.0, "mean", False), (2.0, "mean", True), (0.5, "sum", True), (2.0, "none", True)],
    torch.float32: [(1.0, "mean", False), (0.5, "sum", True)],
}


def error_allowed(want, counted) -> float:
    """Return how far a value may be off: by its own rounding, and by that of the probabilities, which sum to 1."""
    if want.dtype == torch.float64:
        return 1e-10 * float(want.norm())
    return 1e-6 * float(want.norm()) + torch.finfo(torch.float32).eps * float(counted)


def gradient_error_allowed(kind: str, student: str, temperature: float, dtype: torch.dtype, is_variant: bool) -> float:
    """Return the relative error in the Euclidean norm that is allowed for a gradient."""
    if dtype == torch.float64:
        return 1e-10
    if is_variant:
        # Large powers and skews leave little of what they are computed from.
        return 1e-4
    if student != "logits" or temperature < 1:
        # A head's products, a cap and a sharper softmax magnify the rounding of what comes before.
        return 3e-5
    # q (sign(q - p) - sum q sign(q - p)) cancels where teacher and student have little in common, as in eager PyTorch.
    # DIST divides by the deviations of rows and columns, some of which are small.
    return {"total_variation": 5e-6, "dist": 2e-6}.get(kind, 1e-6)


def test_every_divergence_has_a_reference():
    assert set(REFERENCES) == set(tl.divergences.ALL)
    assert len(REFERENCES) == 16


def test_the_combinations_are_those_of_the_design():
    pointwise = ["forward_kl", "reverse_kl", "jensen_shannon", "skew_forward_kl", "skew_reverse_kl", "jeffreys"]
    pointwise += ["total_variation", "hellinger", "alpha_beta"]
    expected = {(kind, teacher) for kind in pointwise for teacher in TEACHERS if not teacher.startswith("sampled")}
    # A one-hot teacher excludes outcomes to which any student gives mass.
    expected -= {("reverse_kl", "labels"), ("jeffreys", "labels")}
    expected |= {("forward_kl", "sampled"), ("forward_kl", "sampled_with_entropy")}
    rowwise = ("adaptive_kl", "logit_mse", "logit_cosine", "decoupled_kd", "normalized_kd", "standardized_kl")
    for kind in rowwise:
        expected |= {(kind, teacher) for teacher in ("logits", "capped_logits", "head", "mixture_of_logits")}
    # These need no more than the probabilities, so a mixture of probabilities will do.
    expected |= {(kind, name) for kind in ("adaptive_kl", "decoupled_kd") for name in ("mixture", "mixture_of_heads")}
    expected |= {("dist", teacher) for teacher in ("logits", "capped_logits", "mixture", "mixture_of_logits")}
    assert set(COMBINATIONS) == expected


def test_what_is_not_combined_is_refused(generator):
    student = make_student("logits", generator, 2, 20).given
    for kind in tl.divergences.ALL:
        for name in TEACHERS:
            if (kind, name) not in COMBINATIONS:
                teacher = make_teacher(name, generator, 2, 20).at(1.0)
                with pytest.raises(CompatibilityError, match=kind):
                    tl.divergence(student, teacher, build(kind), labels=torch.zeros(2, dtype=torch.int64))


def check(kind, student_kind, teacher_kind, dtype, generator, **parameters):
    """Compare value and gradients with the reference, at several temperatures, weights and reductions."""
    rows, columns = SIZES[dtype]
    student = make_student(student_kind, generator, rows, columns, dtype)
    teacher = make_teacher(teacher_kind, generator, rows, columns, dtype)
    divergence, labels = build(kind, **parameters), torch.randint(columns, (rows,), generator=generator)
    for temperature, reduction, weighted in CALLS[dtype]:
        if kind == "dist" and reduction == "none":
            continue
        weights = _weights(kind, student, teacher, temperature, weighted, dtype, generator, **parameters)
        upstream = torch.randn(rows, generator=generator, dtype=torch.float64).to(dtype)
        counts = torch.ones(rows, dtype=torch.float64) if weights is None else weights.double()
        extra = {"weights": counts} if kind == "dist" else {}

        values = counts * teacher.rows(kind, student.logits(), temperature, labels, **parameters, **extra)
        want = values if reduction == "none" else values.sum() / (counts.sum() if reduction == "mean" else 1)
        wanted = torch.autograd.grad((want * upstream).sum() if reduction == "none" else want, student.doubles)

        got = tl.divergence(
            student.given,
            teacher.at(temperature),
            divergence,
            temperature=temperature,
            token_weights=weights,
            labels=labels,
            reduction=reduction,
            backend="torch",
        )
        gradients = torch.autograd.grad((got * upstream).sum() if reduction == "none" else got, student.inputs)

        where = f"temperature {temperature}, {reduction}, {'weighted' if weighted else 'unweighted'}"
        assert got.dtype == dtype
        # One weight of 1 in a mean, all of them in a sum, one for each row where rows are returned.
        counted = {"mean": 1.0, "sum": counts.sum(), "none": counts.norm()}[reduction]
        assert (got.double() - want).norm() <= error_allowed(want.detach().to(dtype), counted), where
        limit = gradient_error_allowed(kind, student_kind, temperature, dtype, bool(parameters))
        for place, (mine, theirs) in enumerate(zip(gradients, wanted, strict=True)):
            assert mine.dtype == dtype
            assert relative_error(mine, theirs) < limit, f"gradient {place}, {where}"


def _weights(kind, student, teacher, temperature, weighted, dtype, generator, **parameters):
    """Return fractions and zeros as weights, or None; rows whose gradient jumps within a rounding get 0."""
    rows = len(student.inputs[0])
    weights = torch.ones(rows, dtype=dtype)
    if weighted:
        weights = torch.rand(rows, generator=generator, dtype=torch.float64).to(dtype)
        weights[::5], weights[3] = 0, 2.5
    if kind in ("total_variation", "adaptive_kl"):
        with torch.no_grad():
            jumps = at_a_jump(kind, *teacher.sides(student.logits(), temperature), temperature, **parameters)
        assert jumps.double().mean() < 0.2
        weights[jumps] = 0
    return weights if weighted or bool((weights == 0).any()) else None


@pytest.mark.parametrize("dtype", SIZES, ids=["float64", "float32"])
@pytest.mark.parametrize(
    ("kind", "teacher", "student"),
    [(kind, teacher, student) for kind, teacher in COMBINATIONS for student in students_of(kind)],
)
def test_value_and_gradients(kind, teacher, student, dtype, generator):
    check(kind, student, teacher, dtype, generator)


@pytest.mark.parametrize("dtype", SIZES, ids=["float64", "float32"])
@pytest.mark.parametrize(("kind", "place"), [(kind, i) for kind in VARIANTS for i in range(len(VARIANTS[kind]))])
# One teacher for each way of reading probabilities: all of them, kept ones with a bucket, and one alone.
@pytest.mark.parametrize("teacher", ["logits", "top_k", "labels"])
def test_parameters(kind, place, teacher, dtype, generator):
    parameters = VARIANTS[kind][place]
    if tl.execution.refusal(build(kind, **parameters), make_teacher(teacher, generator, 2, 20).at(1.0)) is None:
        check(kind, "logits", teacher, dtype, generator, **parameters)
    else:
        # Refused by type where all logits are needed; by parameters only where labels make the value infinite.
        needs_all = kind in ("adaptive_kl", "decoupled_kd", "normalized_kd", "dist")
        infinite = teacher == "labels" and parameters in (
            {"beta": 1.0},
            {"alpha": 0, "beta": 1},
            {"alpha": 0, "beta": 2},
        )
        assert needs_all or infinite


@pytest.mark.parametrize(("beta", "end"), [(0.0, "forward"), (0.04, "forward"), (0.96, "reverse"), (1.0, "reverse")])
def test_jensen_shannon_near_its_ends_says_what_they_mean(beta, end):
    with pytest.warns(ConventionWarning, match=f"is the {end} KL by convention"):
        tl.JensenShannon(beta)


def test_leading_dimensions_are_rows(generator):
    student = make_student("logits", generator, 12, 30).given.detach()
    teacher = make_student("logits", generator, 12, 30).given.detach()
    flat = tl.divergence(student, teacher, reduction="none")
    shaped = tl.divergence(student.reshape(3, 2, 2, 30), teacher.reshape(3, 2, 2, 30), reduction="none")
    assert shaped.shape == (3, 2, 2)
    assert torch.equal(shaped.flatten(), flat)
    one_row = tl.divergence(student[0], teacher[0])
    torch.testing.assert_close(one_row, flat[0])


class TestValuesWorkedOutByHand:
    """Numbers from outside this project: worked out by hand, or printed by the systems it grew from."""

    student = torch.tensor([[2.0, 1.0, 0.5]], dtype=torch.float64)
    teacher = torch.tensor([[1.5, 1.2, 0.8]], dtype=torch.float64)
    labels = torch.tensor([0])

    def test_softened_kl(self):
        term = tl.Term(tl.ForwardKL(), temperature=2.0)
        out = tl.Objective({"soft": term})(self.student, {"teacher": self.teacher})
        assert out.loss.item() == pytest.approx(0.0681120095, abs=1e-10)
        assert out.parts["soft"].item() == pytest.approx(0.0681120095 / 4, abs=1e-10)

    def test_cross_entropy(self):
        value = tl.divergence(self.student, tl.Labels(self.labels))
        assert value.item() == pytest.approx(0.4643687841, abs=1e-10)
        # log(e^2 + e^1 + e^0.5) - 2
        assert value.item() == pytest.approx(math.log(math.exp(2) + math.exp(1) + math.exp(0.5)) - 2, abs=1e-14)

    def test_distillation_loss(self):
        loss = tl.DistillationLoss(temperature=2.0, alpha=0.7)
        value = loss(self.student, self.teacher, self.labels)
        assert value.item() == pytest.approx(0.1869890419, abs=1e-10)
        in_float32 = loss(self.student.float(), self.teacher.float(), self.labels)
        assert in_float32.item() == pytest.approx(0.1869890419, rel=1e-6)

    def test_the_two_kls_are_not_swapped(self):
        student, teacher = torch.tensor([[0.0, 1.0, 0.0]]).double(), torch.tensor([[2.0, 0.0, 0.0]]).double()
        assert tl.divergence(student, teacher, tl.ForwardKL()).item() == pytest.approx(0.7793650531, abs=1e-10)
        assert tl.divergence(student, teacher, tl.ReverseKL()).item() == pytest.approx(0.8403338218, abs=1e-10)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
    def test_nothing_is_clamped(self, dtype):
        # Teacher (1/2, 1/2), student (e^-60, 1): 30 - log 2. Implementations that clamp say 10.8 or 13.1.
        value = tl.divergence(torch.tensor([[0.0, 60.0]], dtype=dtype), torch.zeros(1, 2, dtype=dtype))
        assert value.item() == pytest.approx(29.30685, abs=1e-5)
        assert value.item() == pytest.approx(30 - math.log(2), rel=1e-7)
