"""The page: its numbers against the files, that it needs nothing but itself, and that it is what it was before."""

import base64
import json
import re
import shutil
import statistics
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import made_run
import pytest

from tutelage.report import build_report
from tutelage.report._run import read_run
from tutelage.report._tables import figures, size

VOID = {"meta", "img", "source", "br"}


class Page(HTMLParser):
    """What a browser would see: text, tables, images, and whether every tag is closed in its turn."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.rows, self.texts = [], [], [], []
        self.feed(text)
        assert self.open == []
        self.text = " ".join("".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.texts.append(data)
        if self.open and ("td" in self.open or "th" in self.open) and "small" not in self.open:
            self.rows[-1][-1] += data

    def line(self, title):
        return next(
            [" ".join(cell.split()) for cell in row[1:]] for row in self.rows if row and row[0].strip() == title
        )

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_run.make(tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture(scope="module")
def text(run):
    return build_report(run).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def of(run, arm, key):
    return [json.loads((run / f"seed-{seed}" / arm / "scores.json").read_text())[key] for seed in range(3)]


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "key", "form"),
    [
        ("Errors on the test rows", "errors", lambda m, s: f"{m:.1f} ± {s:.1f}"),
        ("Accuracy", "accuracy", lambda m, s: f"{100 * m:.1f} ± {100 * s:.1f} %"),
        ("Cross-entropy, nats", "nll", lambda m, s: f"{m:.3f} ± {s:.3f}"),
        ("Brier score", "brier", lambda m, s: f"{m:.3f} ± {s:.3f}"),
        ("Calibration error (ECE)", "ece", lambda m, s: f"{100 * m:.1f} ± {100 * s:.1f} %"),
        ("Same answer as the teacher", "agreement", lambda m, s: f"{100 * m:.1f} ± {100 * s:.1f} %"),
        ("KL(teacher ‖ network), nats", "kl", lambda m, s: f"{m:.3f} ± {s:.3f}"),
    ],
)
def test_the_table_is_mean_and_deviation_of_the_files(run, page, title, key, form):
    def cell(arm):
        values = of(run, arm, key)
        return form(statistics.mean(values), statistics.stdev(values))

    teacher, student, baseline = page.line(title)
    assert (student, baseline) == (cell("student"), cell("baseline"))
    scores = json.loads((run / "teacher" / "scores.json").read_text())
    assert (
        teacher == "–" if key not in scores else teacher.split(" ")[0] in f"{scores[key]:.3f} {100 * scores[key]:.1f}"
    )


def test_the_headline_is_the_gap_of_the_files(run, page):
    student, baseline = (statistics.mean(of(run, arm, "errors")) for arm in ("student", "baseline"))
    teacher = json.loads((run / "teacher" / "scores.json").read_text())["errors"]
    share = round(100 * (baseline - student) / (baseline - teacher))
    assert 50 < share < 100  # the run is a real one: a gap, and most of it closed
    assert f"Distilling closes {share} % of the gap to the teacher" in page.text.replace("\xa0", " ")
    assert f"makes {student:.1f} errors on 597 test rows" in page.text


def test_size_is_told_beside_the_teacher(page):
    assert page.line("Parameters") == ["9,610", "1,210", "1,210"]
    assert page.line("Model file") == ["38.9 kB", "5.26 kB", "5.26 kB"]
    assert page.line("Latency, one row") == ["0.105 ms", "0.03 ms", "0.03 ms"]
    assert "7.9× less" in page.text  # 9,610 / 1,210 = 7.94
    assert "3.5× as fast as the teacher, or more" in page.text


def test_a_speed_is_claimed_only_if_every_batch_size_shows_it(run, tmp_path):
    busy = shutil.copytree(run, tmp_path / "busy")
    (busy / "teacher" / "timing.json").write_text('{"latency_ms": {"1": 46.9, "256": 0.9}, "train_seconds": 0.0}')
    told = read_run(busy)
    assert [figure.value for figure in figures(told) if "fast" in figure.text] == ["3.8×"]  # 0.9 / 0.24
    assert size(told)[-1].title == "Training time"
    assert [cell.text for cell in size(told)[-1].cells] == ["–", "3.4 s", "3.4 s"]
    (busy / "teacher" / "timing.json").write_text('{"latency_ms": {"1": 46.9, "256": 0.2}, "train_seconds": 0.0}')
    assert not [figure for figure in figures(read_run(busy)) if "fast" in figure.text]


def test_what_was_run_is_there(page):
    for told in ("1,200 training, 100 of them labelled", "0, 1, 2", "600 for each arm", "2.13.0", "5.24.0"):
        assert told in page.text
    assert "soft: {forward_kl: {}, temperature: 2, weight: 0.9}" in page.text


# --- it needs nothing but itself --------------------------------------------------------------------------------------


def test_nothing_is_loaded_and_nothing_runs(text, page):
    policy = next(tag["content"] for tag in page.all("meta") if "http-equiv" in tag)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & {name for name, _ in page.tags}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "srcset", "href", "action", "poster"):
            assert attributes.get(name, "data:").startswith("data:")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in re.sub(r"data:[^\"]*", "", text).replace("http-equiv", "")


def test_every_picture_has_words_and_both_palettes(run, page):
    images, dark = page.all("img"), page.all("source")
    assert all(image["alt"].strip() for image in images)
    assert len([name for name, _ in page.tags if name == "figcaption"]) == len(dark)
    assert all(source["media"] == "(prefers-color-scheme: dark)" for source in dark)
    # What the page shows is what lies beside it.
    inline = [base64.b64decode(image["src"].split(",")[1]) for image in images if "svg" in image["src"][:30]]
    beside = {path.read_bytes() for path in (run / "report").glob("*.svg")}
    assert len(inline) == len(dark) == len(beside)
    assert set(inline) == beside
    assert {path.stem for path in (run / "report").glob("*.svg")} <= {
        path.stem for path in (run / "report").glob("*.png")
    }
    for source in dark:
        ElementTree.fromstring(base64.b64decode(source["srcset"].split(",")[1]))


def test_the_pictures_that_are_asked_for(run):
    names = {path.stem for path in (run / "report").glob("*.png")}
    assert {"scores-errors", "scores-nll", "scores-brier", "scores-ece"} <= names
    assert {"loss-1", "loss-2", "steps-accuracy", "steps-agreement", "steps-kl", "confusion"} <= names
    assert {"reliability-teacher", "reliability-student", "reliability-baseline", "example-01"} <= names


def test_the_tables_are_said_to_be_tables(page):
    assert all(tag.get("scope") in ("col", "row") for tag in page.all("th"))
    assert page.all("html")[0]["lang"] == "en"
    headings = [int(name[1]) for name, _ in page.tags if re.fullmatch(r"h[1-6]", name)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))


# --- the same folder, the same bytes ----------------------------------------------------------------------------------


def test_a_report_is_the_same_wherever_and_whenever_it_is_made(run, text, tmp_path):
    files = (
        "run.json",
        "environment.json",
        "recipe.resolved.yaml",
        "test.safetensors",
        "teacher",
        "seed-0",
        "seed-1",
        "seed-2",
    )
    other = tmp_path / "moved"
    other.mkdir()
    for name in files:
        (shutil.copytree if (run / name).is_dir() else shutil.copy)(run / name, other / name)
    # Another process, with other settings of its owner's, and another order of sets.
    code = (
        "import sys, matplotlib; matplotlib.rcParams.update({'font.size': 20, 'axes.facecolor': 'black'})\n"
        "from tutelage.report import build_report\n"
        f"build_report({str(other)!r}); print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert said.stdout == "[]\n"
    assert (other / "report.html").read_text(encoding="utf-8") == text
    for path in sorted((run / "report").iterdir()):
        assert (other / "report" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_report_changes_nothing_else(run, text):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    build_report(run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert text
