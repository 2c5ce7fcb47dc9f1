"""Scores, against scikit-learn and against sums written out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr
from scipy.special import softmax as soft
from sklearn.metrics import accuracy_score, log_loss

from tutelage.runs._scores import best_bias, calibration_error, omitted_scores, run_scores, scores_of


@pytest.fixture
def answers(generator):
    logits = 3 * torch.randn(200, 4, generator=generator)
    teacher = logits + torch.randn(200, 4, generator=generator)
    return logits, teacher, torch.randint(0, 4, (200,), generator=generator)


def test_scores_are_scikit_learns(answers):
    logits, teacher, labels = answers
    found = scores_of(logits, labels, teacher)
    p, t = soft(logits.double().numpy(), axis=1), soft(teacher.double().numpy(), axis=1)
    assert found["rows"] == 200
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, p.argmax(1)))
    assert found["errors"] == 200 - round(200 * found["accuracy"])
    assert found["nll"] == pytest.approx(log_loss(labels, p, labels=range(4)))
    assert found["brier"] == pytest.approx(np.mean(np.sum((p - np.eye(4)[labels]) ** 2, axis=1)))
    assert found["agreement"] == pytest.approx(np.mean(p.argmax(1) == t.argmax(1)))
    assert found["kl"] == pytest.approx(rel_entr(t, p).sum(1).mean())
    assert "kl" not in scores_of(logits, labels)


def test_the_calibration_error_is_a_sum_over_bins(answers):
    logits, _, labels = answers
    p = soft(logits.double().numpy(), axis=1)
    confidence, right = p.max(1), p.argmax(1) == labels.numpy()
    total = 0.0
    for low, high in ((b / 15, (b + 1) / 15) for b in range(15)):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert scores_of(logits, labels)["ece"] == pytest.approx(total)
    sure = torch.ones(10, dtype=torch.float64)
    assert calibration_error(sure, torch.arange(10) < 7) == pytest.approx(0.3)


def right_with(logits, labels, chosen, bias):
    shifted = logits.double().clone()
    shifted[:, chosen] += bias
    return int((shifted.argmax(1) == labels).sum())


@given(
    logits=st.lists(st.lists(st.integers(-4, 4), min_size=3, max_size=3), min_size=1, max_size=8),
    labels=st.lists(st.integers(0, 2), min_size=8, max_size=8),
    chosen=st.integers(0, 2),
)
def test_the_bias_is_the_best_there_is(logits, labels, chosen):
    """Against all constants on a grid that has a point in every interval between margins."""
    z, y = torch.tensor(logits, dtype=torch.float32), torch.tensor(labels[: len(logits)])
    bias = best_bias(z, y, chosen)
    assert np.isfinite(bias)
    best = max(right_with(z, y, chosen, half / 2 + 0.25) for half in range(-20, 21))
    assert right_with(z, y, chosen, bias) == best
    # The middle: as far from the one end of its interval as from the other, unless there is none.
    assert right_with(z, y, chosen, bias + 1e-3) == right_with(z, y, chosen, bias - 1e-3) == best


def test_the_bias_is_the_middle_of_the_widest():
    # Class 0 is 1, 2 and 6 short of the best other; the rows' labels are other, 0, 0: right from 6 on, but for one row.
    logits = torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 6.0]])
    assert best_bias(logits, torch.tensor([0, 0, 1]), 0) == 4.0
    assert best_bias(logits, torch.tensor([0, 0, 0]), 0) == 7.0
    assert best_bias(logits, torch.tensor([1, 1, 1]), 0) == 0.0


def test_an_omitted_class_with_and_without_its_bias():
    logits = torch.tensor([[0.0, 1.0, 0.0], [0.0, 3.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 9.0]])
    labels = torch.tensor([0, 0, 0, 2])
    fit_logits, fit_labels = torch.tensor([[0.0, 1.0, 0.0], [0.0, 5.0, 0.0]]), torch.tensor([0, 1])
    found = omitted_scores(logits, labels, fit_logits, fit_labels, 0)
    assert found == {"rows": 3, "known": 1, "known_with_bias": 2, "bias": 3.0} or found["bias"] == pytest.approx(3.0)
    assert logits[0, 0] == 0  # what was handed over is as it was


def test_over_seeds():
    found = run_scores(
        {
            "teacher": [{"errors": 10}],
            "student": [{"errors": 20}, {"errors": 14}],
            "baseline": [{"errors": 60}, {"errors": 90}],
        }
    )
    assert found["student"]["errors"] == {"mean": 17.0, "std": pytest.approx(18**0.5), "values": [20, 14]}
    assert found["teacher"]["errors"]["std"] is None
    assert found["gap_closed"]["mean"] == pytest.approx((75 - 17) / 65)
    assert found["gap_closed"]["values"] == pytest.approx([40 / 50, 76 / 80])
    assert "gap_closed" not in run_scores(
        {"teacher": [{"errors": 9}], "student": [{"errors": 9}], "baseline": [{"errors": 9}]}
    )
    omitted = [{"errors": 1, "omitted": {"3": {"known": 5}}}, {"errors": 2, "omitted": {"3": {"known": 7}}}]
    assert run_scores({"student": omitted})["omitted"]["3"]["student"]["known"]["mean"] == 6
