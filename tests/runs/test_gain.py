"""What the shipped recipes are for, with the figures that the project states: minutes of training, so marked slow."""

import pytest

from tutelage.config import load
from tutelage.runs import run

FIVE = "training.seeds=5"


@pytest.mark.slow
def test_few_labels(tmp_path):
    """Of the errors between a student on 100 labels and its teacher, distilling takes away four fifths."""
    scores = run(load("digits-few-labels", [FIVE]), tmp_path / "run").scores
    assert scores["student"]["parameters"]["mean"] == 64 * 16 + 16 + 16 * 10 + 10
    assert scores["teacher"]["errors"]["mean"] < 18
    assert scores["baseline"]["errors"]["mean"] > 40
    assert scores["gap_closed"]["mean"] >= 0.8


@pytest.mark.slow
def test_an_omitted_digit(tmp_path):
    """Three quarters of a digit that the student never saw are known, and nearly all once its bias is set."""
    summary = run(load("digits-omitted-class", [FIVE]), tmp_path / "run")
    found = summary.scores["omitted"]["3"]
    rows = found["student"]["rows"]["mean"]
    assert found["student"]["known"]["mean"] >= 0.75 * rows
    assert found["student"]["known_with_bias"]["mean"] >= 0.95 * rows
    if "baseline" in found:
        assert found["baseline"]["known"]["mean"] == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_language_model(tmp_path):
    """Over three seeds, what the teacher says is worth 0.12 nats for every token, at equal steps."""
    scores = run(load("pystdlib-lm"), tmp_path / "run").scores
    assert scores["student"]["parameters"]["mean"] < 250_000
    assert scores["teacher"]["parameters"]["mean"] > 2_000_000
    assert len(scores["baseline"]["nll"]["values"]) == 3
    assert scores["baseline"]["nll"]["mean"] - scores["student"]["nll"]["mean"] >= 0.12
