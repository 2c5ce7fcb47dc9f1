"""The loop itself: groups of rows, masks, memory, autocast, and what stays alive afterwards."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import tutelage as tl
from tutelage.execution import Job, byte_budget
from tutelage.execution._block import BlockInputs, run_block
from tutelage.execution._plan import make_plan

N, D, V = 24, 6, 40
TERMS = {
    "soft": tl.Term(tl.JensenShannon(), temperature=2.0, weight=0.7),
    "hard": tl.Term(tl.ForwardKL(), teacher="labels", weight=0.3),
    "raw": tl.Term(tl.LogitMSE(), weight=0.1),
}


def sides(generator, dtype=torch.float64):
    hidden, weight, bias = (torch.randn(s, generator=generator, dtype=dtype) for s in ((N, D), (V, D), (V,)))
    teacher = torch.randn(N, V, generator=generator, dtype=dtype)
    labels = torch.randint(V, (N,), generator=generator)
    return [tensor.requires_grad_() for tensor in (hidden, weight, bias)], teacher, labels


# Blocks of one row, blocks that do not divide the rows, and all rows at once.
@pytest.mark.parametrize("rows", [1, 5, 100])
def test_rows_that_count_for_some_terms_only(generator, rows):
    """Unlabelled rows hold the label -100, rows without a teacher hold NaN: neither may leave a trace."""
    leaves, teacher, labels = sides(generator)
    weights = {
        "soft": torch.rand(N, generator=generator).double().masked_fill(torch.arange(N) % 3 == 0, 0),
        "hard": torch.rand(N, generator=generator).double().masked_fill(torch.arange(N) % 4 == 1, 0),
        "raw": (torch.arange(N) % 3 != 0).double(),
    }
    junk_teacher = teacher.masked_fill((weights["soft"] == 0)[:, None], torch.nan)
    junk_labels = labels.masked_fill(weights["hard"] == 0, -100)
    with byte_budget(rows * V * 8 * 2, rows * V * 8):
        out = tl.Objective(TERMS)(
            tl.HeadStates(*leaves), {"teacher": junk_teacher, "labels": tl.Labels(junk_labels)}, token_weights=weights
        )
    gradients = torch.autograd.grad(out.loss, leaves)

    hidden, weight, bias = leaves
    logits = F.linear(hidden, weight, bias)
    log_q, log_p = (logits / 2).log_softmax(-1), (teacher / 2).log_softmax(-1)
    log_m = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0, dtype=torch.float64))
    soft = 0.5 * (log_p.exp() * (log_p - log_m)).sum(-1) + 0.5 * (log_q.exp() * (log_q - log_m)).sum(-1)
    each = {
        "soft": soft,
        "hard": F.cross_entropy(logits, labels, reduction="none"),
        "raw": (logits - teacher).square().mean(-1),
    }
    parts = {name: (weights[name] * each[name]).sum() / weights[name].sum() for name in TERMS}
    loss = 0.7 * 4 * parts["soft"] + 0.3 * parts["hard"] + 0.1 * parts["raw"]
    torch.testing.assert_close(out.loss, loss)
    for name, part in parts.items():
        torch.testing.assert_close(out.parts[name], part.detach())
    for mine, theirs in zip(gradients, torch.autograd.grad(loss, leaves), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_gradients_per_row_with_a_trainable_head(generator):
    leaves, teacher, _ = sides(generator)
    upstream = torch.randn(N, generator=generator, dtype=torch.float64)
    rows = tl.divergence(tl.HeadStates(*leaves), teacher, reduction="none")
    plain = F.kl_div(F.linear(*leaves).log_softmax(-1), teacher.softmax(-1), reduction="none").sum(-1)
    torch.testing.assert_close(rows, plain)
    mine = torch.autograd.grad(rows, leaves, upstream)
    for gradient, expected in zip(mine, torch.autograd.grad(plain, leaves, upstream), strict=True):
        torch.testing.assert_close(gradient, expected)


def test_autocast_reaches_the_products_and_nothing_else(generator):
    leaves, teacher, _ = sides(generator, torch.float32)
    seen = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if "mm" in str(func):
                seen.add(out.dtype)
            return out

    with Watch(), torch.autocast("cpu", dtype=torch.bfloat16):
        loss = tl.divergence(tl.HeadStates(*leaves), teacher)
    assert seen == {torch.bfloat16}
    assert loss.dtype == torch.float32
    half = [leaf.detach().bfloat16() for leaf in leaves]
    torch.testing.assert_close(loss, tl.divergence(tl.HeadStates(*half), teacher), rtol=1e-6, atol=0)
    assert all(gradient.dtype == torch.float32 for gradient in torch.autograd.grad(loss, leaves))


@pytest.mark.parametrize(
    "teacher",
    ["logits", "labels", "top-k"],
)
def test_the_masked_path_of_a_gpu(generator, teacher):
    """There rows of weight 0 are computed and masked: whatever stands in them must change nothing."""
    student = torch.randn(N, V, generator=generator)
    logits, labels = torch.randn(N, V, generator=generator), torch.randint(V, (N,), generator=generator)
    keep = torch.arange(N) % 3 != 0
    kept, ids = logits.topk(3)
    tails = logits.scatter(1, ids, -torch.inf).logsumexp(-1)
    side = {"logits": tl.Logits(logits), "labels": tl.Labels(labels), "top-k": tl.TopK(ids, kept, {1.0: tails})}[
        teacher
    ]
    plan = make_plan(tl.Logits(student), [Job(tl.ForwardKL(), side)])
    inputs = BlockInputs(
        student=student,
        teachers=[plan.sources[0].tensors],
        coefficients=torch.ones(1, N),
        labels=None,
        keep=None,
        temperatures=[1.0],
        student_ids=None,
        teacher_ids=None,
    )
    values, gradient = run_block(plan.spec, inputs)
    junk = [
        tensor.masked_fill(
            ~keep.reshape(-1, *[1] * (tensor.dim() - 1)), torch.nan if tensor.is_floating_point() else -100
        )
        for tensor in plan.sources[0].tensors
    ]
    masked = replace(
        inputs,
        student=student.masked_fill(~keep[:, None], torch.nan),
        teachers=[junk],
        coefficients=keep[None].float(),
        keep=keep[None],
    )
    got_values, got_gradient = run_block(plan.spec, masked)
    torch.testing.assert_close(got_values, torch.where(keep, values, 0.0))
    torch.testing.assert_close(got_gradient, torch.where(keep[:, None], gradient, 0.0))


class Largest(TorchDispatchMode):
    """The largest tensor that any operation makes, in elements, views left out."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (list, tuple)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return out


def test_the_logits_of_the_batch_never_exist():
    rows, columns = 512, 2000
    hidden, weight = torch.randn(rows, 8, requires_grad=True), torch.randn(columns, 8, requires_grad=True)
    teacher = tl.HeadStates(torch.randn(rows, 4), torch.randn(columns, 4))
    labels = tl.Labels(torch.randint(columns, (rows,)))
    with byte_budget(2 * 32 * columns * 4, 8 * columns * 4), Largest() as largest:
        out = tl.Objective(TERMS)(tl.HeadStates(hidden, weight), {"teacher": teacher, "labels": labels})
        out.loss.backward()
    # Chunks of 32 rows; the hidden states and the head are smaller than that.
    assert largest.elements == 32 * columns
    with Largest() as largest:
        F.cross_entropy(F.linear(hidden, weight), labels.targets).backward()
    assert largest.elements == rows * columns


def test_a_loss_that_lives_on_does_not_keep_the_logits_alive():
    leaf = torch.randn(N, V, requires_grad=True)
    logits, teacher = leaf * 2, torch.randn(N, V)
    alive = [weakref.ref(tensor.untyped_storage()) for tensor in (logits, teacher)]
    loss = tl.divergence(logits, teacher)
    loss.backward()
    del logits, teacher
    gc.collect()
    assert [storage() for storage in alive] == [None, None]
    assert loss.item() > 0


def test_a_graph_that_is_dropped_leaves_nothing():
    gc.collect()
    gc.disable()
    try:
        logits = torch.randn(N, V, requires_grad=True) * 2
        alive = weakref.ref(logits.untyped_storage())
        loss = tl.divergence(logits, torch.randn(N, V))
        del logits, loss
        # By reference counts alone: no cycle for the collector to find.
        assert alive() is None
    finally:
        gc.enable()
