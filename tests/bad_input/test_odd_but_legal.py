"""Unusual tensors, modes and habits: they work, or say clearly why not."""

import copy
import threading

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import tutelage as tl
from tutelage.errors import DoubleBackwardError

# One for each way through the executor: formulas, autograd per block, the whole batch at once.
PATHS = [tl.ForwardKL(), tl.ReverseKL(), tl.DecoupledKD(), tl.AdaptiveKL(), tl.Dist()]
by_path = pytest.mark.parametrize("divergence", PATHS, ids=lambda divergence: divergence.kind)
LABELS = torch.tensor([0, 1, 2, 3])


@pytest.fixture
def student(generator):
    return torch.randn(4, 6, generator=generator, requires_grad=True)


@pytest.fixture
def teacher(generator):
    return torch.randn(4, 6, generator=generator)


def compare(student, teacher, divergence=PATHS[0], **arguments):
    labels = LABELS[: student.shape[0]].reshape(student.shape[:-1]) if divergence.needs_labels else None
    return tl.divergence(student, teacher, divergence, labels=labels, **arguments)


def plain_gradient(student, teacher, divergence=PATHS[0]):
    return torch.autograd.grad(compare(student, teacher, divergence), student)[0]


# --- shapes and strides -----------------------------------------------------------------------------------------------


# Without rows, with one row in several dimensions, with the fewest outcomes that all take, with one of each.
@pytest.mark.parametrize("shape", [(5,), (1, 1, 5), (4, 3), (1, 3)], ids=str)
@pytest.mark.parametrize("cls", tl.divergences.ALL.values(), ids=tl.divergences.ALL)
def test_small_shapes(cls, shape, generator):
    student = torch.randn(shape, generator=generator, requires_grad=True)
    teacher, divergence = torch.randn(shape, generator=generator), cls()
    labels = torch.zeros(shape[:-1], dtype=torch.int64) if divergence.needs_labels else None
    loss = tl.divergence(student, teacher, divergence, labels=labels)
    loss.backward()
    assert loss.shape == ()
    assert loss.isfinite()
    assert student.grad.shape == shape
    assert student.grad.isfinite().all()


def test_a_row_without_leading_dimensions_is_a_batch_of_one(student, teacher):
    for cls in tl.divergences.ALL.values():
        divergence = cls()
        label = torch.tensor(0) if divergence.needs_labels else None
        alone = tl.divergence(student[0], teacher[0], divergence, labels=label)
        batch = tl.divergence(student[:1], teacher[:1], divergence, labels=None if label is None else label[None])
        assert alone == batch, divergence


VIEWS = {
    "transposed": lambda x: x.t().contiguous().t(),
    "every-other-column": lambda x: x.repeat_interleave(2, dim=1)[:, ::2],
    "flipped-twice": lambda x: x.flip(1).flip(1),
    "slice-of-more": lambda x: torch.cat([x, x], 1)[:, :6],
    "permuted": lambda x: x.reshape(2, 2, 6).permute(2, 0, 1).contiguous().permute(1, 2, 0).reshape(4, 6),
}


@by_path
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_strides_do_not_matter(student, teacher, divergence, view):
    expected = plain_gradient(student, teacher, divergence)
    loss = compare(view(student), view(teacher), divergence)
    # Sums run in another order over other strides: equal but for rounding.
    torch.testing.assert_close(loss, compare(student, teacher, divergence), rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.autograd.grad(loss, student)[0], expected, rtol=1e-5, atol=1e-7)


def test_an_expanded_student_gathers_the_gradient_of_all_its_rows(teacher, generator):
    one = torch.randn(1, 6, generator=generator, requires_grad=True)
    (expanded,) = torch.autograd.grad(compare(one.expand(4, 6), teacher), one)
    (repeated,) = torch.autograd.grad(compare(one.repeat(4, 1), teacher), one)
    torch.testing.assert_close(expanded, repeated)
    assert compare(one.expand(4, 6), one.detach().expand(4, 6)) == 0


def test_leading_dimensions_of_permuted_hidden_states(generator):
    hidden = torch.randn(3, 2, 5, generator=generator, requires_grad=True)
    weight, teacher = torch.randn(6, 5, generator=generator), torch.randn(2, 3, 6, generator=generator)
    turned = hidden.transpose(0, 1)
    (head,) = torch.autograd.grad(tl.divergence(tl.HeadStates(turned, weight), teacher), hidden)
    (dense,) = torch.autograd.grad(tl.divergence(turned @ weight.T, teacher), hidden)
    torch.testing.assert_close(head, dense, rtol=1e-5, atol=1e-7)


def test_many_kept_ids(generator):
    values = torch.randn(2, 50_000, generator=generator)
    ids = torch.arange(50_000).expand(2, -1)
    student = torch.randn(2, 50_000, generator=generator)
    sparse = tl.divergence(student, tl.TopK(ids, values, {1.0: torch.full((2,), -torch.inf)}))
    torch.testing.assert_close(sparse, tl.divergence(student, values), rtol=1e-6, atol=0)


# --- dtypes -----------------------------------------------------------------------------------------------------------


@by_path
def test_sides_of_different_precision(student, teacher, divergence):
    mixed = compare(student, teacher.double(), divergence)
    assert mixed.dtype == torch.float64
    torch.testing.assert_close(mixed, compare(student.double(), teacher.double(), divergence), rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(mixed, student)
    assert gradient.dtype == torch.float32
    assert compare(student.bfloat16(), teacher.half(), divergence).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.float16, torch.float64])
def test_token_weights_of_any_real_dtype(student, teacher, dtype):
    weights = torch.tensor([1, 0, 1, 1]).to(dtype)
    value = tl.divergence(student, teacher, token_weights=weights)
    kept = torch.tensor([0, 2, 3])
    torch.testing.assert_close(value.float(), tl.divergence(student[kept], teacher[kept]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_loss_stays_in_float32(student, teacher, dtype):
    expected = plain_gradient(student, teacher)
    with torch.autocast("cpu", dtype=dtype):
        loss = compare(student, teacher)
        loss.backward()
    assert loss.dtype == torch.float32
    assert torch.equal(student.grad, expected)


# --- who gets a gradient ----------------------------------------------------------------------------------------------


@by_path
def test_a_trainable_teacher_is_a_constant(student, teacher, divergence):
    trainable, weights = teacher.clone().requires_grad_(), torch.ones(4, requires_grad=True)
    compare(student, trainable, divergence, token_weights=weights).backward()
    assert trainable.grad is None
    assert weights.grad is None
    assert torch.equal(student.grad, plain_gradient(student, teacher, divergence))
    with torch.no_grad():
        assert not compare(student.detach(), trainable, divergence).requires_grad


@by_path
def test_one_tensor_on_both_sides(student, divergence):
    doubled = student * 2
    compare(doubled, doubled, divergence).backward()
    assert compare(doubled, doubled, divergence) == 0
    torch.testing.assert_close(student.grad, torch.zeros(4, 6), rtol=0, atol=1e-7)


def test_a_student_that_is_no_leaf_and_is_used_twice(student, teacher):
    scaled = student * 2
    (compare(scaled, teacher) + compare(scaled, teacher) + scaled.sum()).backward()
    expected = 4 * plain_gradient(student.detach().mul(2).requires_grad_(), teacher) + 2
    torch.testing.assert_close(student.grad, expected)


def test_a_copied_student_starts_at_0_and_trains_alone(generator):
    model = torch.nn.Linear(3, 6)
    twin, x = copy.deepcopy(model), torch.randn(4, 3, generator=generator)
    loss = tl.divergence(twin(x), model(x))
    loss.backward()
    assert loss == 0
    assert model.weight.grad is None
    assert torch.equal(twin.weight.grad, torch.zeros(6, 3))


# --- modes ------------------------------------------------------------------------------------------------------------

MODES = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


@by_path
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_values_without_a_graph(student, teacher, divergence, mode):
    with mode():
        value = compare(student, teacher, divergence)
    assert not value.requires_grad
    assert value.item() == compare(student, teacher, divergence).item()


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_without_a_graph_no_gradient_is_computed(monkeypatch, teacher, mode):
    """An evaluation of a model with a trainable head must not pay for the head's gradient."""
    from tutelage.execution import _loop

    def refuse(*_):
        raise AssertionError("a weight gradient was computed though no graph is recorded")

    monkeypatch.setattr(_loop._Head, "add_weight_gradient", refuse)
    head = tl.HeadStates(torch.randn(4, 5), torch.nn.Parameter(torch.randn(6, 5)))
    with mode():
        tl.divergence(head, teacher)
    with pytest.raises(AssertionError, match="was computed"):
        tl.divergence(head, teacher)  # the trap is set where it should be


TEACHERS = {
    "Logits": lambda logits: logits,
    "HeadStates": lambda logits: tl.HeadStates(logits, torch.eye(6)),
    "TopK": lambda logits: tl.TopK(*reversed(logits.topk(2)), tail="renormalize"),
    "Mixture": lambda logits: tl.Mixture([tl.Logits(logits), tl.Logits(-logits)]),
}


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("make", TEACHERS.values(), ids=TEACHERS)
def test_a_teacher_run_in_inference_mode(student, teacher, make, reduction):
    """The usual way to run a teacher; autograd refuses to save such tensors as they are."""
    with torch.inference_mode():
        # A product, as a model's last layer makes it: a tensor of inference mode.
        side = make(teacher * 1)
    loss = tl.divergence(student, side, reduction=reduction).mean()
    loss.backward()
    expected = tl.divergence(student, make(teacher), reduction=reduction).mean()
    assert loss == expected
    assert torch.equal(student.grad, torch.autograd.grad(expected, student)[0])


@by_path
def test_every_path_takes_a_teacher_of_inference_mode(student, teacher, divergence):
    with torch.inference_mode():
        out = teacher * 1
    loss = compare(student, out, divergence)
    loss.backward()
    assert loss == compare(student, teacher, divergence)
    assert torch.equal(student.grad, plain_gradient(student, teacher, divergence))


@by_path
def test_gradient_checkpointing_around_the_loss(student, teacher, divergence):
    loss = checkpoint(lambda x: compare(x * 2, teacher, divergence), student, use_reentrant=False)
    assert loss == compare(student * 2, teacher, divergence)
    expected = torch.autograd.grad(compare(student * 2, teacher, divergence), student)[0]
    assert torch.equal(torch.autograd.grad(loss, student)[0], expected)


@by_path
def test_saved_tensors_on_another_device(student, teacher, divergence):
    expected = plain_gradient(student, teacher, divergence)
    with torch.autograd.graph.save_on_cpu():
        loss = compare(student, teacher, divergence)
    assert torch.equal(torch.autograd.grad(loss, student)[0], expected)


def test_under_deterministic_algorithms(student, teacher):
    expected = plain_gradient(student, teacher)
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.equal(plain_gradient(student, teacher), expected)
        shared = tl.VocabularyMap([0, 2], [1, 0])
        tl.divergence(student, teacher, vocabulary=shared).backward()
        tl.divergence(student, tl.TopK(*reversed(teacher.topk(2)), tail="renormalize")).backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert student.grad.isfinite().all()


# --- backward, more than once, too late, or twice ---------------------------------------------------------------------


@by_path
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_retained_graph_gives_the_same_gradient_again(student, teacher, divergence, reduction):
    if isinstance(divergence, tl.Dist) and reduction == "none":
        reduction = "sum"
    loss = compare(student * 2, teacher, divergence, reduction=reduction).sum()
    (first,) = torch.autograd.grad(loss, student, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(loss * 3, student, retain_graph=True)
    # Elements that nearly cancel are as exact as the gradient is, not as they are small.
    torch.testing.assert_close(second, 3 * kept, rtol=1e-6, atol=1e-6 * float(kept.abs().max()))
    assert torch.equal(first, kept)  # the second backward left the first one's tensor alone
    loss.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


CHANGES = {
    "student": lambda student, teacher, weights, labels: student.mul_(2),
    "teacher": lambda student, teacher, weights, labels: teacher.mul_(2),
    "weights": lambda student, teacher, weights, labels: weights.mul_(2),
    "labels": lambda student, teacher, weights, labels: labels.zero_(),
}


@by_path
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_was_changed_since_the_call_is_noticed(student, teacher, divergence, change, reduction):
    if isinstance(divergence, tl.Dist) and reduction == "none":
        reduction = "sum"
    scaled, weights, labels = student * 2, torch.ones(4), LABELS.clone()
    loss = tl.divergence(
        scaled,
        teacher,
        divergence,
        token_weights=weights,
        labels=labels if divergence.needs_labels else None,
        reduction=reduction,
    )
    with torch.no_grad():
        change(scaled, teacher, weights, labels)
    if change is CHANGES["labels"] and not divergence.needs_labels:
        loss.sum().backward()  # labels that nobody read may change
        return
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.sum().backward()


@by_path
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_second_derivative_is_refused(student, teacher, divergence, reduction):
    if isinstance(divergence, tl.Dist) and reduction == "none":
        reduction = "sum"

    def gradient():
        loss = compare(student, teacher, divergence, reduction=reduction).sum()
        return torch.autograd.grad(loss, student, create_graph=True)[0]

    with pytest.raises(DoubleBackwardError, match=r"second derivative.*first derivatives only.*plain PyTorch"):
        gradient().square().sum().backward()
    # Whoever asks for the student's part alone must not be told that there is none.
    with pytest.raises(DoubleBackwardError, match="second derivative"):
        torch.autograd.grad(gradient().square().sum(), student, allow_unused=True)


def test_a_hessian_is_not_silently_0(student, teacher):
    with pytest.raises(DoubleBackwardError, match="second derivative"):
        torch.autograd.functional.hessian(lambda x: tl.divergence(x, teacher), student.detach())


def test_create_graph_alone_is_fine(student, teacher):
    (gradient,) = torch.autograd.grad(compare(student, teacher), student, create_graph=True)
    torch.testing.assert_close(gradient.detach(), plain_gradient(student, teacher))


def test_function_transforms_are_refused_by_torch(student, teacher):
    with pytest.raises(RuntimeError, match="functorch transforms"):
        torch.func.grad(lambda x: tl.divergence(x, teacher))(student.detach())


# --- threads ----------------------------------------------------------------------------------------------------------


def test_threads_do_not_disturb_each_other(generator):
    students = torch.randn(6, 32, 50, generator=generator)
    teachers = torch.randn(6, 32, 50, generator=generator)
    expected = [plain_gradient(s.clone().requires_grad_(), t) for s, t in zip(students, teachers, strict=True)]
    got = [None] * 6

    def work(i):
        with tl.execution.byte_budget(200 * (i + 1)):
            got[i] = plain_gradient(students[i].clone().requires_grad_(), teachers[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-9)
