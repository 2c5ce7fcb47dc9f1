"""What is counted and averaged for the pictures: probabilities, calibration, who agrees with whom, means over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tutelage.report._contents import Log

BINS = 15
"""Equal widths of confidence, as in Guo et al. 2017."""
_POINTS = 120
"""A curve is drawn in at most this many windows: a picture has no more to show."""


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over the seeds; no deviation where there is one value."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return float(np.mean(self.values))

    @property
    def deviation(self) -> float | None:
        """The standard deviation of a sample, or None for a single value."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None


@dataclass(frozen=True, eq=False)
class Curve:
    """One quantity over steps: mean, and standard deviation over the seeds (zeros for a single one)."""

    steps: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    seeds: int


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return log probabilities (n, C)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def kl(teacher: np.ndarray, student: np.ndarray) -> np.ndarray:
    """Return KL(teacher || student) of each row (n,), in nats, from logits (n, C)."""
    log_p, log_q = log_softmax(teacher), log_softmax(student)
    return np.asarray((np.exp(log_p) * (log_p - log_q)).sum(axis=1))


def confusion(teacher: np.ndarray, students: Sequence[np.ndarray]) -> np.ndarray:
    """Return how often the teacher says the row's class and a student the column's (C, C), summed over students."""
    classes = teacher.shape[1]
    counts = np.zeros((classes, classes), dtype=np.int64)
    for student in students:
        np.add.at(counts, (teacher.argmax(axis=1), student.argmax(axis=1)), 1)
    return counts


@dataclass(frozen=True, eq=False)
class Reliability:
    """How often the answers of one confidence are right, in the bins that have rows."""

    confidence: np.ndarray
    accuracy: np.ndarray
    share: np.ndarray
    """Of all rows; sums to 1."""


def reliability(logits: Sequence[np.ndarray], labels: np.ndarray) -> Reliability:
    """Return the diagram of one or more networks (their rows are pooled) on the same labels."""
    probabilities = [np.exp(log_softmax(values)) for values in logits]
    confidence = np.concatenate([values.max(axis=1) for values in probabilities])
    right = np.concatenate([values.argmax(axis=1) == labels for values in probabilities])
    # Bins are open to the left: a confidence of exactly 1 belongs to the last one.
    places = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    filled = counts > 0
    return Reliability(
        np.bincount(places, confidence, BINS)[filled] / counts[filled],
        np.bincount(places, right, BINS)[filled] / counts[filled],
        counts[filled] / counts.sum(),
    )


def curve(logs: Sequence[Sequence[Log]], key: str) -> Curve | None:
    """Return one logged quantity over the steps that all seeds have logged; None where there are none."""
    series = [{int(log["step"]): log[key] for log in lines if key in log} for lines in logs]
    series = [values for values in series if values]
    if not series:
        return None
    steps = np.array(sorted(set.intersection(*(set(values) for values in series))))
    if not len(steps):
        return None
    values = np.array([[of_seed[step] for step in steps.tolist()] for of_seed in series])
    windows = np.array_split(np.arange(len(steps)), min(_POINTS, len(steps)))
    values = np.stack([values[:, window].mean(axis=1) for window in windows], axis=1)
    deviation = values.std(axis=0, ddof=1) if len(series) > 1 else np.zeros(len(windows))
    ends = np.array([steps[window[-1]] for window in windows])
    return Curve(ends, values.mean(axis=0), deviation, len(series))


def terms(logs: Sequence[Sequence[Log]]) -> list[str]:
    """Return the names of the loss terms, in the order in which they are logged."""
    others = {"step", "epoch", "loss", "grad_norm", "learning_rate"}
    names = dict.fromkeys(key for lines in logs for log in lines for key in log)
    return [name for name in names if name not in others and not name.startswith("eval_")]
