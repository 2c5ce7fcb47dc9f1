"""A run that is stopped, in whatever way, and resumed equals one that was not: every byte of weights, log, scores."""

import csv
import os
import re
import shutil
import signal

import pytest
from filelock import FileLock

from tutelage.config import load
from tutelage.errors import DataError, RunFolderError
from tutelage.run_folder import read_json, write_json
from tutelage.runs import ArmDone, ArmStarted, Interrupted, Note, Progress, Stopping, evaluate, run


@pytest.fixture(scope="module")
def whole(clouds, tmp_path_factory):
    """Return the folder of a run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTELAGE_CACHE", str(folder.parent / "cache"))
        run(load(clouds), folder)
    return folder


class CtrlC:
    """Sends the signal of Ctrl-C when a network comes to a step."""

    def __init__(self, arm, seed, step):
        self.at, self.events = (arm, seed, step), []

    def __call__(self, event):
        self.events.append(event)
        if isinstance(event, Progress) and (event.arm, event.seed, event.step) == self.at:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    "at",
    [("teacher", None, 5), ("teacher", None, 24), ("student", 0, 1), ("student", 1, 7), ("baseline", 0, 11)],
    ids=str,
)
def test_ctrl_c_and_resume(recipe, whole, tmp_path, digests, at):
    folder, press = tmp_path / "run", CtrlC(*at)
    handler = signal.getsignal(signal.SIGINT)
    summary = run(recipe, folder, on_event=press)
    assert signal.getsignal(signal.SIGINT) is handler
    assert summary.status == "interrupted"
    assert read_json(folder / "run.json")["status"] == "interrupted"
    assert isinstance(press.events[-1], Interrupted)
    assert any(isinstance(event, Stopping) for event in press.events)
    events = []
    assert run(None, folder, resume=True, on_event=events.append).status == "complete"
    assert digests(folder) == digests(whole)
    started = [(event.arm, event.seed, event.resumed_at) for event in events if isinstance(event, ArmStarted)]
    last = {"teacher": 24}.get(at[0], 11)
    if at[2] < last:
        # A line is logged when its step is over, so that the one after it is the last before the stop.
        assert started[0] == (*at[:2], at[2] + 1)
    # What was done was not done again.
    done = [(event.arm, event.seed) for event in press.events if isinstance(event, ArmDone)]
    assert not set(done) & {arm[:2] for arm in started}
    assert read_json(folder / "run.json")["seconds"] > 0
    assert read_json(folder / "run.json")["status"] == "complete"


class CrashError(Exception):
    """What a machine does."""


@pytest.mark.parametrize("at", [("teacher", 13), ("student", 3), ("student", 9), ("student", 11)], ids=str)
def test_a_crash_and_resume(recipe, whole, tmp_path, digests, at):
    """Nothing is saved when it happens: training goes on from the last checkpoint, and writes no line twice."""

    def fail(event):
        if isinstance(event, Progress) and (event.arm, event.step) == at:
            raise CrashError

    with pytest.raises(CrashError):
        run(recipe, tmp_path / "run", on_event=fail)
    assert read_json(tmp_path / "run" / "run.json")["status"] == "failed"
    run(None, tmp_path / "run", resume=True)
    assert digests(tmp_path / "run") == digests(whole)


def test_the_seconds_of_a_session_that_crashed_count(recipe, tmp_path):
    def fail(event):
        if isinstance(event, Progress) and (event.arm, event.step) == ("student", 9):
            raise CrashError

    with pytest.raises(CrashError):
        run(recipe, tmp_path / "run", on_event=fail)
    timing = tmp_path / "run" / "seed-0" / "student" / "timing.json"
    assert read_json(timing)["train_seconds"] > 0
    write_json(timing, {"train_seconds": 1000.0})
    run(None, tmp_path / "run", resume=True)
    assert read_json(timing)["train_seconds"] > 1000


@pytest.mark.parametrize("lost", ["scores.json", "model", "evaluation.safetensors"])
def test_a_crash_after_the_last_step(recipe, whole, tmp_path, digests, lost):
    """All steps are done, and the files that follow are not: the last checkpoint has what they are made of."""
    shutil.copytree(whole, tmp_path / "run")
    for name in {"scores.json", lost}:
        place = tmp_path / "run" / "seed-1" / "student" / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    run(None, tmp_path / "run", resume=True)
    assert digests(tmp_path / "run") == digests(whole)


def test_a_finished_run_has_nothing_to_go_on_with(whole, tmp_path, digests):
    shutil.copytree(whole, tmp_path / "run")
    events = []
    summary = run(None, tmp_path / "run", resume=True, on_event=events.append)
    assert summary.status == "complete"
    assert not [event for event in events if isinstance(event, ArmStarted)]
    assert all(event.reused for event in events if isinstance(event, ArmDone))
    assert digests(tmp_path / "run") == digests(whole)


def test_what_cannot_be_resumed(recipe, whole, tmp_path, refused):
    with refused(RunFolderError, "not a folder", "tutelage train"):
        run(None, tmp_path / "none", resume=True)
    shutil.copytree(whole, tmp_path / "run")
    with (
        FileLock(tmp_path / "run" / ".lock"),
        refused(RunFolderError, "another process works in", "wait for it"),
    ):
        run(None, tmp_path / "run", resume=True)


def test_data_that_changed(clouds, tmp_path, refused):
    folder = tmp_path / "data"
    shutil.copytree(clouds.parent, folder)
    quick = load(folder / "clouds.yaml", ["training.seeds=1", "training.steps=1"])
    run(quick, tmp_path / "run")
    with (folder / "clouds.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    rows[1][0] = "0.125"
    with (folder / "clouds.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with refused(DataError, "the data changed", "start a new run"):
        run(None, tmp_path / "run", resume=True)
    with refused(DataError, "the data changed", "the same rows and labels"):
        evaluate(tmp_path / "run")


def test_another_environment_is_said(whole, tmp_path, monkeypatch):
    shutil.copytree(whole, tmp_path / "run")
    monkeypatch.setattr("platform.python_version", lambda: "3.99.0")
    events = []
    run(None, tmp_path / "run", resume=True, on_event=events.append)
    (note,) = [event for event in events if isinstance(event, Note)]
    assert re.search(r"python 3\.\d+\.\d+ -> 3\.99\.0", note.text)
