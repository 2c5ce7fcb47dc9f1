"""What is counted, against scikit-learn, scipy and numbers worked out by hand."""

import numpy as np
import pytest
from scipy.special import rel_entr, softmax
from sklearn.metrics import confusion_matrix

from tutelage.report._measures import Spread, confusion, curve, kl, log_softmax, reliability, terms

GENERATOR = np.random.default_rng(3)
TEACHER, STUDENT = GENERATOR.normal(size=(2, 200, 7)) * 3
LABELS = GENERATOR.integers(0, 7, 200)


def test_kl_is_that_of_scipy():
    expected = rel_entr(softmax(TEACHER, axis=1), softmax(STUDENT, axis=1)).sum(axis=1)
    np.testing.assert_allclose(kl(TEACHER, STUDENT), expected, rtol=1e-10)
    assert not kl(TEACHER, TEACHER).any()
    # Logits that no exponential could hold.
    assert np.isfinite(log_softmax(np.array([[1e5, -1e5, 0.0]]))).all()


def test_confusion_is_that_of_scikit_learn():
    expected = confusion_matrix(TEACHER.argmax(1), STUDENT.argmax(1), labels=range(7))
    np.testing.assert_array_equal(confusion(TEACHER, [STUDENT]), expected)
    np.testing.assert_array_equal(confusion(TEACHER, [STUDENT, TEACHER]).sum(), 400)


def test_reliability_gives_the_calibration_error_by_its_definition():
    p = softmax(STUDENT, axis=1)
    confidence, right = p.max(1), p.argmax(1) == LABELS
    diagram = reliability([STUDENT], LABELS)
    by_bin = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            by_bin += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert (diagram.share * abs(diagram.confidence - diagram.accuracy)).sum() == pytest.approx(by_bin, rel=1e-12)
    assert diagram.share.sum() == pytest.approx(1.0)
    assert (diagram.share * diagram.accuracy).sum() == pytest.approx(right.mean())


def test_reliability_by_hand():
    # Sure of class 0 three times, right twice; torn between two classes once, and right.
    logits = np.array([[50.0, 0.0], [50.0, 0.0], [50.0, 0.0], [0.0, 0.0]])
    diagram = reliability([logits], np.array([0, 0, 1, 0]))
    np.testing.assert_allclose(diagram.confidence, [0.5, 1.0])
    np.testing.assert_allclose(diagram.accuracy, [1.0, 2 / 3])
    np.testing.assert_allclose(diagram.share, [0.25, 0.75])


def test_spread_is_that_of_a_sample():
    assert Spread((2.0, 4.0, 9.0)).mean == 5.0
    assert Spread((2.0, 4.0, 9.0)).deviation == pytest.approx(13**0.5)  # (9 + 1 + 16) / 2
    assert Spread((2.0,)).deviation is None


def test_a_curve_is_over_the_steps_that_all_seeds_have():
    one = [{"step": 1, "soft": 1.0}, {"step": 2, "soft": 3.0}, {"step": 2, "eval_kl": 7.0}, {"step": 3, "soft": 5.0}]
    two = [{"step": 1, "soft": 3.0}, {"step": 2, "soft": 3.0}]
    found = curve([one, two], "soft")
    np.testing.assert_array_equal(found.steps, [1, 2])
    np.testing.assert_array_equal(found.mean, [2.0, 3.0])
    np.testing.assert_allclose(found.deviation, [2**0.5, 0.0])
    assert curve([one, two], "hard") is None
    assert curve([one, []], "eval_kl").seeds == 1
    assert curve([[{"step": 1, "soft": 1.0}], [{"step": 2, "soft": 1.0}]], "soft") is None


def test_a_long_curve_keeps_its_mean_and_its_end():
    values = GENERATOR.normal(size=1200)
    found = curve([[{"step": step, "soft": value} for step, value in enumerate(values, start=1)]], "soft")
    assert len(found.steps) == 120
    assert found.steps[-1] == 1200
    assert found.mean.mean() == pytest.approx(values.mean())


def test_terms_are_what_the_trainer_did_not_name():
    logs = [{"step": 5, "epoch": 0.1, "loss": 1.0, "soft": 0.4, "hard": 0.6, "grad_norm": 1.0, "learning_rate": 0.1}]
    assert terms([logs, [{"step": 5, "eval_kl": 0.2}]]) == ["soft", "hard"]
