"""What a network scores on rows whose class is known: errors, calibration, how it stands to its teacher.

All from logits, in float64: what is counted for a report must not depend on the device that made them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

BINS = 15
"""Of equal widths of confidence, open to the left, as in Guo et al. 2017."""


def scores_of(logits: Tensor, labels: Tensor, teacher: Tensor | None = None) -> dict[str, Any]:
    """Return the scores of logits (N, C) on labels (N,); with a teacher's logits, agreement and distance to it.

    nll: nats per row; brier: squared distance of the probabilities to the one-hot label, in [0, 2]; ece: the expected
    calibration error; agreement: the share of rows on which both say the same; kl: KL(teacher || student) at T = 1, in
    nats per row.
    """
    rows = len(labels)
    log_q = logits.double().log_softmax(-1)
    q = log_q.exp()
    confidence, guess = q.max(-1)
    right = guess == labels
    found = {
        "rows": rows,
        "errors": int((~right).sum()),
        "accuracy": float(right.double().mean()),
        "nll": float(torch.nn.functional.nll_loss(log_q, labels)),
        "brier": float((q - torch.nn.functional.one_hot(labels, q.shape[1])).square().sum(-1).mean()),
        "ece": calibration_error(confidence, right),
    }
    if teacher is not None:
        log_p = teacher.double().log_softmax(-1)
        found["agreement"] = float((guess == log_p.argmax(-1)).double().mean())
        found["kl"] = float((log_p.exp() * (log_p - log_q)).sum(-1).mean())
    return found


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Return the expected calibration error: how far confidence and accuracy are apart, per bin, weighted by rows."""
    places = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add_(0, places, right.double() - confidence)
    return float(gaps.abs().sum() / len(right))


def omitted_scores(
    logits: Tensor, labels: Tensor, fit_logits: Tensor, fit_labels: Tensor, omitted: int
) -> dict[str, Any]:
    """Return how many test rows of an omitted class are known, as it is and with the class's bias set on `fit` rows."""
    bias = best_bias(fit_logits, fit_labels, omitted)
    shifted = logits.double()
    shifted[:, omitted] += bias
    of_class = labels == omitted
    return {
        "rows": int(of_class.sum()),
        "known": int((logits[of_class].argmax(-1) == omitted).sum()),
        "known_with_bias": int((shifted[of_class].argmax(-1) == omitted).sum()),
        "bias": bias,
    }


def best_bias(logits: Tensor, labels: Tensor, chosen: int) -> float:
    """Return the constant on the logit of one class with which most rows are right: the middle of the best interval.

    Only where it passes a row's margin does the constant change an answer, so between neighbouring margins nothing
    does. Of several best intervals the widest is taken; of one without an end, 0 if it is inside, or 1 beyond its end.
    """
    values = logits.double().clone()
    own = values[:, chosen].clone()
    values[:, chosen] = -math.inf
    other, guess = values.max(-1)
    # What a row adds when the constant passes its margin: it becomes right, stops being so, or was wrong and stays so.
    gained = (labels == chosen).long() - (guess == labels).long()
    margins, places = (other - own).unique(return_inverse=True)
    at_once = torch.zeros(len(margins), dtype=torch.int64).index_add_(0, places, gained)
    right = [0, *at_once.cumsum(0).tolist()]
    edges = [-math.inf, *margins.tolist(), math.inf]
    intervals: list[list[float]] = []
    for place, value in enumerate(right):
        if value < max(right):
            continue
        if intervals and intervals[-1][1] == edges[place]:
            intervals[-1][1] = edges[place + 1]
        else:
            intervals.append([edges[place], edges[place + 1]])
    low, high = max(intervals, key=lambda interval: interval[1] - interval[0])
    if math.isfinite(low) and math.isfinite(high):
        return (low + high) / 2
    if low < 0 < high:
        return 0.0
    return low + 1 if math.isfinite(low) else high - 1


# --- over seeds -------------------------------------------------------------------------------------------------------


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, standard deviation (of a sample; None for one value) and the values."""
    std = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": std, "values": list(values)}


def run_scores(arms: Mapping[str, Sequence[Mapping[str, Any]]], measure: str = "errors") -> dict[str, Any]:
    """Return {arm: {metric: mean, std, values}} from the scores of each arm's seeds, and what they come to together.

    gap_closed: the share of the errors, or of another measure of which less is better, between baseline and teacher
    that the student does without, of the means; left out where there is no such gap. omitted: the same per omitted
    class and arm.
    """
    found: dict[str, Any] = {arm: _over_seeds(scores) for arm, scores in arms.items() if scores}
    if all(arm in found for arm in ("teacher", "student", "baseline")):
        means = {arm: found[arm][measure]["mean"] for arm in ("teacher", "student", "baseline")}
        gap = means["baseline"] - means["teacher"]
        if gap > 0:
            pairs = zip(arms["student"], arms["baseline"], strict=True)
            values = [_share(s[measure], b[measure], means["teacher"]) for s, b in pairs]
            known = [value for value in values if value is not None]
            std = statistics.stdev(known) if len(known) > 1 else None
            found["gap_closed"] = {"mean": (means["baseline"] - means["student"]) / gap, "std": std, "values": values}
    omitted: dict[str, Any] = {}
    for arm, scores in arms.items():
        for name in scores[0].get("omitted", {}) if scores else ():
            omitted.setdefault(name, {})[arm] = _over_seeds([one["omitted"][name] for one in scores])
    return {**found, "omitted": omitted} if omitted else found


def _over_seeds(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {key: spread([one[key] for one in scores]) for key in scores[0] if key != "omitted"}


def _share(student: float, baseline: float, teacher: float) -> float | None:
    return (baseline - student) / (baseline - teacher) if baseline > teacher else None
