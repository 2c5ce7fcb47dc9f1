"""The objective is the same however a step is split: into micro-batches, over processes, whatever rows have labels."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from training_helpers import lines_of, make_rows, network, trainer_of

import tutelage as tl


def one_step(folder, size, accumulation, rows, **given):
    """Return the logged line and the gradient of one step: what plain SGD at a learning rate of 1 took off."""
    student = network(1)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    trainer = trainer_of(
        folder,
        rows,
        student,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulation,
        optim="sgd",
        learning_rate=1.0,
        max_grad_norm=0,
        lr_scheduler_type="constant",
        train_sampling_strategy="sequential",
        max_steps=1,
        **given,
    )
    trainer.train()
    gradient = {name: before[name] - value for name, value in student.state_dict().items()}
    return lines_of(trainer)[0], gradient


def truth(rows):
    """The loss, its parts and gradient in float64, by PyTorch's own functions."""
    student, teacher = network(1).double(), network(2, hidden=16).double()
    inputs = torch.stack([row["inputs"] for row in rows]).double()
    labels = torch.tensor([row["labels"] for row in rows])
    z, t = student(inputs), teacher(inputs).detach()
    soft = F.kl_div(F.log_softmax(z / 3, -1), F.log_softmax(t / 3, -1), log_target=True, reduction="batchmean")
    hard = F.cross_entropy(z, labels, ignore_index=-100)
    loss = 0.7 * 9 * soft + 0.3 * hard
    loss.backward()
    parts = {"loss": loss.item(), "soft": soft.item(), "hard": hard.item()}
    return parts, {name: p.grad for name, p in student.named_parameters()}


@pytest.mark.parametrize(("size", "accumulation"), [(8, 1), (4, 2), (2, 4), (1, 8)])
@pytest.mark.parametrize("labelled", [(0,), (1, 2, 3, 7), (6, 7)], ids=str)
def test_any_split_trains_the_same(tmp_path, size, accumulation, labelled):
    rows = make_rows(8, labelled)
    line, gradient = one_step(tmp_path, size, accumulation, rows)
    parts, expected = truth(rows)
    for name, value in parts.items():
        assert line[name] == pytest.approx(value, rel=1e-6), name
    for name, value in expected.items():
        torch.testing.assert_close(gradient[name].double(), value, rtol=1e-5, atol=1e-6)


def test_the_last_step_of_an_epoch_may_be_short(tmp_path):
    """Five rows by two: the third micro-batch of the only step has one row, and it counts as one row."""
    rows = make_rows(5, (0, 4))
    line, gradient = one_step(tmp_path, 2, 4, rows)
    parts, expected = truth(rows)
    assert line["loss"] == pytest.approx(parts["loss"], rel=1e-6)
    for name, value in expected.items():
        torch.testing.assert_close(gradient[name].double(), value, rtol=1e-5, atol=1e-6)


def test_a_step_without_labels_has_a_hard_term_of_zero(tmp_path):
    line, gradient = one_step(tmp_path, 4, 2, make_rows(16, (12,)))
    assert line["hard"] == 0
    assert line["soft"] > 0
    assert all(value.isfinite().all() for value in gradient.values())


def test_feature_terms_are_split_too(tmp_path):
    def objective():
        torch.manual_seed(0)
        term = tl.FeatureTerm(tl.LogitMSE(), "0", "0", projector=torch.nn.Linear(8, 16), weight=2.0)
        return tl.Objective({"hidden": term, "hard": tl.Term(tl.ForwardKL(), teacher="labels")})

    rows = make_rows(8, (0, 5, 6))
    whole, expected = one_step_with(tmp_path, 8, 1, rows, objective())
    for size, accumulation in ((4, 2), (1, 8)):
        line, gradient = one_step_with(tmp_path, size, accumulation, rows, objective())
        assert line["hidden"] == pytest.approx(whole["hidden"], rel=1e-6)
        for name, value in expected.items():
            torch.testing.assert_close(gradient[name], value, rtol=1e-5, atol=1e-6)


def one_step_with(folder, size, accumulation, rows, objective):
    student = network(1)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    trainer = trainer_of(
        folder,
        rows,
        student,
        objective=objective,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulation,
        optim="sgd",
        learning_rate=1.0,
        max_grad_norm=0,
        lr_scheduler_type="constant",
        train_sampling_strategy="sequential",
        max_steps=1,
    )
    trainer.train()
    return lines_of(trainer)[0], {name: before[name] - value for name, value in student.state_dict().items()}


COUNTS = (16, 15, 13)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """The folder in which two processes that train together keep what they found, by the number of rows."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("two_ranks.py")
    ranks = []
    for rank in range(2):
        environment = {
            **os.environ,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "OMP_NUM_THREADS": "1",
            "ACCELERATE_USE_CPU": "true",
        }
        command = [sys.executable, str(script), str(folder), *map(str, COUNTS)]
        ranks.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    try:
        outputs = [rank.communicate(timeout=240) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], outputs
    return folder


@pytest.mark.parametrize("count", COUNTS)
def test_two_processes_train_as_one(two_processes, tmp_path, count):
    """The last batches of 15 rows are filled up with one of the first, those of 13 with three: a rank has no other."""
    together = json.loads((two_processes / str(count) / "found.json").read_text())
    # Two ranks with two micro-batches of two rows each, against one process with steps of eight rows.
    alone = trainer_of(
        tmp_path,
        make_rows(count),
        network(1),
        eval_dataset=make_rows(7),
        per_device_train_batch_size=8,
        optim="sgd",
        learning_rate=1.0,
        max_grad_norm=0,
        lr_scheduler_type="constant",
        train_sampling_strategy="sequential",
        num_train_epochs=1,
    )
    alone.train()
    expected = alone.evaluate()
    for name, value in alone.distillation.student.state_dict().items():
        torch.testing.assert_close(torch.tensor(together["weights"][name]), value, rtol=1e-5, atol=1e-6)
    assert [line["step"] for line in together["lines"]] == [1, 2]
    for mine, theirs in zip(lines_of(alone), together["lines"], strict=True):
        assert theirs["epoch"] == mine["epoch"]
        for name in ("loss", "soft", "hard"):
            assert theirs[name] == pytest.approx(mine[name], rel=1e-5), name
    # Seven rows over two ranks of two: the eighth is a repeat and does not count.
    for name in ("eval_loss", "eval_soft", "eval_hard", "eval_kl", "eval_agreement", "eval_accuracy"):
        assert together["eval"][name] == pytest.approx(expected[name], rel=1e-5), name
