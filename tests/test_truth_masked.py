"""Rows that do not count do not exist: with junk in them, everything is as if they had been left out.

On a CPU they never reach the block function. On a GPU nobody waits to hear which rows count: they are computed all the
same and masked, and that path is called directly here.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tutelage as tl
from reference.cases import build, combinations, make_student, make_teacher, students_of
from tutelage.execution import Job
from tutelage.execution._backends import BACKENDS
from tutelage.execution._block import BlockInputs, run_block
from tutelage.execution._budget import Budget
from tutelage.execution._loop import Gradients, Group, _Walk
from tutelage.execution._plan import make_plan

ROWS, COLUMNS = 7, 20
KEEP = torch.tensor([True, False, True, True, False, False, True])


def map_rows(side, function):
    """Return a distribution with a function applied to each of its tensors that has rows."""
    if isinstance(side, tl.Logits):
        return replace(side, values=function(side.values))
    if isinstance(side, tl.HeadStates):
        return replace(side, hidden=function(side.hidden))
    if isinstance(side, tl.TopK):
        tails = {temperature: function(tail) for temperature, tail in side.log_tails.items()}
        return replace(side, indices=function(side.indices), logits=function(side.logits), log_tails=tails)
    if isinstance(side, tl.Sampled):
        entropy = None if side.entropy is None else function(side.entropy)
        return replace(side, indices=function(side.indices), weights=function(side.weights), entropy=entropy)
    if isinstance(side, tl.Labels):
        return replace(side, targets=function(side.targets))
    return replace(side, parts=[map_rows(part, function) for part in side.parts])


def spoiled(tensor, dim: int = 0):
    """Return a tensor with NaN, or an impossible id, in the rows that do not count."""
    tensor = tensor.detach().clone()
    tensor[(slice(None),) * dim + (~KEEP,)] = torch.nan if tensor.is_floating_point() else -100
    return tensor


@pytest.mark.parametrize(
    ("kind", "teacher", "student"),
    [(kind, teacher, student) for kind, teacher in combinations() for student in students_of(kind)],
)
def test_masked_rows_are_deleted_rows(kind, teacher, student, generator):
    case = make_student(student, generator, ROWS, COLUMNS)
    given, labels = tl.execution.as_student(case.given), torch.randint(COLUMNS, (ROWS,), generator=generator)
    side = make_teacher(teacher, generator, ROWS, COLUMNS, kept=6).at(2.0)
    weights = torch.where(KEEP, torch.rand(ROWS, generator=generator, dtype=torch.float64) + 0.1, 0.0)

    masked = map_rows(given, lambda rows: spoiled(rows).requires_grad_())
    value = tl.divergence(
        masked,
        map_rows(side, spoiled),
        build(kind),
        temperature=2.0,
        token_weights=weights,
        labels=spoiled(labels),
    )
    deleted = map_rows(given, lambda rows: rows.detach()[KEEP].requires_grad_())
    expected = tl.divergence(
        deleted,
        map_rows(side, lambda rows: rows[KEEP]),
        build(kind),
        temperature=2.0,
        token_weights=weights[KEEP],
        labels=labels[KEEP],
    )
    torch.testing.assert_close(value, expected, rtol=1e-13, atol=0)
    gradients = torch.autograd.grad(value, [tensor for _, tensor in masked.tensors()])
    wanted = torch.autograd.grad(expected, [tensor for _, tensor in deleted.tensors()])
    assert gradients[0][~KEEP].count_nonzero() == 0
    for mine, theirs in zip((gradients[0][KEEP], *gradients[1:]), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-15)


def block_of(kind, teacher, student, generator, labels, vocabulary=None, columns=COLUMNS):
    """Return the static part and the tensors of one block with one term."""
    case = make_teacher(teacher, generator, ROWS, columns, kept=6)
    job = Job(build(kind), case.at(2.0), 2.0)
    plan = make_plan(student, [job], labels, vocabulary)
    tensors = [
        tensor if head is None else torch.nn.functional.linear(tensor, head.weight, head.bias)
        for tensor, head in zip(plan.sources[0].tensors, plan.sources[0].heads, strict=True)
    ]
    inputs = BlockInputs(
        student=student.values.detach(),
        teachers=[tensors],
        coefficients=torch.rand(1, ROWS, generator=generator, dtype=torch.float64) + 0.1,
        labels=plan.label_places,
        keep=None,
        temperatures=[2.0],
        student_ids=plan.student_ids,
        teacher_ids=plan.teacher_ids,
    )
    return plan.spec, inputs


def with_junk(inputs: BlockInputs) -> BlockInputs:
    """Return the block with junk in the rows that do not count, and a mask that says so."""
    junk = inputs.map_rows(spoiled)
    # A row's weight is a number, be it 0.
    return replace(junk, keep=KEEP[None], coefficients=torch.where(KEEP, inputs.coefficients, 0.0))


# DIST does not run in blocks.
@pytest.mark.parametrize(("kind", "teacher"), [pair for pair in combinations() if pair[0] != "dist"])
# All columns, some of them, and a transform whose derivative is made of the logits.
@pytest.mark.parametrize(
    ("shared", "softcap"), [(False, None), (True, None), (False, 9.0)], ids=["all", "mapped", "capped"]
)
def test_rows_that_do_not_count_leave_no_trace(kind, teacher, shared, softcap, generator):
    logits = torch.randn(ROWS, COLUMNS, generator=generator, dtype=torch.float64)
    vocabulary = None
    if shared:
        # All of the teacher's ids, in another order, among more of the student's.
        order = torch.randperm(COLUMNS, generator=generator)
        vocabulary = tl.VocabularyMap(order, torch.arange(COLUMNS))
        logits = torch.nn.functional.pad(logits, (0, 3), value=5.0)
    labels = torch.randint(COLUMNS, (ROWS,), generator=generator)
    student = tl.Logits(logits, softcap)
    spec, inputs = block_of(kind, teacher, student, generator, labels, vocabulary)
    values, gradient = run_block(spec, inputs)
    assert values.isfinite().all()
    got_values, got_gradient = run_block(spec, with_junk(inputs))
    torch.testing.assert_close(got_values, torch.where(KEEP, values, 0.0), rtol=1e-13, atol=0)
    torch.testing.assert_close(got_gradient, torch.where(KEEP[:, None], gradient, 0.0), rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("teacher", ["logits", "head", "labels", "top_k"])
def test_hidden_states_that_do_not_count_leave_no_trace(teacher, generator):
    """The walk of a GPU over hidden states: NaN in one row would reach every row of the head's gradient."""
    hidden = torch.randn(ROWS, 4, generator=generator, dtype=torch.float64)
    weight = torch.randn(COLUMNS, 4, generator=generator, dtype=torch.float64)
    bias = torch.randn(COLUMNS, generator=generator, dtype=torch.float64)
    given = make_teacher(teacher, generator, ROWS, COLUMNS, kept=6).at(2.0)
    weights = torch.where(KEEP, 0.5, 0.0).double()

    def walk(hidden, device):
        # The loop asks the plan which device it is on, and nothing else does.
        plan = make_plan(tl.HeadStates(hidden, weight, bias), [Job(tl.ForwardKL(), given, 2.0, weights)])
        plan = replace(plan, device=torch.device(device))
        gradients = Gradients(None, *(torch.zeros_like(tensor) for tensor in (hidden, weight, bias)))
        values, budget = torch.zeros(1, ROWS, dtype=torch.float64), Budget(2**20, 2**20)
        rows = KEEP.nonzero().squeeze(1) if device == "cpu" else slice(0, ROWS)
        group = Group(rows, (0,), int(KEEP.sum()) if device == "cpu" else ROWS)
        _Walk(plan, BACKENDS["torch"], budget, weights[None], gradients, group, validate=False).run(values)
        return values, gradients

    values, gradients = walk(hidden, "cpu")
    got_values, got = walk(torch.where(KEEP[:, None], hidden, torch.nan), "cuda")
    torch.testing.assert_close(got_values, values)
    for name in ("hidden", "weight", "bias"):
        torch.testing.assert_close(
            getattr(got, name), getattr(gradients, name), msg=lambda text, name=name: name + text
        )
