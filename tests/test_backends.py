"""Who runs a block, and how much of it exists at once: neither ever changes the result."""

import logging
import shutil
import threading

import pytest
import torch

import tutelage as tl
from tutelage.errors import BackendError, ParameterError
from tutelage.execution import BACKENDS, _backends, byte_budget
from tutelage.execution._budget import budget_for

CPU = torch.device("cpu")


@pytest.fixture
def sides(generator):
    student, teacher = torch.randn(2, 40, 30, generator=generator)
    return student.requires_grad_(), teacher, torch.randint(30, (40,), generator=generator)


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)


class Recorder(_backends.Torch):
    """A backend that counts the blocks it runs and the rows in each."""

    name = "recorder"

    def __init__(self):
        self.rows = []

    def block_function(self, spec):
        run = super().block_function(spec)

        def counted(inputs):
            self.rows.append(inputs.student.shape[0])
            return run(inputs)

        return counted


@pytest.fixture
def recorder(monkeypatch):
    backend = Recorder()
    monkeypatch.setitem(BACKENDS, "recorder", backend)
    return backend


# --- the choice -------------------------------------------------------------------------------------------------------


def test_auto_says_why_and_only_once(sides, caplog):
    student, teacher, _ = sides
    _backends._log_once.cache_clear()
    with caplog.at_level(logging.INFO, logger="tutelage"):
        for _ in range(3):
            tl.divergence(student, teacher)
            tl.Objective({"soft": tl.Term(tl.ReverseKL())})(student, {"teacher": teacher})
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("tutelage")]
    assert len(messages) == 1
    assert "auto" in messages[0]
    assert "'torch'" in messages[0]
    assert "'compile' is faster once compiled" in messages[0]


def test_a_backend_that_was_asked_for_is_not_explained(sides, caplog):
    student, teacher, _ = sides
    _backends._log_once.cache_clear()
    with caplog.at_level(logging.DEBUG, logger="tutelage"):
        tl.divergence(student, teacher, backend="torch")
    assert not [record for record in caplog.records if record.name.startswith("tutelage")]


def test_the_requested_backend_runs(sides, recorder):
    student, teacher, labels = sides
    asked = tl.divergence(student, teacher, backend="recorder")
    assert recorder.rows == [40]
    assert asked == tl.divergence(student, teacher, backend="torch") == tl.divergence(student, teacher)
    assert recorder.rows == [40]
    objective = tl.Objective({"soft": tl.Term(tl.ForwardKL())}, backend="recorder")
    objective(student, {"teacher": teacher})
    assert recorder.rows == [40, 40]
    # All terms of an objective run in one pass over the rows.
    several = {kind: tl.Term(cls()) for kind, cls in tl.divergences.ALL.items() if kind != "dist"}
    tl.Objective(several, backend="recorder")(student, {"teacher": teacher, "labels": tl.Labels(labels)})
    assert recorder.rows == [40, 40, 40]


@pytest.mark.parametrize("name", ["triton", "Torch", "", "cuda"])
def test_an_unknown_backend(sides, name):
    student, teacher, _ = sides
    with pytest.raises(BackendError) as caught:
        tl.divergence(student, teacher, backend=name)
    assert caught.type is BackendError
    assert isinstance(caught.value, ValueError)
    assert f"backend {name!r} does not exist; expected 'auto' or one of ['compile', 'torch']" in str(caught.value)
    with pytest.raises(BackendError, match="does not exist"):
        tl.Objective({"soft": tl.Term(tl.ForwardKL())}, backend=name)(student, {"teacher": teacher})


def test_the_whole_batch_is_not_compiled(sides):
    student, teacher, _ = sides
    reason = "backend 'compile' cannot run this: .*whole batch does not run in blocks; use backend='auto'"
    with pytest.raises(BackendError, match=reason):
        tl.divergence(student, teacher, tl.Dist(), backend="compile")
    mixed = tl.Objective({"kl": tl.Term(tl.ForwardKL()), "dist": tl.Term(tl.Dist())}, backend="compile")
    with pytest.raises(BackendError, match=reason):
        mixed(student, {"teacher": teacher})
    assert tl.divergence(student, teacher, tl.Dist(), backend="auto") > 0


def test_compile_without_a_compiler(sides, no_compiler):
    student, teacher, _ = sides
    with pytest.raises(BackendError, match=r"'compile' cannot run this: .*C\+\+ compiler.*CXX.*use backend='auto'"):
        tl.divergence(student, teacher, backend="compile")
    assert tl.divergence(student, teacher) == tl.divergence(student, teacher, backend="torch")


def test_the_compiler_may_be_named_in_the_environment(sides, monkeypatch):
    monkeypatch.setenv("CXX", "my-compiler")
    monkeypatch.setattr(shutil, "which", lambda name: f"/opt/{name}" if name == "my-compiler" else None)
    assert _backends._has_cpp_compiler()
    monkeypatch.delenv("CXX")
    assert not _backends._has_cpp_compiler()


@pytest.mark.skipif(not _backends._has_cpp_compiler(), reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # torch's own, while it compiles
@pytest.mark.slow
def test_compiling_changes_nothing(sides):
    student, teacher, labels = sides
    terms = {
        kind: tl.Term(tl.divergences.ALL[kind](), temperature=2.0)
        for kind in ("forward_kl", "jensen_shannon", "decoupled_kd", "logit_cosine")
    }
    results = []
    for backend in ("torch", "compile"):
        out = tl.Objective(terms, backend=backend)(student, {"teacher": teacher, "labels": tl.Labels(labels)})
        results.append((out, torch.autograd.grad(out.loss, student)[0]))
    (eager, eager_gradient), (compiled, compiled_gradient) = results
    torch.testing.assert_close(compiled.loss, eager.loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(compiled_gradient, eager_gradient, rtol=1e-5, atol=1e-7)
    for name in terms:
        torch.testing.assert_close(compiled.parts[name], eager.parts[name], rtol=1e-6, atol=0)


# --- the budget -------------------------------------------------------------------------------------------------------

ROW = 30 * 4  # bytes of a row of logits


# One row at a time, some rows with a rest, exactly half, all at once, and less than a row.
@pytest.mark.parametrize(
    ("block_bytes", "blocks"),
    [(ROW, [1] * 40), (7 * ROW, [7] * 5 + [5]), (20 * ROW, [20, 20]), (10**9, [40]), (1, [1] * 40)],
)
def test_blocks_fit_the_budget(sides, recorder, block_bytes, blocks):
    student, teacher, labels = sides
    expected = tl.divergence(student, teacher, tl.DecoupledKD(), labels=labels)
    (gradient,) = torch.autograd.grad(expected, student)
    with byte_budget(block_bytes):
        value = tl.divergence(student, teacher, tl.DecoupledKD(), labels=labels, backend="recorder")
    assert recorder.rows == blocks
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.autograd.grad(value, student)[0], gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize(
    ("chunk_bytes", "block_bytes"), [(1, 1), (50 * ROW, 3 * ROW), (9 * ROW, 2 * ROW), (10**9, ROW)]
)
def test_the_budget_never_changes_the_result(generator, chunk_bytes, block_bytes, reduction):
    """Heads on both sides, weights that part the rows, a map, and gradients of hidden states, weight and bias."""
    hidden = torch.randn(40, 6, generator=generator, requires_grad=True)
    weight = torch.randn(30, 6, generator=generator, requires_grad=True)
    bias = torch.randn(30, generator=generator, requires_grad=True)
    other = tl.HeadStates(torch.randn(40, 9, generator=generator), torch.randn(28, 9, generator=generator))
    weights = torch.randint(3, (40,), generator=generator)

    def run():
        value = tl.divergence(
            tl.HeadStates(hidden, weight, bias, softcap=20.0),
            other,
            tl.Jeffreys(),
            temperature=2.0,
            token_weights=weights,
            vocabulary=tl.VocabularyMap.prefix(25),
            reduction=reduction,
        )
        return [value, *torch.autograd.grad(value.sum(), (hidden, weight, bias))]

    expected = run()
    with byte_budget(chunk_bytes, block_bytes):
        got = run()
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bad", [0, -1, 1.5, "1", None, True], ids=repr)
def test_a_budget_is_a_number_of_bytes(bad):
    with pytest.raises(ParameterError, match=rf"byte_budget\(chunk_bytes={bad!r}\): expected a number of bytes >= 1"):
        byte_budget(bad).__enter__()
    if bad is not None:  # None: the same as the chunk
        with pytest.raises(ParameterError, match=rf"byte_budget\(block_bytes={bad!r}\)"):
            byte_budget(10, bad).__enter__()
    assert budget_for(CPU).chunk_bytes > 10**6


def test_budgets_nest_and_end():
    default = budget_for(CPU)
    with byte_budget(100):
        assert budget_for(CPU).chunk_bytes == budget_for(CPU).block_bytes == 100
        with byte_budget(300, block_bytes=30):
            assert (budget_for(CPU).chunk_bytes, budget_for(CPU).block_bytes) == (300, 30)
        assert budget_for(CPU).chunk_bytes == 100
    assert budget_for(CPU) == default


def test_an_error_ends_the_budget():
    default = budget_for(CPU)
    with pytest.raises(KeyError), byte_budget(100):
        raise KeyError
    assert budget_for(CPU) == default


def test_a_budget_holds_in_its_thread_only():
    default, seen = budget_for(CPU), {}
    inside, looked = threading.Event(), threading.Event()

    def hold():
        with byte_budget(100):
            inside.set()
            looked.wait(10)
            seen["holder"] = budget_for(CPU).chunk_bytes

    def look():
        inside.wait(10)
        seen["other"] = budget_for(CPU)
        looked.set()

    with byte_budget(777):
        threads = [threading.Thread(target=work) for work in (hold, look)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert budget_for(CPU).chunk_bytes == 777
    assert seen == {"holder": 100, "other": default}


def test_a_backward_uses_the_budget_of_its_forward(sides, recorder):
    student, teacher, _ = sides
    with byte_budget(7 * ROW):
        rows = tl.divergence(student, teacher, reduction="none", backend="recorder")
    recorder.rows.clear()
    rows.sum().backward()
    assert recorder.rows == [7] * 5 + [5]


def test_rows_of_weight_0_cost_no_work(sides, recorder):
    student, teacher, labels = sides
    weights = torch.zeros(40)
    weights[[3, 8, 30]] = 1
    tl.divergence(student, teacher, token_weights=weights, backend="recorder")
    assert recorder.rows == [3]
    recorder.rows.clear()
    # One pass for the rows of both terms, one for those of one term: none sees a row that does not count for it.
    objective = tl.Objective(
        {"soft": tl.Term(tl.ForwardKL()), "hard": tl.Term(tl.ForwardKL(), teacher="labels")}, backend="recorder"
    )
    objective(student, {"teacher": teacher, "labels": tl.Labels(labels)}, token_weights={"hard": weights})
    assert sorted(recorder.rows) == [3, 37]
    recorder.rows.clear()
    objective(student, {"teacher": teacher, "labels": tl.Labels(labels)}, token_weights=torch.zeros(40))
    assert recorder.rows == []
