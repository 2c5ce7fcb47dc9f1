"""The commands that train, as processes: what they write where, how they end, and how they are stopped."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from cli_process import Done, environment, processor_seconds, refused, tutelage, tutelage_here

from tutelage.run_folder import RunFolder, read_json

RECIPE = """\
description: A run that is over in a moment.
data: {source: digits, labeled: 50}
teacher: {mlp: {hidden: [16]}, fit: {epochs: 2, learning_rate: 1e-2}}
student: {mlp: {hidden: [4]}}
objective:
  soft: {forward_kl: {}, temperature: 2}
  hard: {forward_kl: {}, teacher: labels}
training: {steps: 20, evaluations: 2, checkpoints: 1, seeds: 2, learning_rate: 1e-2, device: cpu}
baseline: true
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the recipe, and a cache of its own."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "small.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def trained(place):
    """The small run, trained and reported on."""
    return tutelage("train", "small.yaml", "--out", "run", cwd=place, TUTELAGE_CACHE=str(place / "cache"))


@pytest.fixture
def here(capfd, monkeypatch, place):
    """The command line in this process, with the cache of the place."""
    monkeypatch.setenv("TUTELAGE_CACHE", str(place / "cache"))
    return partial(tutelage_here, capfd=capfd, monkeypatch=monkeypatch)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


# --- train ------------------------------------------------------------------------------------------------------------


def test_train_ends_with_a_table_a_report_and_the_next_command(place, trained):
    assert trained.code == 0, trained
    talk = trained.err.splitlines()
    assert talk[0] == "small: A run that is over in a moment."
    assert re.match(r"next: .*tutelage report run --open$", talk[-1])
    assert "\x1b" not in trained.err + trained.out, "colours in a log"
    # All networks report, and progress comes in lines: 2 x 2 networks of 20 steps and a teacher.
    for name in ("teacher", "seed 0 student", "seed 0 baseline", "seed 1 student", "seed 1 baseline"):
        assert re.search(rf"^  {name}: \d+ errors of 597, accuracy \d+\.\d%$", trained.err, re.MULTILINE), name
    shares = [int(share) for share in re.findall(r"^ +(\d+)%  (?:seed|teacher)", trained.err, re.MULTILINE)]
    assert shares == sorted(shares)
    assert 5 <= len(shares) <= 40
    assert shares[-1] <= 100

    scores = read_json(place / "run" / "scores.json")
    for arm in ("teacher", "student", "baseline"):
        line = next(line for line in trained.out.splitlines() if line.split()[0] == arm)
        assert f"{scores[arm]['errors']['mean']:.1f}".removesuffix(".0") in line
        assert f"{scores[arm]['accuracy']['mean'] * 100:.1f}%" in line
    assert trained.out.splitlines()[-1] == "report: run/report.html"
    assert (place / "run" / "report.html").stat().st_size > 10_000


def test_a_run_is_never_overwritten(place, trained):
    before = files(place / "run")
    start = os.times()
    refused(
        tutelage("train", "small.yaml", "--out", "run", cwd=place), 2, "run is there already and not empty", "--out"
    )
    end = os.times()
    seconds = end.children_user + end.children_system - start.children_user - start.children_system
    assert seconds < 2, "found out before torch is loaded"
    assert files(place / "run") == before


def test_evaluate_finds_what_was_recorded_or_fails(place, trained, here):
    folder = RunFolder.open(place / "run")
    before = folder.scores.read_bytes()
    done = here("evaluate", "run", "--json", cwd=place)
    assert done.code == 0, done
    assert json.loads(done.out) == json.loads(before)

    # Other weights in the place of the student's are damage. Nothing is written, and the second call says the same.
    changed = RunFolder(shutil.copytree(place / "run", place / "changed"))
    model = changed.arm(0, "student").model / "model.safetensors"
    model.write_bytes((changed.arm(0, "baseline").model / "model.safetensors").read_bytes())
    content = files(changed.path)
    for _ in range(2):
        refused(here("evaluate", "changed", cwd=place), 4, "model.safetensors was changed", "train --resume changed")
    assert files(changed.path) == content

    # A run of an earlier version has no checksums: its errors are not those that were recorded, which stay.
    record = {key: value for key, value in read_json(changed.record).items() if key not in ("files", "crc32")}
    changed.record.write_text(json.dumps(record))
    for manifest in changed.path.rglob("manifest.json"):
        manifest.unlink()
    content = files(changed.path)
    for _ in range(2):
        swapped = here("evaluate", "changed", "--json", cwd=place)
        assert swapped.code == 3, swapped
        found = json.loads(swapped.out)["student"]["errors"]["values"]
        recorded = json.loads(before)["student"]["errors"]["values"]
        assert f"not the errors that were recorded: student {recorded} -> {found}" in swapped.err
        assert "Traceback" not in swapped.err
    assert files(changed.path) == content


def test_a_report_can_be_written_again(place, trained, here):
    page = place / "run" / "report.html"
    page.write_text("")
    done = here("report", "run", cwd=place)
    assert (done.code, done.out) == (0, "run/report.html\n")
    assert "</html>" in page.read_text()
    refused(here("report", "nowhere", cwd=place), 2, "nowhere")
    refused(here("evaluate", ".", cwd=place), 2, "run.json")


def test_a_dry_run_writes_nothing(place, trained, here):
    before = files(place)
    done = here("train", "small.yaml", "training.steps=7", "--dry-run", "--json", cwd=place)
    assert done.code == 0, done
    plan = json.loads(done.out)
    assert plan["steps"]["student"] == plan["steps"]["baseline"] == 7
    assert plan["data"]["rows"] == {"train": 1200, "labelled": 50, "fit": 1200, "test": 597}
    assert plan["parameters"]["student"] == 64 * 4 + 4 + 4 * 10 + 10
    assert files(place) == before
    assert done.err.splitlines()[-1].endswith("tutelage train small.yaml training.steps=7")


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_ctrl_c_saves_and_says_how_to_go_on(place, trained, here):
    words = ["train", "small.yaml", "training.steps=200", "training.seeds=1", "baseline=false", "--out", "stopped"]
    variables = environment(TUTELAGE_CACHE=str(place / "cache"))
    with subprocess.Popen(
        [sys.executable, "-m", "tutelage", *words],
        cwd=place,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell in the background hands down a SIGINT that is ignored, and Python then leaves it so.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        said = []
        for line in process.stderr:
            said.append(line)
            if "step " in line and "%" in line:
                process.send_signal(signal.SIGINT)
                break
        out, rest = process.communicate(timeout=120)
    said = "".join(said) + rest
    assert process.returncode == 130, said
    assert out == ""
    assert "Traceback" not in said
    assert "a checkpoint of what is not, is saved in stopped" in said
    assert re.search(r"next: .*tutelage train --resume stopped$", said.splitlines()[-1])
    assert read_json(place / "stopped" / "run.json")["status"] == "interrupted"

    done = here("train", "--resume", "stopped", "--no-report", "--json", cwd=place)
    assert done.code == 0, done
    assert re.search(r"seed 0 student: goes on at step \d+", done.err)
    told = json.loads(done.out)
    assert (told["folder"], told["report"]) == ("stopped", None)
    assert told["scores"] == read_json(place / "stopped" / "scores.json")
    assert read_json(place / "stopped" / "run.json")["status"] == "complete"
    lines = (place / "stopped" / "seed-0" / "student" / "metrics.jsonl").read_text().splitlines()
    steps = [line["step"] for line in map(json.loads, lines) if "loss" in line]
    assert steps == sorted(set(steps)), "a step is logged once, however often the run was stopped"
    assert steps[-1] == 200


# --- errors -----------------------------------------------------------------------------------------------------------


def test_an_output_that_cannot_be_written(place, here):
    (place / "file").write_text("")
    refused(here("train", "small.yaml", "--out", "file/run", cwd=place), 2, "file is a file")
    refused(here("train", "small.yaml", "--out", "file", cwd=place), 2, "file is a file")
    if os.geteuid() == 0:  # to whom every folder is open, but not this one
        closed = Path("/proc")
    else:
        closed = place / "closed"
        closed.mkdir(mode=0o555)
    done = here("train", "small.yaml", "--out", closed / "run", cwd=place)
    assert done.code in (1, 2)
    refused(done, done.code, str(closed))


TABLE = """\
data: {table: rows.csv, target: kind}
student: {mlp: {hidden: [4]}}
objective: {hard: {forward_kl: {}, teacher: labels}}
training: {steps: 3, device: cpu}
"""


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (None, "rows.csv"),
        ("", "rows.csv"),
        ("x,kind\n", "rows.csv"),
        ("x,kind\n1,a\n2,a\n3,a\n4,a\n", "class"),
        ("x,sort\n1,a\n2,b\n", "kind"),
        ("x,kind\nred,a\nblue,b\n", "x"),
    ],
    ids=["missing", "empty", "no rows", "one class", "no target", "text"],
)
def test_data_that_cannot_be_learned_from(tmp_path, here, rows, said):
    (tmp_path / "table.yaml").write_text(TABLE)
    if rows is not None:
        (tmp_path / "rows.csv").write_text(rows)
    before = files(tmp_path)
    refused(here("train", "table.yaml", "--out", "run", cwd=tmp_path), 2, said)
    assert files(tmp_path) == before
    assert not (tmp_path / "run").exists()


def test_a_teacher_with_another_number_of_classes(place, trained, here):
    (place / "rows.csv").write_text("x,kind\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(40)))
    (place / "other.yaml").write_text(
        TABLE.replace("student:", "teacher: {model: run/teacher/model}\nstudent:").replace(
            "objective: {", "objective: {soft: {forward_kl: {}}, "
        )
    )
    refused(here("train", "other.yaml", "--out", "other", cwd=place), 2, "teacher")
    assert not (place / "other").exists()


BLOCKED = "import sys; sys.modules[{!r}] = None; from tutelage.cli import main; sys.exit(main())"


def test_a_package_that_is_not_installed(place):
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.format("transformers"), "train", "small.yaml", "--out", "blocked"],
        capture_output=True,
        text=True,
        cwd=place,
        env=environment(),
        check=False,
    )
    refused(Done(done.returncode, done.stdout, done.stderr), 1, "transformers", "pip install 'tutelage[train]'")
    assert not (place / "blocked").exists()


@pytest.mark.parametrize(("package", "extra"), [("sklearn", "demo"), ("matplotlib", "report"), ("jinja2", "report")])
def test_an_extra_that_is_not_installed(place, here, monkeypatch, package, extra):
    for name in list(sys.modules):
        if name.split(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    refused(here("train", "small.yaml", "--out", "blocked", cwd=place), 1, f"pip install 'tutelage[{extra}]'")
    assert not (place / "blocked").exists()


# --- the demo, and what is seen ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["demo"], ["train", "digits-few-labels"], ["evaluate", "run"]], ids=" ".join)
def test_the_first_line_comes_within_a_second(place, trained, tmp_path, words):
    folder = place if words[0] == "evaluate" else tmp_path
    cache = str(tmp_path / "cache")
    assert processor_seconds(words, folder, first_line=True, TUTELAGE_CACHE=cache) < 1


def test_the_demo_says_what_it_will_do_before_it_does_it(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "tutelage", "demo", "--out", "here", "--seeds", "2"],
        cwd=tmp_path,
        env=environment(TUTELAGE_CACHE=str(tmp_path / "cache")),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        said = ""
        for line in process.stderr:
            said += line
            if "loading" in line:
                break
        process.kill()
    for words in ("data", "teacher", "student", "baseline", "2 seeds", "folder     here", "This takes about", "Ctrl-C"):
        assert words in said
    assert not (tmp_path / "here").exists()
