"""Folders that are no run, and runs with a damaged file: one error that names the file, and no report."""

import json
import os
import re
import shutil

import made_run
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tutelage.errors import DamagedDataError, RunFolderError
from tutelage.report import build_report
from tutelage.report._run import read_run


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return made_run.make(tmp_path_factory.mktemp("template") / "run", seeds=(0,), steps=40, omit=3)


@pytest.fixture
def run(template, tmp_path):
    return shutil.copytree(template, tmp_path / "run")


def test_no_run(tmp_path):
    with pytest.raises(RunFolderError, match=r"not a folder.*tutelage train"):
        build_report(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(RunFolderError, match=r"no run\.json.*tutelage train"):
        build_report(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


JSON = [
    "run.json",
    "environment.json",
    "teacher/scores.json",
    "seed-0/student/scores.json",
    "seed-0/student/timing.json",
]
FILES = [*JSON, "seed-0/student/metrics.jsonl", "seed-0/student/evaluation.safetensors", "test.safetensors"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "zeros", "noise", "list"])
def test_a_damaged_file_is_named(run, name, damage):
    path = run / name
    content = path.read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, 400, dtype=np.uint8).tobytes()
    path.write_bytes(
        {
            # Lines that are cut in the middle of the file; a last line without its end is merely not read yet.
            "cut": content[: len(content) // 2] + (b"\n" if name.endswith("jsonl") else b""),
            "zeros": bytes(len(content)) + b"\n",
            "noise": noise + b"\n",
            "list": b"[1, 2, 3]\n",
        }[damage]
    )
    with pytest.raises(DamagedDataError, match=re.escape(name)):
        build_report(run)
    assert not (run / "report.html").exists()
    assert not (run / "report").exists()


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("run.json", "seeds", "0"),
        ("run.json", "seeds", 3),
        ("run.json", "seeds", [True]),
        ("run.json", "classes", {"a": 1}),
        ("run.json", "recipe", 7),
        ("run.json", "rows", {"test": "many"}),
        ("run.json", "seconds", "long"),
        ("seed-0/student/scores.json", "accuracy", "good"),
        ("seed-0/student/scores.json", "accuracy", None),
        ("seed-0/student/scores.json", "errors", True),
        ("seed-0/student/scores.json", "omitted", {"3": 12}),
        ("seed-0/student/scores.json", "omitted", [3]),
        ("seed-0/student/scores.json", "omitted", {"3": {"rows": 3, "known": 4, "known_with_bias": 0}}),
        ("seed-0/student/timing.json", "latency_ms", 3.0),
        ("seed-0/student/timing.json", "latency_ms", {"1": "quick"}),
        ("seed-0/student/timing.json", "train_seconds", []),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(run, name, key, value):
    path = run / name
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(DamagedDataError, match=rf"{re.escape(name)}.*{key}.*expected"):
        read_run(run)


@pytest.mark.parametrize("name", ["run.json", "seed-0/student/scores.json"])
def test_a_key_that_is_missing_is_named(run, name):
    path = run / name
    path.write_text("{}")
    with pytest.raises(DamagedDataError, match=rf"{re.escape(name)} lacks"):
        read_run(run)


def test_a_line_without_its_step(run):
    path = run / "seed-0" / "student" / "metrics.jsonl"
    path.write_text('{"step": 1, "soft": 1.0}\n{"soft": 1.0}\n')
    with pytest.raises(DamagedDataError, match=r"metrics\.jsonl:2 lacks 'step'"):
        read_run(run)
    path.write_text('{"step": 1, "soft": NaN}\n')
    with pytest.raises(DamagedDataError, match=r"metrics\.jsonl:1.*NaN"):
        read_run(run)


def arrays(run, **changed):
    path = run / "seed-0" / "student" / "evaluation.safetensors"
    save_file({**load_file(path), **changed}, path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"logits": np.zeros((597, 9), np.float32)}, r"\(597, 9\).*10 classes"),
        ({"logits": np.zeros((596, 10), np.float32)}, r"\(596, 10\) and labels \(597,\)"),
        ({"logits": np.zeros(597, np.float32)}, r"\(597,\)"),
        ({"logits": np.full((597, 10), np.nan, np.float32)}, "NaN"),
        ({"labels": np.full(597, 10)}, "outside 0 to 9"),
        ({"labels": np.full(597, -100)}, "outside 0 to 9"),
        ({"labels": np.zeros(597, np.float32)}, "labels"),
        ({"labels": np.zeros(597, np.int64)}, "other labels than"),
        ({"logits": np.zeros((0, 10), np.float32), "labels": np.zeros(0, np.int64)}, r"\(0, 10\)"),
    ],
)
def test_arrays_that_do_not_fit(run, changed, said):
    arrays(run, **changed)
    with pytest.raises(DamagedDataError, match=rf"seed-0/student/evaluation\.safetensors.*{said}"):
        read_run(run)


def test_test_rows_that_are_not_those_that_were_evaluated(run):
    stored = load_file(run / "test.safetensors")
    save_file(
        {"inputs": stored["inputs"][::-1].copy(), "labels": stored["labels"][::-1].copy()}, run / "test.safetensors"
    )
    with pytest.raises(DamagedDataError, match=r"test\.safetensors.*in their order"):
        read_run(run)


def test_an_evaluation_that_is_missing(run):
    (run / "seed-0" / "baseline" / "evaluation.safetensors").unlink()
    with pytest.raises(DamagedDataError, match=r"baseline/evaluation\.safetensors is missing"):
        read_run(run)


def test_a_folder_that_cannot_be_written(run):
    (run / "report").write_text("a file in the folder's place")
    with pytest.raises(RunFolderError, match=r"cannot be written into .*make the folder writable"):
        build_report(run)
    assert not (run / "report.html").exists()


def test_nothing_is_written_outside_the_run(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (run / "report").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match=r"report is a link.*remove it"):
        build_report(run)
    (run / "report").unlink()
    (tmp_path / "mine.html").write_text("mine")
    (run / "report.html").symlink_to(tmp_path / "mine.html")
    build_report(run)
    assert (tmp_path / "mine.html").read_text() == "mine"
    assert "</html>" in (run / "report.html").read_text()
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", ["run.json", "seed-0/student/metrics.jsonl", "seed-0/student/evaluation.safetensors"])
def test_a_pipe_in_the_place_of_a_file_does_not_hang(run, name):
    (run / name).unlink()
    os.mkfifo(run / name)
    with pytest.raises((DamagedDataError, RunFolderError), match=re.escape(name)):
        build_report(run)
