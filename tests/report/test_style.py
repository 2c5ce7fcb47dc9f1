"""The palettes: read as text on their paper, told apart by everyone, and alone in the pictures."""

import json
import re
from itertools import combinations, pairwise

import made_run
import numpy as np
import pytest
from matplotlib.figure import Figure

from tutelage.report import _bars, _curves
from tutelage.report._answers import matrix
from tutelage.report._classification import METRICS
from tutelage.report._reliability import calibration
from tutelage.report._run import read_run
from tutelage.report._style import DARK, LIGHT, Picture, darkened, end_labels, figure, style
from tutelage.report._words import headline

# Machado, Oliveira, Fernandes 2009, severity 1: what is seen without one kind of cone, in linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colour):
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """WCAG 2: (lighter + 0.05) / (darker + 0.05)."""
    low, high = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) + 0.05 for colour in (one, other))
    return high / low


def lab(rgb):
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ np.clip(rgb, 0, 1)
    x, y, z = np.cbrt(xyz / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["ink", "muted", "teacher", "student", "baseline"])
def test_every_colour_can_be_read_as_text(palette, name):
    assert contrast(palette[name], palette["paper"]) >= 4.5


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("blindness", BLINDNESS)
def test_the_roles_are_told_apart(palette, blindness):
    seen = {
        role: lab(np.array(BLINDNESS[blindness]) @ linear(palette[role])) for role in ("teacher", "student", "baseline")
    }
    for one, other in combinations(seen, 2):
        # About ten times the difference that is just noticed.
        assert np.linalg.norm(seen[one] - seen[other]) > 23, (one, other)


def test_the_palettes_match():
    assert list(LIGHT) == list(DARK)
    assert len(set(LIGHT.values())) == len(LIGHT)
    assert not set(LIGHT.values()) & set(DARK.values())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_run.make(tmp_path_factory.mktemp("made") / "run", seeds=(0, 1), steps=200, omit=3)


def test_pictures_have_the_colours_of_the_palette_alone(made):
    run = read_run(made)
    with style():
        pictures = [_bars.scores(run, metric, gap=metric.key == "errors") for metric in METRICS]
        pictures += [
            *_curves.loss_terms(run),
            *_curves.following(run),
            matrix(run),
            *calibration(run),
            _bars.left_out(run),
        ]
        for picture in pictures:
            svg = picture.svg()
            found = set(re.findall(r"#[0-9a-f]{6}\b", svg))
            assert found <= set(LIGHT.values()), picture.name
            assert set(re.findall(r"#[0-9a-f]{6}\b", darkened(svg))) <= set(DARK.values())
            # Black that no name says: text and shapes without a colour of their own.
            assert not re.search(r"(fill|stroke): ?(black|white|rgb)", svg)
            for text in re.findall(r"<text [^>]*>", svg):
                assert "fill: #" in text


def test_a_picture_has_its_words_as_text():
    with style():
        made, axes = figure(3.6, 2.0)
        axes.set_title("an $x_1$ & <b> of 3 %")
        svg = Picture("p", made, "alt", "caption").svg()
    assert "an $x_1$ &amp; &lt;b&gt; of 3 %" in svg
    assert "system-ui" in svg
    assert "DejaVu Sans" in svg


def test_labels_at_the_end_do_not_touch():
    with style():
        made, axes = figure(3.6, 2.0)
        assert isinstance(made, Figure)
        axes.set_ylim(0, 1)
        end_labels(axes, [(0.50, "one", LIGHT["ink"]), (0.51, "two", LIGHT["ink"]), (0.05, "three", LIGHT["ink"])])
        made.canvas.draw()
        boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
    assert [text.get_text() for text in axes.texts] == ["three", "one", "two"]
    assert all(lower.y1 <= upper.y0 + 1 for lower, upper in pairwise(boxes))


def test_the_headline_of_a_class_left_out_is_that_of_the_files(made):
    scores = [
        json.loads((made / f"seed-{seed}" / "student" / "scores.json").read_text())["omitted"]["3"] for seed in (0, 1)
    ]
    shares = [round(50 * sum(one[key] / one["rows"] for one in scores)) for key in ("known", "known_with_bias")]
    assert shares[0] < shares[1]
    title = headline(read_run(made)).title.replace("\xa0", " ")
    assert title == f"The student never saw a “3”, and knows {shares[0]} % of them, {shares[1]} % with its bias set"
