"""Shipped recipes as their users start them: by torchrun and by MPI, on a machine without a GPU."""

import json
import os
import socket
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
# What is random in a process: the dropout of the teacher, and with whom a row is mixed.
SAME = ["training.mix=0", "teacher.mlp.dropout=0"]
SHORT = ["training.epochs=null", "training.steps=20", "training.seeds=1", "teacher.fit.epochs=2"]
# What mpirun tells a process: how many there are, its number, and both of its machine.
MPI = {
    "MPICH": ("PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS", "MPI_LOCALRANKID"),
    "Open MPI": (
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
    ),
}


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def finished(processes):
    try:
        outputs = [process.communicate(timeout=400)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(outputs)
    return outputs


def start(words, folder, **environment):
    own = {"TUTELAGE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    environment = {**os.environ, **own, **environment}
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def train(folder, overrides):
    return [
        "-m",
        "tutelage",
        "train",
        "digits-few-labels",
        *SHORT,
        *overrides,
        "--no-report",
        "--out",
        str(folder / "run"),
    ]


def torchrun(folder, size, overrides=SAME):
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(size), "--master-port", free_port()]
    finished([start([sys.executable, *launcher, *train(folder, overrides)], folder)])


def lines_and_scores(folder):
    for arm in ("student", "baseline"):
        place = folder / "run" / "seed-0" / arm
        yield [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
        scores = json.loads((place / "scores.json").read_text())
        yield [{name: value for name, value in scores.items() if isinstance(value, (int, float))}]


def check_same(one, other):
    for mine, theirs in zip(lines_and_scores(one), lines_and_scores(other), strict=True):
        assert len(mine) == len(theirs)
        for line, its in zip(mine, theirs, strict=True):
            assert its == {name: pytest.approx(value, rel=1e-5, abs=1e-6) for name, value in line.items()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    finished([start([sys.executable, *train(folder, SAME)], folder)])
    return folder


@pytest.mark.parametrize("size", [1, 2, 4])
def test_torchrun(alone, tmp_path, size):
    torchrun(tmp_path, size)
    check_same(alone, tmp_path)


def test_torchrun_with_all_defaults(alone, tmp_path):
    """Dropout and mixtures are drawn by each process for itself, and the log is still that of one run."""
    torchrun(tmp_path, 2, [])
    (expected, *_), (lines, *_) = lines_and_scores(alone), lines_and_scores(tmp_path)
    assert [(line["step"], line.keys()) for line in lines] == [(line["step"], line.keys()) for line in expected]


@pytest.mark.parametrize("which", MPI)
def test_mpi(alone, tmp_path, which):
    size, rank, local_size, local_rank = MPI[which]
    port = free_port()
    first, second = finished(
        [
            start(
                [sys.executable, *train(tmp_path, SAME)],
                tmp_path,
                **{size: "2", local_size: "2", rank: number, local_rank: number, "MASTER_PORT": port},
            )
            for number in "01"
        ]
    )
    check_same(alone, tmp_path)
    assert "Distilling closed" in first
    assert "Distilling closed" not in second
