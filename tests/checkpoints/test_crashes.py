"""A training that is killed at any moment, or whose disk fails or is full, goes on to the bytes of one that was not."""

import errno
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import time

import pytest
import torch
from subjects import EVERY, STEPS, OfARecipe, OfATrainer, digits

from file_faults import KILLED, fail_at
from tutelage.config import load
from tutelage.runs import run
from tutelage.training import last_checkpoint

# The modules are loaded once: each training to be killed is a fork of this process. CUDA cannot be forked.
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a process that has used CUDA cannot be forked")
FORK = multiprocessing.get_context("fork")
LIMIT = 2


class Training:
    """A plain trainer that keeps two checkpoints."""

    def __init__(self, root):
        self.subject = OfATrainer()
        self.expected = self.subject.result(self.go_on(root / "whole"), root / "whole")

    def go_on(self, folder):
        whole = last_checkpoint(folder)
        return self.subject.train(folder, resume=None if whole is None else True, save_total_limit=LIMIT)

    def check(self, folder):
        """Go on to the end, and check that it is the right one, with nothing left lying about."""
        assert self.subject.result(self.go_on(folder), folder) == self.expected
        names = {"metrics.jsonl", *(f"checkpoint-{step}" for step in (STEPS - EVERY, STEPS))}
        # One too many stays where its removal, the last of all, was what failed.
        assert {path.name for path in folder.iterdir()} - {f"checkpoint-{EVERY}"} == names


class Recipe:
    """The run of a recipe, from its start: teacher, student, scores."""

    def __init__(self, root):
        self.subject = OfARecipe(digits)
        self.recipe = load(digits(root))
        run(self.recipe, root / "whole")
        self.expected = self.subject.result(root / "whole")

    def go_on(self, folder):
        if (folder / "run.json").exists():
            run(None, folder, resume=True)
        else:
            run(self.recipe, folder)

    def check(self, folder):
        self.go_on(folder)
        assert self.subject.result(folder) == self.expected


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    return Training(tmp_path_factory.mktemp("training"))


def in_a_fork(work, *given):
    process = FORK.Process(target=work, args=given)
    process.start()
    return process


def killed_there(training, folder, number):
    with pytest.MonkeyPatch.context() as patch:
        fail_at(patch, number, KILLED)
        training.go_on(folder)


def operations(training, folder):
    """Return how many file operations of ours a whole training takes."""
    with pytest.MonkeyPatch.context() as patch:
        count = fail_at(patch, 0, KILLED)
        training.go_on(folder)
    return count[0]


def check_kills_at(training, root, numbers):
    for number in numbers:
        folder = root / str(number)
        process = in_a_fork(killed_there, training, folder, number)
        process.join()
        assert process.exitcode == -signal.SIGKILL, number
        training.check(folder)
        shutil.rmtree(folder)


def test_a_kill_at_some_file_operations(training, tmp_path):
    count = operations(training, tmp_path / "counted")
    assert count > 60
    check_kills_at(training, tmp_path, range(5, count + 1, 11))


@pytest.mark.slow
def test_a_kill_at_every_file_operation(training, tmp_path):
    check_kills_at(training, tmp_path, range(1, operations(training, tmp_path / "counted") + 1))


def check_kills_at_any_moment(training, root, count):
    start = time.perf_counter()
    process = in_a_fork(training.go_on, root / "timed")
    process.join()
    takes, chance, killed = time.perf_counter() - start, random.Random(count), 0
    for number in range(count):
        folder = root / str(number)
        process = in_a_fork(training.go_on, folder)
        process.join(takes * chance.random())
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        training.check(folder)
        shutil.rmtree(folder)
    assert killed > count // 2


def test_a_few_kills_at_any_moment(training, tmp_path):
    check_kills_at_any_moment(training, tmp_path, 4)


@pytest.mark.slow
def test_a_hundred_kills_at_any_moment(training, tmp_path):
    check_kills_at_any_moment(training, tmp_path, 100)


@pytest.mark.slow
def test_a_hundred_kills_of_a_run_at_any_moment(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    check_kills_at_any_moment(Recipe(tmp_path), tmp_path, 100)


def check_faults_at(training, root, numbers, kind):
    for number in numbers:
        folder = root / f"{number}-{kind}"
        with pytest.MonkeyPatch.context() as patch:
            fail_at(patch, number, kind)
            failed = None
            try:
                training.go_on(folder)
            except OSError as error:
                failed = error
        # What is not needed any more may stay without a word; else it says which file, and so which disk.
        assert failed is None or (failed.errno, str(folder) in failed.filename) == (kind, True)
        training.check(folder)
        shutil.rmtree(folder)


def test_some_file_operations_that_fail(training, tmp_path):
    count = operations(training, tmp_path / "counted")
    check_faults_at(training, tmp_path, range(3, count + 1, 17), errno.ENOSPC)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
def test_every_file_operation_fails(training, tmp_path, kind):
    check_faults_at(training, tmp_path, range(1, operations(training, tmp_path / "counted") + 1), kind)


@pytest.fixture
def small_disk(tmp_path):
    """Return a folder that is a file system of its own, on which there is room for one checkpoint and a half."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96k", "none", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(training, small_disk, tmp_path):
    """It says what is full; with room, it goes on from what was written before."""
    with pytest.raises(OSError, match="No space left on device") as caught:
        training.go_on(small_disk)
    assert caught.value.filename.startswith(str(small_disk))
    assert last_checkpoint(small_disk) is not None
    assert [path for path in small_disk.iterdir() if path.name.startswith(".")] == []
    training.check(shutil.copytree(small_disk, tmp_path / "larger"))


def limited(training, folder, told):
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
    try:
        training.go_on(folder)
    except OSError as error:
        told.write_text(f"{error.errno} {error.filename}")


def test_a_limit_of_file_sizes(training, tmp_path):
    """A quota, in effect: the first file that is too large is named, and nothing of its checkpoint stays."""
    process = in_a_fork(limited, training, tmp_path / "run", tmp_path / "told")
    process.join()
    number, name = (tmp_path / "told").read_text().split()
    assert int(number) == errno.EFBIG
    assert name.startswith(str(tmp_path / "run"))
    assert not [path for path in (tmp_path / "run").iterdir() if path.is_dir()]
    training.check(tmp_path / "run")
