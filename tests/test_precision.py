"""How far off: relative to float64, beside what PyTorch users write by hand in the same precision."""

import pytest
import torch
import torch.nn.functional as F

import tutelage as tl

# Enough outcomes for sums to lose digits; KL about 1/2 and about 1e-3, where naive forms cancel.
N, D, V = 64, 64, 8192
NEAR = {"apart": 1.0, "near convergence": 0.045}
HALVES = (torch.bfloat16, torch.float16)


def sides(distance, dtype):
    generator = torch.Generator().manual_seed(5)
    student = 2 * torch.randn(N, V, generator=generator)
    teacher = student + distance * torch.randn(N, V, generator=generator)
    return student.to(dtype), teacher.to(dtype)


def states(distance, dtype):
    generator = torch.Generator().manual_seed(6)
    hidden, weight = torch.randn(N, D, generator=generator), torch.randn(V, D, generator=generator) / D**0.5
    other = hidden + distance * torch.randn(N, D, generator=generator)
    return hidden.to(dtype), weight.to(dtype), other.to(dtype)


def eager(student, teacher, temperature):
    log_q, log_p = F.log_softmax(student.float() / temperature, -1), F.log_softmax(teacher.float() / temperature, -1)
    return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


def exact(student, teacher, temperature):
    log_q, log_p = (student / temperature).log_softmax(-1), (teacher / temperature).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean()


def errors(function, leaves, truth, true_gradients):
    """Return the relative errors of the value and of each gradient."""
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    value = function(*leaves)
    gradients = torch.autograd.grad(value, leaves)
    off = [abs(value.item() - truth.item()) / truth.item()]
    for gradient, true in zip(gradients, true_gradients, strict=True):
        off.append(((gradient.double() - true).norm() / true.norm()).item())
    return off


def compare(ours, theirs, reference, leaves):
    doubles = [leaf.double().requires_grad_() for leaf in leaves]
    truth = reference(*doubles)
    true_gradients = torch.autograd.grad(truth, doubles)
    return [errors(function, leaves, truth.detach(), true_gradients) for function in (ours, theirs)]


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("distance", NEAR.values(), ids=NEAR)
def test_half_precision_logits(distance, dtype, temperature):
    student, teacher = sides(distance, dtype)
    mine, theirs = compare(
        lambda s: tl.divergence(s, teacher, temperature=temperature),
        lambda s: eager(s, teacher, temperature),
        lambda s: exact(s, teacher.double(), temperature),
        [student],
    )
    for ours, eagers in zip(mine, theirs, strict=True):
        assert ours <= 2 * eagers + 1e-7


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("distance", NEAR.values(), ids=NEAR)
def test_half_precision_heads(distance, dtype):
    """Chunks of 16 rows, so that the weight gradient is a sum of many products."""
    hidden, weight, other = states(distance, dtype)

    def ours(hidden, weight):
        with tl.execution.byte_budget(2 * 16 * V * 2, 4 * V * 4):
            return tl.divergence(tl.HeadStates(hidden, weight), tl.HeadStates(other, weight.detach()))

    mine, theirs = compare(
        ours,
        lambda h, w: eager(F.linear(h, w), F.linear(other, w.detach()), 1.0),
        lambda h, w: exact(F.linear(h, w), F.linear(other.double(), w.detach()), 1.0),
        [hidden, weight],
    )
    # Rounding the logits to float16 moves this value by about 1e-4 either way, whatever is computed from them.
    for ours_off, eagers_off in zip(mine, theirs, strict=True):
        assert ours_off <= 2 * max(eagers_off, 1e-4)


def test_float32_near_convergence_keeps_digits_that_eager_loses():
    student, teacher = sides(NEAR["near convergence"], torch.float32)
    doubles = student.double(), teacher.double()
    log_q, log_p = (side.log_softmax(-1) for side in doubles)
    truth = (log_p.exp() * (log_p - log_q)).sum(-1)
    assert 5e-4 < truth.mean() < 2e-3
    ours = tl.divergence(student, teacher, reduction="none")
    eagers = F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="none").sum(-1)
    off_ours, off_eager = ((rows.double() - truth).abs().max() / truth.mean() for rows in (ours, eagers))
    assert off_ours < 1e-4
    assert off_ours < off_eager / 3


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jensen_shannon", "hellinger", "jeffreys"])
def test_rows_do_not_fall_below_0(kind):
    """Each term is at least 0 up to its own rounding, so a row of size 5e-9 is off by little more than its size."""
    student, _ = sides(0.0, torch.float32)
    teacher = student + 1e-4 * torch.randn(N, V, generator=torch.Generator().manual_seed(8))
    rows = tl.divergence(student, teacher, tl.divergences.ALL[kind](), reduction="none")
    assert rows.min() > -1e-8
    eagers = F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="none").sum(-1)
    assert eagers.min() < -1e-7


@pytest.mark.parametrize("weight", [1e-6, 1.0, 1e6])
def test_float16_gradients_neither_under_nor_overflow(weight):
    """The gradient is kept with its largest coefficient at 1, whatever the token weights and the loss scale are."""
    student, teacher = sides(NEAR["apart"], torch.float16)
    scale = 65536.0
    leaf = student.clone().requires_grad_()
    loss = tl.divergence(leaf, teacher, token_weights=torch.full((N,), weight), reduction="sum")
    (loss * (scale / weight / N)).backward()
    double = student.double().requires_grad_()
    (exact(double, teacher.double(), 1.0) * scale).backward()
    assert leaf.grad.isfinite().all()
    assert (leaf.grad.double() - double.grad).norm() / double.grad.norm() < 2e-3
