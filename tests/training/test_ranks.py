"""Two and four processes that a launcher started on a machine without a GPU train, evaluate and score as one."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("ranks.py")
RECIPE = """
data: {table: clouds.csv, target: kind, labeled: 15}
teacher: {mlp: {hidden: [12]}, fit: {epochs: 4, batch_size: 16, learning_rate: 0.01}}
student: {mlp: {hidden: [4]}}
objective:
  soft: {forward_kl: {}, temperature: 2, weight: 0.9}
  hard: {forward_kl: {}, teacher: labels, weight: 0.1}
training: {steps: 20, batch_size: 8, learning_rate: 0.01, seeds: 1}
baseline: true
"""


def write_recipe(folder):
    """Write a recipe that leaves the device to tutelage, as the shipped ones do, and its table."""
    random = np.random.default_rng(5)
    centres = {"a": (0, 0, 0), "b": (2, 0, 1), "c": (0, 2, -1)}
    rows = [[*random.normal(centre), kind] for kind, centre in centres.items() for _ in range(40)]
    lines = ["x,y,z,kind", *(",".join(map(str, row)) for row in rows)]
    (folder / "clouds.csv").write_text("\n".join(lines) + "\n")
    (folder / "clouds.yaml").write_text(RECIPE)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worlds")
    write_recipe(folder)
    places = [str(SCRIPT.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-8000:]
    return folder


def found(worlds, size, rank=0):
    return json.loads((worlds / str(size) / f"{rank}.json").read_text())


def close(mine, theirs):
    """Whether numbers, in whatever they are kept, agree to 1e-5; everything else has to be equal."""
    if isinstance(theirs, dict):
        return mine.keys() == theirs.keys() and all(close(mine[name], theirs[name]) for name in theirs)
    if isinstance(theirs, list):
        return len(mine) == len(theirs) and all(map(close, mine, theirs))
    if isinstance(theirs, float):
        return math.isclose(mine, theirs, rel_tol=1e-5, abs_tol=1e-6)
    return bool(mine == theirs)


@pytest.mark.parametrize("size", [2, 4])
def test_plain_arguments_train_as_one_process(worlds, size):
    alone, together = found(worlds, 1), found(worlds, size)
    assert (alone["world"], together["world"]) == (1, size)
    assert [line["step"] for line in together["lines"]] == list(range(1, 21))
    assert close(together["lines"], alone["lines"])
    assert close(together["weights"], alone["weights"])


@pytest.mark.parametrize("size", [2, 4])
def test_processes_without_a_row_or_a_label_evaluate_as_one(worlds, size):
    alone, together = found(worlds, 1), found(worlds, size)
    labelled, unlabelled, _ = together["evaluated"]
    assert {"eval_loss", "eval_soft", "eval_hard", "eval_accuracy", "eval_kl", "eval_agreement"} <= labelled.keys()
    assert "eval_hard" not in unlabelled
    assert close(together["evaluated"], alone["evaluated"])
    assert close(together["predictions"], alone["predictions"])
    assert together["labels"] == alone["labels"]


@pytest.mark.parametrize("size", [2, 4])
def test_rows_without_a_length(worlds, size):
    assert close(found(worlds, size)["stream"], found(worlds, 1)["stream"])


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("arm", ["student", "baseline"])
def test_a_recipe_is_one_run(worlds, size, arm):
    def of(size, name):
        return (worlds / str(size) / "run" / "seed-0" / arm / name).read_text()

    def lines(size):
        return [json.loads(line) for line in of(size, "metrics.jsonl").splitlines()]

    assert len(lines(1)) == 40
    assert close(lines(size), lines(1))
    assert close(json.loads(of(size, "scores.json")), json.loads(of(1, "scores.json")))


def test_what_ddp_cannot_do_is_said_and_recomputed_activations_train_as_one(worlds):
    alone, together = found(worlds, 1), found(worlds, 2)
    assert close(together["recomputed"], alone["recomputed"])
    assert "got its gradient twice" in together["twice"]
    assert "ddp_find_unused_parameters=False" in together["twice"]
    assert "requires a gradient got none" in together["unused"]
    assert "ddp_find_unused_parameters=True" in together["unused"]


def test_rows_that_are_grouped_by_length(worlds):
    """In one order: in both processes, though dropout draws as many numbers as their rows are long, and resumed."""
    alone, together = found(worlds, 1)["grouped"], found(worlds, 2)["grouped"]
    assert all(each["resumed"] for each in (*alone, *together))
    assert close(together[0]["lines"], alone[0]["lines"])
    for without, first, second in zip(alone, together, found(worlds, 2, rank=1)["grouped"], strict=True):
        for epoch in (slice(0, 8), slice(8, 16)):
            assert sorted(without["rows"][epoch]) == list(range(8))
            half = slice(epoch.start // 2, epoch.stop // 2)
            assert sorted(first["rows"][half] + second["rows"][half]) == list(range(8))


def test_a_trainer_that_does_not_know_of_the_others_does_not_train(worlds):
    said = found(worlds, 2)["late"]
    assert "torch.distributed has connected 2 processes, and the trainer's accelerator sees 1" in said
    assert "start with torchrun" in said
