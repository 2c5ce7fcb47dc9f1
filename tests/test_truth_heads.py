"""Heads: who of hidden states, weight and bias gets which gradient, however the rows are cut."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import tutelage as tl
from reference.cases import relative_error

ROWS, WIDTH, COLUMNS = 23, 6, 31
# One row at a time, chunks that hold several blocks and leave a rest, everything at once.
BUDGETS = {"rows": (1, 1), "chunks": (7, 3), "whole": (100, 100)}


def make(generator, dtype=torch.float64):
    hidden = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)
    weight = torch.randn(COLUMNS, WIDTH, generator=generator, dtype=torch.float64)
    bias = torch.randn(COLUMNS, generator=generator, dtype=torch.float64)
    teacher = torch.randn(ROWS, COLUMNS, generator=generator, dtype=torch.float64)
    return [tensor.to(dtype) for tensor in (hidden, weight, bias, teacher)]


def plain(hidden, weight, bias, teacher):
    log_q, p = F.linear(hidden, weight, bias).log_softmax(-1), teacher.softmax(-1)
    return F.kl_div(log_q, p, reduction="batchmean")


def budget(name: str, dtype=torch.float64):
    chunk, block = BUDGETS[name]
    return tl.execution.byte_budget(chunk * COLUMNS * dtype.itemsize, block * COLUMNS * dtype.itemsize)


@pytest.mark.parametrize("rows", BUDGETS)
@pytest.mark.parametrize("trained", ["hidden", "weight", "bias", "weight and bias", "hidden and weight and bias"])
def test_only_what_is_trained_gets_a_gradient(rows, trained, generator):
    *inputs, teacher = make(generator)
    names = ("hidden", "weight", "bias")
    for name, tensor in zip(names, inputs, strict=True):
        tensor.requires_grad_(name in trained.split(" and "))
    with budget(rows):
        tl.divergence(tl.HeadStates(*inputs), teacher).backward()
    got = [tensor.grad for tensor in inputs]
    for tensor in inputs:
        tensor.grad = None
    plain(*inputs, teacher).backward()
    for name, gradient, tensor in zip(names, got, inputs, strict=True):
        assert (gradient is None) == (name not in trained.split(" and "))
        if gradient is not None:
            torch.testing.assert_close(gradient, tensor.grad, rtol=1e-10, atol=1e-14)


def test_without_a_bias(generator):
    hidden, weight, _, teacher = make(generator)
    inputs = [hidden.requires_grad_(), weight.requires_grad_()]
    gradients = torch.autograd.grad(tl.divergence(tl.HeadStates(*inputs), teacher), inputs)
    for got, want in zip(gradients, torch.autograd.grad(plain(*inputs, None, teacher), inputs), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-14)


def test_a_tied_head_gathers_all_its_shares(generator):
    """The embedding that made the hidden states is the head: both uses count, in both losses."""
    _, weight, bias, teacher = make(generator)
    ids = torch.randint(COLUMNS, (ROWS,), generator=generator)

    def losses(hidden_of, head_of):
        yield tl.divergence(tl.HeadStates(hidden_of, head_of, bias), teacher)
        yield tl.divergence(tl.HeadStates(hidden_of, head_of), tl.Labels(ids))

    weight.requires_grad_()
    sum(losses(torch.tanh(F.embedding(ids, weight)), weight)).backward()
    got, weight.grad = weight.grad, None
    hidden = torch.tanh(F.embedding(ids, weight))
    (plain(hidden, weight, bias, teacher) + F.cross_entropy(F.linear(hidden, weight), ids)).backward()
    torch.testing.assert_close(got, weight.grad, rtol=1e-10, atol=1e-14)


def test_a_head_that_both_sides_share_is_trained_by_the_student_alone(generator):
    hidden, weight, bias, _ = make(generator)
    weight.requires_grad_()
    other = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64).requires_grad_()
    tl.divergence(tl.HeadStates(hidden, weight, bias), tl.HeadStates(other, weight, bias)).backward()
    assert other.grad is None
    got, weight.grad = weight.grad, None
    plain(hidden, weight, bias, F.linear(other, weight, bias).detach()).backward()
    torch.testing.assert_close(got, weight.grad, rtol=1e-10, atol=1e-14)


def test_the_same_head_on_both_sides_is_at_zero(generator):
    """Both sides are made in chunks of one size, so that their logits have the same roundings."""
    hidden, weight, bias, _ = (tensor.float() for tensor in make(generator))
    for rows in BUDGETS:
        with budget(rows, torch.float32):
            value = tl.divergence(tl.HeadStates(hidden, weight, bias), tl.HeadStates(hidden, weight, bias))
        assert abs(value.item()) < 1e-7


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_gradient_of_a_half_precision_head_is_summed_in_float32(dtype, generator):
    """Sixteen hundred small shares of one sign: summed in bfloat16 chunk by chunk, most of them would be lost."""
    hidden = torch.full((1600, 2), 1.0, dtype=dtype)
    weight = torch.zeros(2, 2, dtype=dtype, requires_grad=True)
    labels = tl.Labels(torch.zeros(1600, dtype=torch.int64))
    with tl.execution.byte_budget(2 * 2 * 2, 4):
        tl.divergence(tl.HeadStates(hidden, weight), labels, reduction="sum").backward()
    assert weight.grad.dtype == dtype
    # Each row gives q - p = (-1/2, 1/2) to both of its coordinates.
    assert weight.grad.tolist() == [[-800.0, -800.0], [800.0, 800.0]]


@pytest.mark.parametrize("layout", ["transposed", "strided", "expanded"])
def test_memory_layouts_do_not_matter(layout, generator):
    hidden, weight, bias, teacher = make(generator)
    inputs = {
        "transposed": (hidden.T.contiguous().T, weight.T.contiguous().T, bias),
        "strided": (hidden.repeat(1, 2)[:, ::2], weight.repeat(2, 1)[::2], bias.repeat_interleave(2)[::2]),
        "expanded": (hidden[:1].expand(ROWS, WIDTH), weight[:, :1].expand(COLUMNS, WIDTH), bias[:1].expand(COLUMNS)),
    }[layout]
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    assert layout == "expanded" or not inputs[0].is_contiguous()
    gradients = torch.autograd.grad(tl.divergence(tl.HeadStates(*inputs), teacher), inputs)
    for got, want in zip(gradients, torch.autograd.grad(plain(*inputs, teacher), inputs), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-14)


def test_threads_change_nothing(generator):
    """The other tests run on one thread; models train on many."""
    student = [tensor.requires_grad_() for tensor in make(generator)[:3]]
    big = torch.randn(64, 3000, generator=generator), torch.randn(64, 3000, generator=generator)
    teacher = make(generator)[3]
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            value = tl.divergence(tl.HeadStates(*student), teacher, tl.JensenShannon())
            leaf = big[0].clone().requires_grad_()
            dense = tl.divergence(leaf, big[1], tl.ReverseKL())
            results.append([*torch.autograd.grad(value, student), *torch.autograd.grad(dense, leaf), value, dense])
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*results, strict=True):
        assert relative_error(two, one.double()) < 1e-6
