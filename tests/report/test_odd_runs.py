"""Runs that are not finished, went badly, or look unlike digits: each gets a page that is true of it."""

import json
import re
import shutil

import made_run
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tutelage.report import build_report
from tutelage.report._run import read_run
from tutelage.report._style import Picture
from tutelage.report._words import headline


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return made_run.make(tmp_path_factory.mktemp("template") / "run", seeds=(0, 1), steps=100)


@pytest.fixture(autouse=True)
def no_pngs(monkeypatch):
    """Half the time of a report is its PNGs; test_page looks at them."""
    monkeypatch.setattr(Picture, "_write_png", lambda picture, folder: None)


@pytest.fixture
def run(template, tmp_path):
    return shutil.copytree(template, tmp_path / "run")


def text_of(run):
    text = build_report(run).read_text(encoding="utf-8").replace("\xa0", " ")
    return " ".join(text.split())


def change(path, **values):
    value = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: item for key, item in value.items() if item is not None}))


def tables(run, names):
    """Turn the run's arms into networks of other classes: random logits, and scores that belong to them."""
    generator = np.random.default_rng(2)
    labels = generator.integers(0, len(names), 60)
    teacher = generator.normal(size=(60, len(names))) + 4 * np.eye(len(names))[labels]
    made_run.write_arm(run / "teacher", teacher, labels, 900, {}, [])
    for seed in (0, 1):
        for arm in ("student", "baseline"):
            logits = teacher + generator.normal(size=teacher.shape) * (1 if arm == "student" else 4)
            made_run.write_arm(run / f"seed-{seed}" / arm, logits, labels, 90, {}, [], teacher)
    save_file({"inputs": generator.normal(size=(60, 9)).astype("float32"), "labels": labels}, run / "test.safetensors")
    change(run / "run.json", classes=names, kind="table", shape=[9], features=[f"height {i}" for i in range(9)])


def test_an_interrupted_run_says_what_is_missing(run):
    change(run / "run.json", status="interrupted")
    (run / "seed-1" / "baseline" / "scores.json").unlink()
    text = text_of(run)
    assert "This run is not finished</strong> (interrupted)" in text
    assert "Missing: the baseline of seed 1." in text
    assert "Distilling closes" in text
    assert "mean ± standard deviation over 2 seeds" in text
    whole = text_of(shutil.copytree(run, run.parent / "whole", ignore=shutil.ignore_patterns("seed-1", "report*")))
    assert "Missing: the student of seed 1, the baseline of seed 1." in whole


def test_a_run_that_has_just_begun(run):
    change(run / "run.json", status="running")
    for path in ("teacher", "seed-1", "seed-0/baseline", "test.safetensors", "environment.json", "report"):
        shutil.rmtree(run / path, ignore_errors=True)
        (run / path).unlink() if (run / path).is_file() else None
    for name in ("scores.json", "timing.json", "evaluation.safetensors"):
        (run / "seed-0" / "student" / name).unlink()
    lines = (run / "seed-0" / "student" / "metrics.jsonl").read_text()
    # Its last line is still being written.
    (run / "seed-0" / "student" / "metrics.jsonl").write_text(lines[:-9])
    text = text_of(run)
    assert "No student is finished yet" in text
    assert "Missing: the teacher, the student of seed 0" in text
    assert (run / "report" / "loss-1.svg").is_file()  # what has been logged so far
    assert "Calibration" not in text
    for path in (run / "seed-0", run / "report"):
        shutil.rmtree(path)
    assert "No student is finished yet" in text_of(run)


def test_without_a_baseline(run):
    for seed in (0, 1):
        shutil.rmtree(run / f"seed-{seed}" / "baseline")
    change(run / "run.json", arms=["student"])
    text = text_of(run)
    assert "The student is right on " in text
    assert "of the gap" not in text
    assert "not finished" not in text
    assert not (run / "report" / "reliability-baseline.svg").exists()


def test_without_a_teacher(run):
    shutil.rmtree(run / "teacher")
    change(run / "run.json", arms=["student"])
    for seed in (0, 1):
        shutil.rmtree(run / f"seed-{seed}" / "baseline")
        for key in ("agreement", "kl"):
            change(run / f"seed-{seed}" / "student" / "scores.json", **{key: None})
    text = text_of(run)
    assert "not finished" not in text
    assert "Where student and teacher differ" not in text
    assert '<th role="columnheader" scope="col" class="teacher">' not in text


def test_one_seed_has_no_deviation(run):
    shutil.rmtree(run / "seed-1")
    change(run / "run.json", seeds=[0])
    text = text_of(run)
    assert "±" not in text
    assert "deviation" not in text
    assert "over 1 seed" not in text
    assert "over the seeds" not in text
    # Rows are counted, and a single count is whole.
    counts = re.findall(r"<b>([^<]*)</b> on which", text)
    assert len(counts) == 4
    assert sum(map(int, counts)) == len(load_file(run / "test.safetensors")["labels"])


def test_the_headline_does_not_flatter(run):
    files = [run / f"seed-{seed}" / "student" / "scores.json" for seed in (0, 1)]
    teacher = json.loads((run / "teacher" / "scores.json").read_text())["errors"]
    for errors, said in ((400, "Distilling did not help here"), (teacher - 5, "fewer errors than its teacher")):
        for file in files:
            change(file, errors=errors)
        assert said in headline(read_run(run)).title
    change(run / "teacher" / "scores.json", errors=500)
    assert headline(read_run(run)).title == "The teacher is no better than the student without it"


def test_nothing_to_tell_apart(run):
    """All arms are the teacher: no errors in common, no row to show, bars of length zero."""
    labels = load_file(run / "test.safetensors")["labels"]
    logits = 60 * np.eye(10)[labels]
    made_run.write_arm(run / "teacher", logits, labels, 900, {}, [])
    for seed in (0, 1):
        for arm in ("student", "baseline"):
            made_run.write_arm(run / f"seed-{seed}" / arm, logits, labels, 900, {}, [], logits)
    text = text_of(run)
    assert "gives the teacher’s answer on every test row" in text
    assert "makes 0 errors" in text


def test_a_table_shows_its_rows(run):
    names = ["setosa", "<script>alert(1)</script>", "$x_1$ {{ 7 * 7 }} and a name that goes on"]
    tables(run, names)
    text = text_of(run)
    assert '<th scope="col">height 5</th></tr>' in text
    assert "3 more features are not shown." in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script" not in text
    assert "{{ 7 * 7 }}" in text  # what comes from a run is text, never a template
    assert "<img src" in text
    assert not list((run / "report").glob("example-*"))


def test_many_classes(run):
    tables(run, [f"class {i} 名前" for i in range(40)])
    assert "Of 40 classes, the 16 that differ most often." in text_of(run)


def test_images_that_the_folder_does_not_keep(run):
    (run / "test.safetensors").unlink()
    text = text_of(run)
    assert "The widest disagreements" in text
    assert 'class="rows"' in text


def test_colour_images(run):
    labels = load_file(run / "test.safetensors")["labels"]
    inputs = np.random.default_rng(0).uniform(size=(len(labels), 3, 20, 30)).astype("float32")
    save_file({"inputs": inputs, "labels": labels}, run / "test.safetensors")
    text = text_of(run)
    assert 'class="ink"' not in text
    assert "ink of the page" not in text
    assert len(list((run / "report").glob("example-*.png"))) == text.count("Test row ")


def test_the_worst_example_is_the_worst(run):
    """The first tile is the row of the largest KL among those with another answer, with its own image."""
    from matplotlib.image import imread
    from scipy.special import rel_entr, softmax

    text = text_of(run)
    teacher = load_file(run / "teacher" / "evaluation.safetensors")["logits"].astype(np.float64)
    student = load_file(run / "seed-0" / "student" / "evaluation.safetensors")["logits"].astype(np.float64)
    distance = rel_entr(softmax(teacher, axis=1), softmax(student, axis=1)).sum(1)
    distance[teacher.argmax(1) == student.argmax(1)] = -1
    row = int(distance.argmax())
    first = text[text.index('<ol class="tiles">') :]
    first = first[: first.index("</li>")]
    assert f"row {row} · {distance[row]:.2f} nats" in first
    assert f"teacher <b>{teacher[row].argmax()}</b>" in first
    assert f"student <b>{student[row].argmax()}</b>" in first
    stored = load_file(run / "test.safetensors")["inputs"][row, 0]
    drawn = imread(run / "report" / "example-01.png")[6::12, 6::12, 0]  # 8 pixels of 12 by 12
    np.testing.assert_allclose(1 - drawn, stored / load_file(run / "test.safetensors")["inputs"].max(), atol=1 / 255)
