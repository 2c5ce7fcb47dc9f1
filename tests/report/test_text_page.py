"""The page of a language model: its numbers against the files, every token with its shade, damage named."""

import json
import math
import re
import shutil
import statistics
from html.parser import HTMLParser
from xml.etree import ElementTree

import made_text_run
import numpy as np
import pytest

from tutelage.errors import DamagedDataError
from tutelage.report import build_report
from tutelage.report._passage import BOUNDS, SHADES, level_of
from tutelage.report._run import read_run
from tutelage.report._style import DARK, LIGHT, Picture, mixed
from tutelage.report._words import headline

SEEDS = (0, 1, 2)
READINGS = ("teacher_nll", "student_nll", "baseline_nll", "student_kl", "baseline_kl")


class Texts(HTMLParser):
    """The panels as a browser lays them out: the text of each, and the class, title and text of each token."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.panels, self.tokens, self.inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "pre" and found.get("class") == "text":
            self.inside = True
            self.panels.append("")
            self.tokens.append([])
        elif self.inside and tag == "span":
            self.tokens[-1].append([found["class"], found["title"], ""])

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "pre"

    def handle_data(self, data):
        if self.inside:
            self.panels[-1] += data
            self.tokens[-1][-1][2] += data


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return made_text_run.make(tmp_path_factory.mktemp("runs") / "text")


@pytest.fixture(scope="module")
def page(template):
    return build_report(template).read_text(encoding="utf-8").replace("\xa0", " ")


@pytest.fixture
def run(template, tmp_path, monkeypatch):
    monkeypatch.setattr(Picture, "_write_png", lambda picture, folder: None)
    return shutil.copytree(template, tmp_path / "run", ignore=shutil.ignore_patterns("report*"))


def of(run, arm, key):
    return [json.loads((run / f"seed-{seed}" / arm / "scores.json").read_text())[key] for seed in SEEDS]


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def drop(path, *keys):
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key not in keys}))


def line(page, title):
    row = re.search(rf'<th role="rowheader" scope="row">{re.escape(title)}.*?</tr>', page, re.DOTALL)[0]
    return re.findall(r'<td role="cell">([^<]*)', row)


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "key", "form"),
    [
        ("Nats per token", "nll", lambda m, s: f"{m:.3f} ± {s:.3f}"),
        ("Perplexity", "perplexity", lambda m, s: f"{m:.1f} ± {s:.1f}"),
        ("First guess right", "accuracy", lambda m, s: f"{100 * m:.1f} ± {100 * s:.1f} %"),
        ("Same first guess as the teacher", "agreement", lambda m, s: f"{100 * m:.1f} ± {100 * s:.1f} %"),
        ("KL(teacher ‖ network), nats", "kl", lambda m, s: f"{m:.3f} ± {s:.3f}"),
    ],
)
def test_the_table_is_mean_and_deviation_of_the_files(template, page, title, key, form):
    cells = [form(statistics.mean(v), statistics.stdev(v)) for v in (of(template, a, key) for a in made_text_run.ARMS)]
    assert line(page, title)[1:] == cells


def test_the_headline_is_the_gap_in_nats(template, page):
    student, baseline = (statistics.mean(of(template, arm, "nll")) for arm in made_text_run.ARMS)
    teacher = json.loads((template / "teacher" / "scores.json").read_text())["nll"]
    share = round(100 * (baseline - student) / (baseline - teacher))
    assert 0 < share < 100
    assert f"<h1>Distilling closes {share} % of the gap to the teacher</h1>" in page
    assert (
        f"The student needs {student:.3f} nats per token on 190,464 held-out tokens; the same network without the "
        f"teacher needs {baseline:.3f}; the teacher needs {teacher:.3f}. Means over 3 seeds."
    ) in page
    assert f"<b>{baseline - student:.3f}</b> nats per token fewer than without the teacher" in page


def test_by_hand(run):
    """3.371 on the text alone, 2.915 the teacher: a student at 3.223 closes 0.148 of 0.456."""
    for arm, nll in (("student", 3.223), ("baseline", 3.371)):
        for seed in SEEDS:
            change(run / f"seed-{seed}" / arm / "scores.json", nll=nll, perplexity=math.exp(nll))
    change(run / "teacher" / "scores.json", nll=2.915, perplexity=math.exp(2.915))
    page = build_report(run).read_text(encoding="utf-8").replace("\xa0", " ")
    assert "Distilling closes 32 % of the gap to the teacher" in page
    assert "<b>0.148</b> nats per token fewer" in page
    assert line(page, "Perplexity") == ["18.4", "25.1 ± 0.0", "29.1 ± 0.0"]
    svg = (run / "report" / "scores-nll.svg").read_text(encoding="utf-8")
    assert "32 % of the gap" in svg.replace("\xa0", " ")


def test_what_is_left_out_and_what_is_drawn(template, page):
    for words in ("Calibration", "confusion", "differ</h2>", "Brier", "errors", "Classes", "left out"):
        assert words not in page, words
    names = {path.stem for path in (template / "report").glob("*.png")}
    assert names == {
        *("scores-nll", "scores-perplexity", "scores-kl", "scores-agreement", "loss-1", "loss-2"),
        *("steps-nll", "steps-kl", "steps-agreement", "text"),
    }
    assert {path.stem for path in (template / "report").glob("*.svg")} == names


def test_what_was_run_is_there(page):
    for told in ("14,000 training, 700 held out", "3,584,000 training, 190,464 held out", "2,048 tokens", "0, 1, 2"):
        assert f"<dd>{told}</dd>" in page
    assert "data: {source: pystdlib}" in page


def test_over_steps_with_the_teacher_where_it_has_the_score(template):
    def texts(name):
        tree = ElementTree.parse(template / "report" / f"{name}.svg")
        return [element.text for element in tree.iter("{http://www.w3.org/2000/svg}text")]

    assert "teacher" in texts("steps-nll")
    assert "teacher" not in texts("steps-kl") + texts("steps-agreement")


def test_the_same_folder_gives_the_same_bytes(template, page, run):
    build_report(run)
    for path in [run / "report.html", *(run / "report").glob("*.svg")]:
        assert path.read_bytes() == (template / path.relative_to(run)).read_bytes()


# --- the text ---------------------------------------------------------------------------------------------------------


def test_the_text_stands_there_as_it_is_laid_out(page):
    found = Texts(page)
    assert len(found.panels) == 2
    for text in found.panels:
        assert text == made_text_run.PIECE.replace("\t", "    ")


def test_every_token_has_its_shade_and_its_numbers(template, page):
    told = json.loads((template / "text.json").read_text())
    bounds = np.array([0.03, 0.1, 0.3, 1.0, 3.0])
    for arm, tokens in zip(made_text_run.ARMS, Texts(page).tokens, strict=True):
        assert [text for _, _, text in tokens] == [token.replace("\t", "    ") for token in told["tokens"]]
        assert tokens[0][:2] == ["free", "not predicted"]
        levels = np.digitize(told[f"{arm}_kl"][1:], bounds)
        assert len(set(levels.tolist())) > 2
        assert [kind for kind, _, _ in tokens[1:]] == [f"k{level}" for level in levels]
        for place, (_, title, _) in enumerate(tokens[1:], start=1):
            kl, teacher, nll = (told[key][place] for key in (f"{arm}_kl", "teacher_nll", f"{arm}_nll"))
            assert title == f"KL {kl:.2f}; −log p: teacher {teacher:.2f}, {arm} {nll:.2f}"


def test_the_summary_of_a_panel_is_that_of_its_numbers(run):
    told = json.loads((run / "text.json").read_text())
    nulls = [None] * (len(told["tokens"]) - 4)
    change(run / "text.json", student_kl=[None, 0.25, 4.0, -4e-4, *nulls])
    page = build_report(run).read_text(encoding="utf-8")
    assert "KL to the teacher: 1.417 nats per token on average, 1 or more at 1 of 3 tokens; at most 4.00, at “" in page
    tokens = Texts(page).tokens[0]
    assert [kind for kind, _, _ in tokens[:5]] == ["free", "k2", "k5", "k0", "free"]
    # Below zero by less than it was computed to: zero.
    assert tokens[3][1].startswith("KL 0.00;")


def test_the_picture_has_the_text_and_the_colours_of_the_palette(template):
    for name in ("text", "scores-nll"):
        svg = (template / "report" / f"{name}.svg").read_text(encoding="utf-8")
        assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) <= set(LIGHT.values())
    svg = ElementTree.parse(template / "report" / "text.svg")
    words = "".join(element.text for element in svg.iter("{http://www.w3.org/2000/svg}text"))
    once = re.sub(r"\s", "", made_text_run.PIECE)
    assert re.sub(r"[\s↵]", "", words).count(once) == 2


def linear(colour):
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return float(
        np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    )


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_text_is_read_on_every_shade_and_shades_are_told_apart_by_lightness(palette):
    lights = []
    for level, share in enumerate(SHADES):
        shade = linear(mixed(palette, "student", share))
        text = linear(palette["paper" if level == len(SHADES) - 1 else "ink"])
        low, high = sorted((shade, text))
        assert (high + 0.05) / (low + 0.05) >= 4.5
        lights.append(116 * np.cbrt(shade) - 16)
    # All steps go one way, so they are seen without any colour, and in print.
    steps = np.diff(lights)
    assert (steps < -1.5).all() or (steps > 1.5).all()


def test_the_scale_is_that_of_the_shades():
    assert len(SHADES) == len(BOUNDS) + 1
    assert [level_of(kl) for kl in (0.0, 0.0299, 0.03, 0.1, 0.99, 1.0, 3.0, 50.0)] == [0, 0, 1, 2, 3, 4, 5, 5]


def test_tokens_that_would_harm_the_page(run):
    odd = [
        "<b>&",
        "\x00\x1b",
        "\ud800",
        "\u202e",
        "",
        "\r\n",
        "{{ 7 * 7 }}",
        "\n\n  ",
        "名前",
        "e\u0301",
        "$x_1$",
        "\x85",
    ]
    numbers = [None, *np.linspace(0, 4, len(odd) - 1).tolist()]
    change(
        run / "text.json",
        tokens=odd,
        **dict.fromkeys(READINGS, numbers),
    )
    page = build_report(run).read_text(encoding="utf-8")
    assert Texts(page).panels[0] == "<b>&␀␛��\n{{ 7 * 7 }}\n\n  名前e\u0301$x_1$�"
    assert "<b>&amp;" not in page
    assert (run / "report" / "text.svg").is_file()


def test_a_long_text_is_cut_and_says_so(run):
    size = 700
    numbers = [None, *[0.5] * (size - 1)]
    change(
        run / "text.json",
        tokens=["a "] * size,
        **dict.fromkeys(READINGS, numbers),
    )
    page = build_report(run).read_text(encoding="utf-8")
    assert Texts(page).panels[0] == "a " * 600
    assert "100 more tokens are not shown." in page


# --- what is missing, and what is damaged -----------------------------------------------------------------------------


def test_without_a_baseline_or_a_teacher_or_a_text(run):
    for seed in SEEDS:
        shutil.rmtree(run / f"seed-{seed}" / "baseline")
    change(run / "run.json", arms=["student"])
    drop(run / "text.json", "baseline_nll", "baseline_kl")
    page = build_report(run).read_text(encoding="utf-8")
    assert len(Texts(page).panels) == 1
    assert "The student has a perplexity of " in page
    shutil.rmtree(run / "teacher")
    for seed in SEEDS:
        drop(run / f"seed-{seed}" / "student" / "scores.json", "kl", "agreement")
    drop(run / "text.json", "teacher_nll", "student_kl")
    page = build_report(run).read_text(encoding="utf-8")
    assert Texts(page).panels == []
    assert "not finished" not in page
    (run / "text.json").unlink()
    assert Texts(build_report(run).read_text(encoding="utf-8")).panels == []


def test_a_run_that_has_just_begun(run):
    change(run / "run.json", status="running")
    for path in ("teacher", "seed-1", "seed-2", "seed-0/baseline"):
        shutil.rmtree(run / path)
    (run / "text.json").unlink()
    for name in ("scores.json", "timing.json"):
        (run / "seed-0" / "student" / name).unlink()
    page = build_report(run).read_text(encoding="utf-8")
    assert "No student is finished yet" in page
    assert (run / "report" / "steps-nll.svg").is_file()


def test_the_headline_does_not_flatter(run):
    files = [run / f"seed-{seed}" / "student" / "scores.json" for seed in SEEDS]
    for nll, said in ((9.0, "Distilling did not help here"), (0.1, "predicts held-out text better than its teacher")):
        for file in files:
            change(file, nll=nll)
        assert said in headline(read_run(run)).title
    change(run / "teacher" / "scores.json", nll=9.5)
    assert headline(read_run(run)).title == "The teacher is no better than the student without it"


def test_one_seed_has_no_deviation(run):
    for seed in (1, 2):
        shutil.rmtree(run / f"seed-{seed}")
    change(run / "run.json", seeds=[0], task="masked_lm")
    page = build_report(run).read_text(encoding="utf-8")
    assert "±" not in page
    assert "deviation" not in page


def test_a_number_that_was_not_finite_is_no_damage(run):
    path = run / "seed-0" / "student" / "metrics.jsonl"
    assert '"grad_norm": null' in path.read_text()
    whole = read_run(run).of("student")[0].logs
    assert [log["step"] for log in whole if "loss" in log and "grad_norm" not in log] == [50]
    path.write_text(path.read_text() + '{"step": null, "loss": 1.0}\n')
    with pytest.raises(DamagedDataError, match=r"metrics\.jsonl:26: step is None; expected a number"):
        read_run(run)


@pytest.mark.parametrize("name", ["text.json", "seed-1/baseline/scores.json", "run.json"])
@pytest.mark.parametrize("damage", ["cut", "zeros", "list", "empty"])
def test_a_damaged_file_is_named(run, name, damage):
    content = (run / name).read_bytes()
    (run / name).write_bytes(
        {"cut": content[: len(content) // 2], "zeros": bytes(100), "list": b"[1]", "empty": b"{}"}[damage]
    )
    with pytest.raises(DamagedDataError, match=re.escape(name)):
        build_report(run)
    assert not (run / "report.html").exists()
    assert not (run / "report").exists()


LENGTH = len(made_text_run.tokens_of(made_text_run.PIECE))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tokens": []}, "tokens is empty; expected"),
        ({"tokens": "abc"}, "tokens is 'abc'; expected a list of str"),
        ({"tokens": [1] * LENGTH}, r"tokens is \[1, .*…; expected a list of str"),
        ({"tokens": ["a", "b"]}, rf"teacher_nll has {LENGTH} numbers; expected 2, one for each token"),
        ({"seed": "first"}, "seed is 'first'; expected a number"),
        ({"student_nll": 1.0}, "student_nll is 1.0; expected a list"),
        ({"student_kl": [0.0]}, rf"student_kl has 1 numbers; expected {LENGTH}"),
        ({"student_kl": ["x"] * LENGTH}, r"student_kl\[0\] is 'x'; expected a number"),
        ({"student_kl": [True] * LENGTH}, r"student_kl\[0\] is True; expected a number"),
        ({"baseline_kl": [None, -0.5, *[0.0] * (LENGTH - 2)]}, r"baseline_kl\[1\] is -0\.5; expected no less than 0"),
    ],
)
def test_a_text_that_does_not_fit_is_named(run, changed, said):
    change(run / "text.json", **changed)
    with pytest.raises(DamagedDataError, match=rf"text\.json: {said}"):
        read_run(run)


@pytest.mark.parametrize("key", ["seed", "tokens", "teacher_nll", "student_nll"])
def test_a_reading_that_is_missing_is_named(run, key):
    drop(run / "text.json", key)
    with pytest.raises(DamagedDataError, match=rf"text\.json lacks \['{key}'\]; it has"):
        read_run(run)


@pytest.mark.parametrize("key", ["tokens", "nll", "perplexity"])
def test_a_score_that_is_missing_is_named(run, key):
    drop(run / "seed-1" / "student" / "scores.json", key)
    with pytest.raises(DamagedDataError, match=rf"seed-1/student/scores\.json lacks \['{key}'\]"):
        read_run(run)


def test_a_task_that_is_not_known(run):
    change(run / "run.json", task="sorting")
    with pytest.raises(
        DamagedDataError, match=r"run\.json: task is 'sorting'; expected one of classification, causal_lm"
    ):
        build_report(run)
