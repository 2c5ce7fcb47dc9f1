"""Runs about tables: which columns are learned from is shown, and a teacher that is ready needs no labels."""

import csv
import json

import pytest

from tutelage.cli._describe import describe
from tutelage.config import load
from tutelage.errors import DataError
from tutelage.report import build_report
from tutelage.run_folder import RunFolder, read_json
from tutelage.runs import evaluate, prepare, run

QUICK = ["training.seeds=1", "training.steps=4", "training.evaluations=1", "training.checkpoints=1"]


@pytest.fixture(scope="module")
def teacher(clouds, tmp_path_factory):
    """Return the folder of a fitted teacher of the clouds."""
    folder = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTELAGE_CACHE", str(folder / "cache"))
        run(load(clouds, [*QUICK, "baseline=false"]), folder / "run")
    return RunFolder(folder / "run").teacher.model


def without_labels(clouds, folder):
    """Write a training table without labels and a test table with them."""
    with clouds.with_name("clouds.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    folder.mkdir()
    for name, part, known in (("train", rows[::2], False), ("test", rows[1::2], True), ("told", rows[::2], True)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *([*row[:3], row[3] if known else ""] for row in part)])
    return folder


def test_a_ready_teacher_needs_no_label(clouds, teacher, tmp_path):
    """The student learns what it learns beside labels that no term reads, to the byte; it is scored and shown, too."""
    files = without_labels(clouds, tmp_path / "files")
    ready = [*QUICK, "~data.labeled", "~teacher", f"teacher.model={teacher}", f"data.test={files}/test.csv"]
    soft = [*ready, "~objective.hard", "baseline=false"]
    told = run(load(clouds, [*soft, f"data.table={files}/told.csv"]), tmp_path / "told")
    bare = f"data.table={files}/train.csv"
    made = run(load(clouds, [*soft, bare]), tmp_path / "bare")
    weights = [RunFolder(tmp_path / name).arm(0, "student").model / "model.safetensors" for name in ("told", "bare")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert made.scores["student"] == told.scores["student"]
    assert read_json(RunFolder(tmp_path / "bare").record)["rows"] == {"train": 60, "labelled": 0, "fit": 0, "test": 60}
    assert evaluate(tmp_path / "bare")["student"]["nll"] == made.scores["student"]["nll"]
    assert "test rows" in build_report(tmp_path / "bare").read_text()
    for changes in ([*ready, bare], [*ready, bare, "~objective.hard"], [*soft, bare, "~data.test"]):
        with pytest.raises(DataError, match="no labelled row"):
            prepare(load(clouds, changes), tmp_path / "run")
    with pytest.raises(DataError, match="no training row has a label"):
        prepare(load(clouds, [*soft, bare, "data.labeled=5"]), tmp_path / "run")


def test_a_plan_lists_what_is_learned_from(clouds, tmp_path):
    assert "'kind' learned from all its other columns" in describe(load(clouds))
    assert "'kind' learned from x, z" in describe(load(clouds, ["data.features=[x, z]"]))
    plan = prepare(load(clouds), tmp_path / "run")
    assert "\nfeatures  x, y, z\n" in str(plan)
    assert json.loads(json.dumps(plan.summary()))["data"]["features"] == ["x", "y", "z"]
    wide = tmp_path / "wide.csv"
    names = [f"c{i}" for i in range(45)]
    wide.write_text("\n".join([",".join([*names, "kind"]), *(f"{'1,' * 45}{kind}" for kind in "aabbcc")]))
    plan = prepare(load(clouds, [f"data.table={wide}", "~data.labeled"]), tmp_path / "run")
    assert f"\nfeatures  {', '.join(names[:30])} and 15 more\n" in str(plan)
    assert plan.summary()["data"]["features"] == names
