"""Several processes write one checkpoint, or none; a checkpoint of more or fewer is gone on from with a word."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from subjects import EVERY, STEPS, OfATrainer, listening


@pytest.mark.slow
def test_two_processes_write_one_checkpoint(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = Path(__file__).parent
    paths = [str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    running = [
        subprocess.Popen(
            [sys.executable, str(here / "saving_ranks.py"), str(tmp_path), rank],
            env={**environment, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]
    told = [process.communicate(timeout=250)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], told[0] + told[1]
    # One process goes on from what two have written, with the sums of both.
    folder = tmp_path / "full"
    with listening("tutelage") as warned:
        trainer = OfATrainer().train(folder, resume=folder / f"checkpoint-{EVERY}")
    assert trainer.state.global_step == STEPS
    assert "was written by 2 processes, and this training has 1" in warned[0]
