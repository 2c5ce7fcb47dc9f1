"""A finished run can be trusted: what was changed is an error that names the file, and what is gone is made again."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import safetensors.torch
import torch
from filelock import FileLock

from tutelage.config import load
from tutelage.errors import DamagedDataError, RunFolderError
from tutelage.report import build_report
from tutelage.run_folder import RunFolder, read_json
from tutelage.runs import ArmStarted, Note, TeacherFitted, TeacherReused, evaluate, run


@pytest.fixture(scope="module")
def original(clouds, tmp_path_factory):
    """The folder of a run of one seed, and its cache."""
    folder = tmp_path_factory.mktemp("original")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTELAGE_CACHE", str(folder / "cache"))
        run(load(clouds, ["training.seeds=1"]), folder / "run")
    return folder


@pytest.fixture
def done(original, tmp_path, monkeypatch):
    monkeypatch.setenv("TUTELAGE_CACHE", str(shutil.copytree(original / "cache", tmp_path / "cache")))
    return shutil.copytree(original / "run", tmp_path / "run")


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def resume(folder):
    events = []
    summary = run(None, folder, resume=True, on_event=events.append)
    return summary, events


FILES = [
    "run.json",
    "recipe.resolved.yaml",
    "environment.json",
    "test.safetensors",
    "scores.json",
    *(
        f"{arm}/{name}"
        for arm in ("teacher", "seed-0/student", "seed-0/baseline")
        for name in ("model/model.safetensors", "model/model.json", "model/manifest.json", "evaluation.safetensors")
    ),
    *(f"seed-0/student/{name}" for name in ("metrics.jsonl", "scores.json", "timing.json", "manifest.json")),
]


REMEDY = "Copy|copy|put this one back|write it again"


def damages(data):
    """Contents that are not what was written."""
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    return [flipped, data[:middle], b"", bytes(len(data)), data + b"\n"]


@pytest.mark.parametrize("name", FILES)
def test_what_was_changed_is_named_and_nothing_is_written(done, name):
    file = done / name
    whole = file.read_bytes()
    for damage in damages(whole):
        file.write_bytes(damage)
        before = contents(done)
        for use in (evaluate, lambda folder: run(None, folder, resume=True), build_report):
            if use is build_report and "/model/" in name:
                continue  # a report reads no weights
            with pytest.raises(
                DamagedDataError, match=rf"{re.escape(name)}.*(Copy|copy|put this one back|write it again)"
            ):
                use(done)
            assert contents(done) == before
    file.write_bytes(whole)
    evaluate(done)


@pytest.mark.parametrize(
    "name",
    [
        "environment.json",
        "test.safetensors",
        "scores.json",
        "teacher/model",
        "teacher/model/model.safetensors",
        "teacher/scores.json",
        "seed-0/student/model",
        "seed-0/student/model/model.safetensors",
        "seed-0/student/model/manifest.json",
        "seed-0/student/manifest.json",
        "seed-0/student/scores.json",
        "seed-0/student/metrics.jsonl",
        "seed-0/baseline/evaluation.safetensors",
        "seed-0/baseline/timing.json",
    ],
)
def test_what_is_gone_is_made_again(done, digests, name):
    before = digests(done)
    gone = done / name
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    if "/model" in name:
        with pytest.raises(DamagedDataError, match="missing"):
            evaluate(done)
    if name.endswith("/scores.json"):
        # By these a network counts as done: it would be left out of a complete run without a word.
        for look in (evaluate, build_report):
            with pytest.raises(DamagedDataError, match=f"{name} is missing, and the run is complete"):
                look(done)
    summary, events = resume(done)
    assert summary.status == "complete"
    assert digests(done) == before
    if name.startswith("seed-0"):
        arm = name.split("/")[1]
        said = any(isinstance(event, Note) and f"seed-0/{arm} is made again" in event.text for event in events)
        assert said != name.endswith("/scores.json")  # without scores it is a network that is not done yet
        # From its last checkpoint: nothing is trained again.
        (started,) = [event for event in events if isinstance(event, ArmStarted)]
        assert (started.arm, started.resumed_at) == (arm, started.steps)
    evaluate(done)
    build_report(done)


def test_a_teacher_that_is_gone_with_all_scores_is_missed(done):
    shutil.rmtree(done / "teacher")
    (done / "scores.json").unlink()
    with pytest.raises(DamagedDataError, match=r"teacher/scores.json is missing, and the run is complete"):
        evaluate(done)


def test_a_teacher_that_is_gone_is_fitted_to_the_same_bytes(done, digests, tmp_path):
    before = digests(done)
    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(done / "teacher" / "model")
    _, events = resume(done)
    assert any(isinstance(event, TeacherFitted) for event in events)
    assert digests(done) == before


@pytest.mark.parametrize("name", ["seed-0/student/evaluation.safetensors", "scores.json"])
def test_an_evaluation_writes_what_was_removed(done, digests, name):
    before = digests(done)
    (done / name).unlink()
    evaluate(done)
    assert digests(done) == before
    evaluate(done)


def test_scores_that_differ_are_returned_and_never_recorded(done):
    """A run of an earlier version, whose models nothing vouches for."""
    student = RunFolder(done).arm(0, "student")
    recorded = read_json(student.scores)
    record = read_json(done / "run.json")
    (done / "run.json").write_text(json.dumps({k: v for k, v in record.items() if k not in ("files", "crc32")}))
    for manifest in done.rglob("manifest.json"):
        manifest.unlink()
    evaluate(done)
    weights = safetensors.torch.load_file(student.model / "model.safetensors")
    safetensors.torch.save_file({name: torch.zeros_like(w) for name, w in weights.items()}, student.model / "other")
    os.replace(student.model / "other", student.model / "model.safetensors")
    before = contents(done)
    for _ in range(2):
        assert evaluate(done)["student"]["errors"]["values"] != [recorded["errors"]]
        assert contents(done) == before
    summary, _ = resume(done)
    assert summary.status == "complete"
    assert "files" not in read_json(done / "run.json")


# --- the lock, and what killed processes leave ------------------------------------------------------------------------


def test_the_lock_comes_before_the_first_look(done, recipe, tmp_path, refused, monkeypatch):
    (tmp_path / "new").mkdir()
    for place, use in ((done, evaluate), (done, resume), (tmp_path / "new", lambda place: run(recipe, place))):
        with FileLock(place / ".lock"):
            (place / ".lock").write_text("process 7 on a-host")
            before = contents(place)
            with refused(RunFolderError, r"another process \(process 7 on a-host\) works in", "wait for it"):
                use(place)
            assert contents(place) == before
        (place / ".lock").unlink()

    # While the data is read the folder is taken already, and the second start finds that out first.
    seen = []

    def prepare(*_):
        with pytest.raises(RunFolderError, match="another process"):
            run(recipe, tmp_path / "taken")
        seen.append(sorted(path.name for path in (tmp_path / "taken").iterdir()))
        raise KeyboardInterrupt

    monkeypatch.setattr("tutelage.runs._run.prepare", prepare)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "taken")
    assert seen == [[".lock"]]
    assert not (tmp_path / "taken").exists()


KILLED = """
import os, sys
from tutelage.config import load
from tutelage.runs import _run, run
number, count = int(sys.argv[3]), 0

def counted(work):
    def work_or_end(*args, **kwargs):
        global count
        count += 1
        if count == number:
            os._exit(9)
        return work(*args, **kwargs)
    return work_or_end

for name in ("write_text", "write_json", "write_record", "prepare"):
    setattr(_run, name, counted(getattr(_run, name)))
run(load(sys.argv[1], ["training.steps=1", "training.seeds=1"]), sys.argv[2])
"""


def test_a_start_that_was_killed_can_be_started_again(clouds, tmp_path, refused):
    """In this process, a kill is an exit that runs nothing: a fork does it."""
    recipe = load(clouds, ["training.steps=1", "training.seeds=1"])
    for number in (1, 2, 3, 4):
        place = tmp_path / f"killed-{number}"
        child = os.fork()
        if child == 0:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                sys.argv = ["", str(clouds), str(place), str(number)]
                exec(KILLED, {"__name__": "killed"})
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        assert (place / ".lock").is_file()
        assert not (place / "run.json").exists()
        (place / f".test.safetensors.{os.uname().nodename}.1-1.part").write_bytes(b"half")
        with refused(RunFolderError, "holds no run.json", f"--out {place}"):
            run(None, place, resume=True)
        assert run(recipe, place).status == "complete"
        assert not [path for path in place.rglob("*") if path.name.startswith(".")]
    # What is not from a start is somebody else's.
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    for names in (["environment.json"], [".lock", "notes.txt"]):
        for name in names:
            (stranger / name).write_text("mine")
        with refused(RunFolderError, "is there already and not empty", "choose a new folder"):
            run(recipe, stranger)
        assert {path.name for path in stranger.iterdir()} >= set(names)
        for name in names:
            (stranger / name).unlink()


# --- the cache --------------------------------------------------------------------------------------------------------


def test_a_cache_that_can_only_be_read_is_used(clouds, original, tmp_path, monkeypatch):
    monkeypatch.setenv("TUTELAGE_CACHE", str(shutil.copytree(original / "cache", tmp_path / "cache")))

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", "the cache")

    monkeypatch.setattr("tutelage.runs._teacher.FileLock.acquire", refuse)
    monkeypatch.setattr("tutelage.runs._claim.FileLock", FakeLock)
    events = []
    run(load(clouds, ["training.seeds=1", "training.steps=1"]), tmp_path / "run", on_event=events.append)
    assert [type(event) for event in events if isinstance(event, (TeacherFitted, TeacherReused, Note))] == [
        TeacherReused
    ]


class FakeLock:
    """The lock of the run's own folder, where that of the cache is refused."""

    def __init__(self, path):
        self.path, self.is_locked = path, False

    def acquire(self, **_):
        self.path.write_text("")
        self.is_locked = True

    def release(self):
        self.is_locked = False


def test_waiting_for_another_process_is_said_once(clouds, tmp_path, cache):
    """It holds the lock of the teacher until it is told to let go."""
    recipe = load(clouds, ["training.seeds=1", "training.steps=1", "~baseline"])
    run(recipe, tmp_path / "first")
    (kept,) = (cache / "teachers").glob("*.lock")
    shutil.rmtree(kept.with_suffix(""))
    code = (
        "import sys; from filelock import FileLock\n"
        f"with FileLock({str(kept)!r}): print('held', flush=True); sys.stdin.readline()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        events = []

        def tell(event):
            events.append(event)
            if isinstance(event, Note):
                other.stdin.close()

        run(recipe, tmp_path / "second", on_event=tell)
    (note,) = [event for event in events if isinstance(event, Note)]
    assert re.search(rf"another process \(process {os.getpid()} on .*\) fits the same teacher; waiting", note.text)
    assert str(kept) in note.text
