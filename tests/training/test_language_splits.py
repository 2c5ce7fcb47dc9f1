"""A step of a language model is the same however it is split, over micro-batches and over processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors
import torch
import transformers
from language_helpers import COLLATE, OBJECTIVE, ROWS, check, one_step, student, teacher, trainer_of, truth

import tutelage as tl
from tutelage.models import HeadModel
from tutelage.tasks import CausalLM


@pytest.fixture(scope="module")
def expected():
    return {tied: truth(student(tie_word_embeddings=tied)) for tied in (True, False)}


@pytest.mark.parametrize(("size", "accumulation"), [(8, 1), (1, 8), (2, 4), (3, 3)])
def test_any_split_trains_the_truth(tmp_path, expected, size, accumulation):
    """Of the micro-batches of one row, one has no target at all and two have no label."""
    check(one_step(tmp_path, size=size, accumulation=accumulation), expected[True])


def test_the_head_and_whole_logits_train_the_same(tmp_path, expected):
    trainer = trainer_of(tmp_path)
    assert isinstance(trainer.distillation.student, HeadModel)
    assert all(isinstance(each.module, HeadModel) for each in trainer.distillation.teachers.values())
    dense = tl.DistillationModel(student(), {"teacher": teacher()}, OBJECTIVE, CausalLM())
    # The names of a model that is not wrapped begin as those of one that is.
    line, gradient = one_step(tmp_path, dense)
    check((line, gradient), prefixed(expected[True]))


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What two processes over gloo wrote, each with two micro-batches of two rows."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("language_ranks.py")
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    places = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    common |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": os.pathsep.join(places)}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(folder)],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [rank.communicate(timeout=240)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(outputs)
    return folder


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("by", ["trainer", "recomputed", "torch", "accelerate"])
def test_two_processes_train_the_truth(two_processes, expected, by, tied):
    """By DDP through the trainer; sharded by torch's fully_shard; sharded as accelerate does it on a GPU."""
    line, gradient = torch.load(two_processes / f"{by}-{tied}.pt", weights_only=True)
    check((line, gradient), expected[tied])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("by", ["trainer", "torch", "accelerate"])
def test_two_processes_save_the_student_alone(two_processes, by, tied):
    folder = two_processes / f"{by}-{tied}-saved"
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert ("lm_head.weight" in names) != tied
    assert not any(name.startswith(("student", "model.model")) for name in names)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    batch = COLLATE(list(ROWS))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids")}
    with torch.no_grad():
        logits = loaded(**inputs).logits
    trained = torch.load(two_processes / f"{by}-{tied}-logits.pt", weights_only=True)
    assert torch.equal(logits[batch["attention_mask"].bool()], trained[batch["attention_mask"].bool()])
    if by == "trainer":
        with torch.no_grad():
            before = student(tie_word_embeddings=tied)(**inputs).logits
        assert not torch.allclose(logits, before, atol=1e-3)


def test_two_processes_evaluate_as_one(two_processes, tmp_path):
    trainer = trainer_of(tmp_path, eval_dataset=ROWS, max_steps=1)
    trainer.train()
    expected = {name: value for name, value in trainer.evaluate().items() if not name.endswith(("_second", "_runtime"))}
    found = torch.load(two_processes / "evaluated.pt", weights_only=True)
    assert {"eval_nll", "eval_kl", "eval_agreement", "eval_accuracy", "eval_soft"} <= expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


def test_counts_are_not_rounded_where_sharding_is_in_half_precision(two_processes):
    found = torch.load(two_processes / "counts.pt", weights_only=True)
    assert found == {"soft": 1001.0, "hard": 1001.0}


def test_a_teacher_may_be_sharded_too(two_processes, expected):
    found = torch.load(two_processes / "teachers.pt", weights_only=True)
    for again in ("None", "False"):
        for name, value in found[again].items():
            assert value == pytest.approx(expected[True][0][name], rel=1e-5)
    assert "'teacher' was sharded again" in found["True"]
    assert "reshard_after_forward=False" in found["True"]


def prefixed(step):
    parts, gradient = step
    return parts, {name.removeprefix("model."): value for name, value in gradient.items()}
