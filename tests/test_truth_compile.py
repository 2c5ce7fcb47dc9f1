"""The compiled backend gives what the references give, and compiles no more often than it must.

A compilation takes 5 to 30 seconds, whatever it computes, so that many terms share one; `slow` tests go through all.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

import tutelage as tl
from reference.cases import (
    STUDENTS,
    TEACHERS,
    VARIANTS,
    StudentCase,
    TeacherCase,
    build,
    combinations,
    make_student,
    make_teacher,
    relative_error,
)
from reference.divergences import REFERENCES, at_a_jump
from tutelage.execution._backends import _has_cpp_compiler

pytestmark = [
    pytest.mark.skipif(not _has_cpp_compiler(), reason="torch.compile needs a C++ compiler"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),  # torch's own, while it compiles
]

# DIST does not run in blocks.
COMBINATIONS = [(kind, teacher) for kind, teacher in combinations() if kind != "dist"]
# More outcomes than a vector register holds, and not a multiple of it, so that vectorised loops have a rest.
COLUMNS = 75


@dataclass(frozen=True)
class Spec:
    """One compilation: terms as (divergence, teacher, temperature, parameters), all on one kind of student."""

    student: str
    terms: tuple[tuple[str, str, float, tuple[tuple[str, float], ...]], ...]
    dtype: torch.dtype = torch.float32

    def divergence(self, place: int):
        kind, _, _, parameters = self.terms[place]
        return build(kind, **dict(parameters))


def spec(student: str, pairs, dtype=torch.float32) -> Spec:
    # Neighbours have other temperatures, so that what two terms share and what they do not is exercised.
    terms = [
        (kind, teacher, (2.0, 1.0)[place % 2], tuple(dict(*parameters).items()))
        for place, (kind, teacher, *parameters) in enumerate(pairs)
    ]
    return Spec(student, tuple(terms), dtype)


SPECS = {
    # Every formula, on all logits; every teacher, on a head; the sparse ways to read one, with what they may get wrong.
    "every_divergence": spec("capped_logits", [(kind, name) for kind, name in COMBINATIONS if name == "logits"]),
    "every_teacher": spec(
        "head",
        [("forward_kl", teacher) for teacher in TEACHERS if teacher != "logits"]
        + [(kind, "top_k") for kind in ("alpha_beta", "jensen_shannon", "total_variation")]
        + [("skew_forward_kl", "labels"), ("reverse_kl", "smoothed_labels"), ("hellinger", "labels")],
    ),
}
EXHAUSTIVE = {
    f"{teacher}-{student}": spec(student, [(kind, name) for kind, name in COMBINATIONS if name == teacher])
    for place, teacher in enumerate(TEACHERS)
    for student in (STUDENTS[place % 3], STUDENTS[(place + 1) % 3])
} | {
    f"parameters-{teacher}": spec(
        "logits",
        [
            (kind, teacher, parameters)
            for kind in VARIANTS
            for parameters in VARIANTS[kind]
            if (kind, teacher) in COMBINATIONS
            # The limits that are reverse KLs are infinite to a one-hot teacher.
            and not (teacher == "labels" and build(kind, **parameters).needs_teacher_support)
        ],
        torch.float64,
    )
    for teacher in ("top_k", "labels")
}


@dataclass
class Step:
    """One batch for a spec."""

    spec: Spec
    student: StudentCase
    teachers: list[TeacherCase]
    labels: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def make(cls, spec: Spec, rows: int) -> Step:
        generator = torch.Generator().manual_seed(rows)
        student = make_student(spec.student, generator, rows, COLUMNS, spec.dtype)
        kinds = {name: make_teacher(name, generator, rows, COLUMNS, spec.dtype) for _, name, _, _ in spec.terms}
        teachers = [kinds[name] for _, name, _, _ in spec.terms]
        labels = torch.randint(COLUMNS, (rows,), generator=generator)
        weights = torch.rand(rows, generator=generator, dtype=torch.float64).to(spec.dtype) + 0.1
        for (kind, _, temperature, parameters), teacher in zip(spec.terms, teachers, strict=True):
            if kind in ("total_variation", "adaptive_kl"):
                with torch.no_grad():
                    sides = teacher.sides(student.logits(), temperature)
                    weights[at_a_jump(kind, *sides, temperature, **dict(parameters))] = 0
        return cls(spec, student, teachers, labels, weights)

    def run(self, backend: str, factors):
        """Return the parts, and the gradients of their sum weighted by the factors."""
        terms, teachers = {}, {"labels": tl.Labels(self.labels)}
        objects = {}
        for place, (case, factor) in enumerate(zip(self.teachers, factors, strict=True)):
            _, kind, temperature, _ = self.spec.terms[place]
            # One object for a teacher that several terms use; samples belong to a temperature.
            key = (kind, temperature if kind.startswith("sampled") else None)
            name = objects.setdefault(key, f"teacher {len(objects)}")
            teachers.setdefault(name, case.at(temperature))
            divergence = self.spec.divergence(place)
            terms[str(place)] = tl.Term(divergence, name, factor, temperature, scale_by_temperature=False)
        out = tl.Objective(terms, backend=backend)(self.student.given, teachers, token_weights=self.weights)
        return [*out.parts.values()], torch.autograd.grad(out.loss, self.student.inputs)

    def expected(self, factors):
        counts, parts = self.weights.double(), []
        for (kind, _, temperature, parameters), teacher in zip(self.spec.terms, self.teachers, strict=True):
            rows = teacher.rows(kind, self.student.logits(), temperature, self.labels, **dict(parameters))
            parts.append((counts * rows).sum() / counts.sum())
        loss = sum(factor * part for factor, part in zip(factors, parts, strict=True))
        return parts, torch.autograd.grad(loss, self.student.doubles)


def check(spec: Spec, rows: int, factors) -> None:
    step = Step.make(spec, rows)
    parts, gradients = step.run("compile", factors)
    eager_parts, eager_gradients = step.run("torch", factors)
    wanted_parts, wanted_gradients = step.expected(factors)
    limit, floor = (1e-10, 0.0) if spec.dtype == torch.float64 else (1e-6, torch.finfo(torch.float32).eps)
    for term, part, eager, wanted in zip(spec.terms, parts, eager_parts, wanted_parts, strict=True):
        assert abs(part.item() - wanted.item()) <= limit * abs(wanted.item()) + floor, term
        assert abs(part.item() - eager.item()) <= limit * abs(wanted.item()) + floor, term
    # As in test_truth: caps, heads and cancelling slopes magnify roundings.
    limit = 1e-10 if spec.dtype == torch.float64 else 3e-5
    for gradient, eager, wanted in zip(gradients, eager_gradients, wanted_gradients, strict=True):
        assert relative_error(gradient, wanted) < limit
        assert relative_error(gradient, eager.double()) < limit


def check_term_by_term(spec: Spec, rows: int) -> None:
    """Check the gradients with all terms equal, and with each of them in turn so large that the others vanish."""
    check(spec, rows, [1.0] * len(spec.terms))
    for place in range(len(spec.terms)):
        check(spec, rows, [1e9 if i == place else 1e-9 for i in range(len(spec.terms))])


def compilations() -> int:
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SPECS)
def test_compiled_terms(name):
    before = compilations()
    check_term_by_term(SPECS[name], rows=20)
    # Another number of rows is no other program: one alone, few, and blocks that do not divide them.
    for rows in (1, 2, 7):
        check(SPECS[name], rows, [1.0] * len(SPECS[name].terms))
    with tl.execution.byte_budget(8 * COLUMNS * 4):
        check(SPECS[name], 37, [1.0] * len(SPECS[name].terms))
    assert compilations() - before == 1


@pytest.mark.timeout(900)
@pytest.mark.parametrize("by_ids", [False, True], ids=["prefix", "ids"])
def test_compiled_maps(by_ids, generator):
    """Columns are taken from both sides and gradients put back; labels keep the whole vocabulary."""
    wide, narrow = COLUMNS + 6, COLUMNS
    student = torch.randn(9, wide, generator=generator).requires_grad_()
    teacher, labels = torch.randn(9, narrow, generator=generator), torch.randint(40, (9,), generator=generator)
    ids = torch.randperm(wide, generator=generator)[:40], torch.randperm(narrow, generator=generator)[:40]
    vocabulary = tl.VocabularyMap(*ids) if by_ids else tl.VocabularyMap.prefix(40)
    ours, theirs = ids if by_ids else (torch.arange(40), torch.arange(40))
    kept = teacher[:, theirs].topk(5).indices
    terms = {
        "dense": tl.Term(tl.ReverseKL(), temperature=2.0, scale_by_temperature=False),
        "rows": tl.Term(tl.DecoupledKD()),
        "sparse": tl.Term(tl.ForwardKL(), teacher="top_k"),
        "hard": tl.Term(tl.ForwardKL(), teacher="labels"),
    }
    teachers = {
        "teacher": teacher,
        "top_k": tl.TopK(theirs[kept], teacher.gather(1, theirs[kept]), tail="renormalize"),
        "labels": tl.Labels(ours[labels]),
    }
    out = tl.Objective(terms, backend="compile")(student, teachers, vocabulary=vocabulary)

    double = student.detach().double().requires_grad_()
    sides = double[:, ours], teacher.double()[:, theirs]
    rows = [
        REFERENCES["reverse_kl"](*sides, 2.0),
        REFERENCES["decoupled_kd"](*sides, 1.0, labels),
        REFERENCES["forward_kl"](*(side.gather(1, kept) for side in sides), 1.0),
        torch.nn.functional.cross_entropy(double, ours[labels], reduction="none"),
    ]
    for part, row in zip(out.parts.values(), rows, strict=True):
        torch.testing.assert_close(part.double(), row.mean().detach(), rtol=1e-6, atol=1e-7)
    (gradient,) = torch.autograd.grad(out.loss, student)
    (wanted,) = torch.autograd.grad(sum(row.mean() for row in rows), double)
    assert relative_error(gradient, wanted) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", EXHAUSTIVE)
def test_all_combinations_compiled(name):
    check_term_by_term(EXHAUSTIVE[name], rows=20)


@pytest.mark.slow
@pytest.mark.parametrize("excluded", [False, True], ids=["finite", "minus_inf"])
def test_extreme_logits_compiled(excluded, generator):
    """The compiled block mends limits everywhere, the eager one only where its sums say so: they must agree."""
    rows, columns = 60, 9
    signs = torch.randn(rows, columns, generator=generator).sign()
    sides = [1e4 * signs, 1e4 * signs.flip(0), torch.randn(rows, columns, generator=generator)]
    student, teacher = torch.cat(sides), torch.cat([sides[2], sides[0], 40 * sides[2].flip(1)])
    kinds = [kind for kind, name in COMBINATIONS if name == "logits"]
    if excluded:
        # The teacher excludes what it likes least, the student what no teacher here gives mass to.
        kinds = ["forward_kl", "jensen_shannon", "skew_forward_kl", "skew_reverse_kl", "total_variation", "hellinger"]
        kinds += ["alpha_beta"]
        teacher = teacher.masked_fill(teacher <= teacher.median(-1, keepdim=True).values, -torch.inf)
        student = student.masked_fill((teacher == -torch.inf) & (signs.repeat(3, 1) > 0), -torch.inf)
    terms = {kind: tl.Term(build(kind), temperature=2.0) for kind in kinds}
    teachers = {"teacher": teacher, "labels": tl.Labels(torch.arange(len(student)) % columns)}
    results = []
    for backend in ("compile", "torch"):
        leaf = student.clone().requires_grad_()
        rows_of = tl.Objective(terms, backend=backend)(leaf, teachers)
        results.append((rows_of, *torch.autograd.grad(rows_of.loss, leaf)))
    (compiled, gradient), (eager, eager_gradient) = results
    assert gradient.isfinite().all()
    for kind in kinds:
        torch.testing.assert_close(compiled.parts[kind], eager.parts[kind], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, eager_gradient, rtol=1e-4, atol=1e-5)
