"""What the page says in numbers and sentences: the metrics and how they are read, and the headline."""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.report._measures import Spread
from tutelage.report._run import Run
from tutelage.run_folder import BASELINE, STUDENT, TEACHER


@dataclass(frozen=True)
class Metric:
    """One number that a network scores on the test rows."""

    key: str
    title: str
    reading: str
    percent: bool = False
    digits: int = 3
    higher_is_better: bool = False


ERRORS = Metric("errors", "Errors on the test rows", "Fewer is better.", digits=1)
METRICS = (
    ERRORS,
    Metric("accuracy", "Accuracy", "Higher is better.", percent=True, higher_is_better=True),
    Metric("nll", "Cross-entropy, nats", "Of the true class; lower is better."),
    Metric("brier", "Brier score", "Squared error of the probabilities; lower is better."),
    Metric("ece", "Calibration error (ECE)", "Confidence against the share that is right; lower is better.", percent=True),
    Metric("agreement", "Same answer as the teacher", "Higher is better.", percent=True, higher_is_better=True),
    Metric("kl", "KL(teacher ‖ network), nats", "0 where the probabilities are equal."),
)


def of_arms(run: Run, name: str, key: str) -> Spread | None:
    """Return a score of one role over its finished seeds, or None where it has none."""
    values = tuple(arm.scores[key] for arm in run.of(name) if key in arm.scores)
    return Spread(values) if values else None


def shown(value: float, *, percent: bool = False, digits: int = 3) -> str:
    """Return a number as it is read: percent with one decimal, whole numbers whole."""
    if percent:
        return f"{100 * value:.1f} %"
    if digits == 1:
        return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"
    return f"{value:.{digits}f}"


def spread_text(spread: Spread, metric: Metric) -> str:
    """Return mean and standard deviation in the unit of a metric."""
    mean = shown(spread.mean, percent=metric.percent, digits=metric.digits)
    if spread.deviation is None:
        return mean
    if metric.percent:
        return f"{mean.removesuffix(' %')} ± {100 * spread.deviation:.1f} %"
    return f"{mean} ± {spread.deviation:.{metric.digits}f}"


def share_closed(run: Run) -> tuple[float, float] | None:
    """Return (gap, share of it that the student closes), in errors of the means; None without a gap to close."""
    means = [of_arms(run, name, "errors") for name in (BASELINE, STUDENT, TEACHER)]
    if any(mean is None for mean in means):
        return None
    baseline, student, teacher = (mean.mean for mean in means if mean is not None)
    return (baseline - teacher, (baseline - student) / (baseline - teacher)) if baseline > teacher else None


@dataclass(frozen=True)
class Headline:
    """One sentence that tells how it went, and one with the figures that it rests on."""

    title: str
    text: str


def headline(run: Run) -> Headline:
    """Return what a reader should take away, also where the run is unfinished or went badly."""
    errors = {name: of_arms(run, name, "errors") for name in (TEACHER, STUDENT, BASELINE)}
    student, baseline, teacher = errors[STUDENT], errors[BASELINE], errors[TEACHER]
    if student is None:
        return Headline("No student is finished yet", "Scores appear here when the first seed is trained and evaluated.")
    assert run.labels is not None
    makes = f"the student makes {_errors(student)} on {len(run.labels):,} test rows"
    if baseline is None:
        beside = "" if teacher is None else f"; its teacher makes {shown(teacher.mean, digits=1)}"
        return Headline(f"The student is right in {_accuracy(run)} of the test rows", f"{_capital(makes)}{beside}.")
    alone = f"the same student without the teacher makes {shown(baseline.mean, digits=1)}"
    closed = share_closed(run)
    if closed is None:
        if teacher is None:
            return Headline(f"{_capital(makes)}", f"{_capital(alone)}.")
        title = "The teacher is no better than the student without it"
        text = f"It makes {shown(teacher.mean, digits=1)} errors, and {alone}: there is no gap to close. {_capital(makes)}."
        return Headline(title, text)
    assert teacher is not None
    share = closed[1]
    if share > 1:
        title = "The student beats its teacher"
    elif share > 0:
        title = f"Distilling closes {100 * share:.0f} % of the gap to the teacher"
    else:
        title = "Distilling did not help here"
    return Headline(title, f"{_capital(makes)}; {alone}; the teacher makes {shown(teacher.mean, digits=1)}.")


def _errors(spread: Spread) -> str:
    mean = shown(spread.mean, digits=1)
    return f"{mean} error{'' if mean == '1' else 's'}"


def _accuracy(run: Run) -> str:
    spread = of_arms(run, STUDENT, "accuracy")
    assert spread is not None
    return shown(spread.mean, percent=True)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
