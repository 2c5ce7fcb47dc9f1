"""What the page says in numbers and sentences: how a metric is written, how much of the gap is closed, the headline."""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.report._contents import Run
from tutelage.report._measures import Spread
from tutelage.run_folder import BASELINE, STUDENT, TEACHER

PERCENT = "\u00a0%"
"""The number and its sign stay on one line."""


@dataclass(frozen=True)
class Metric:
    """One number that a network scores on the test rows."""

    key: str
    title: str
    reading: str
    percent: bool = False
    digits: int = 3


def of_arms(run: Run, name: str, key: str) -> Spread | None:
    """Return a score of one role over its finished seeds, or None where it has none."""
    values = tuple(arm.scores[key] for arm in run.of(name) if key in arm.scores)
    return Spread(values) if values else None


def shown(value: float, *, percent: bool = False, digits: int = 3) -> str:
    """Return a number as it is read: percent with one decimal, whole numbers whole."""
    if percent:
        return f"{100 * value:.1f}{PERCENT}"
    if digits == 1:
        return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"
    return f"{value:.{digits}f}"


def whole_percent(share: float) -> str:
    """Return a share as percent without decimals. Only all is 100 %, and only none is 0 %."""
    percent = round(100 * share)
    if percent == 100 and share < 1:
        return f"{100 * share:.1f}{PERCENT}" if share < 0.9995 else f"> 99.9{PERCENT}"
    if percent == 0 and share > 0:
        return f"{100 * share:.1f}{PERCENT}" if share >= 0.0005 else f"< 0.1{PERCENT}"
    return f"{percent}{PERCENT}"


def spread_text(spread: Spread, metric: Metric) -> str:
    """Return mean and standard deviation in the unit of a metric."""
    mean = shown(spread.mean, percent=metric.percent, digits=metric.digits)
    if spread.deviation is None:
        return mean
    if metric.percent:
        return f"{mean.removesuffix(PERCENT)} ± {100 * spread.deviation:.1f}{PERCENT}"
    return f"{spread.mean:,.{metric.digits}f} ± {spread.deviation:,.{metric.digits}f}"


def share_closed(run: Run) -> float | None:
    """Return the share of the gap between baseline and teacher, of means over the seeds, that is closed.

    None where an arm is missing, and where the teacher is no better than the baseline: there is no gap then.
    """
    baseline, student, teacher = (of_arms(run, name, run.task.gap.key) for name in (BASELINE, STUDENT, TEACHER))
    if baseline is None or student is None or teacher is None or baseline.mean <= teacher.mean:
        return None
    return (baseline.mean - student.mean) / (baseline.mean - teacher.mean)


def left_out_classes(run: Run) -> list[str]:
    """Return the names of the classes that have no image in the transfer set."""
    return list(dict.fromkeys(key for arm in run.arms for key in arm.omitted))


def shares_known(run: Run, name: str, key: str) -> tuple[float, float] | None:
    """Return how much of a class's test rows a role knows, as it is and with the bias set; None where not counted."""
    found = [arm.omitted[key] for arm in run.of(name) if key in arm.omitted and arm.omitted[key].rows]
    if not found:
        return None
    before, after = ([one.known / one.rows for one in found], [one.known_with_bias / one.rows for one in found])
    return Spread(tuple(before)).mean, Spread(tuple(after)).mean


@dataclass(frozen=True)
class Headline:
    """One sentence that tells how it went, and one with the figures that it rests on."""

    title: str
    text: str


def headline(run: Run) -> Headline:
    """Return what a reader should take away, also where the run is unfinished or went badly."""
    task = run.task
    student, baseline, teacher = (of_arms(run, name, task.gap.key) for name in (STUDENT, BASELINE, TEACHER))
    if student is None:
        return Headline("No student is finished yet", "Scores appear when the first seed is trained and evaluated.")
    sentences = [f"The student {task.verb} {task.amount(student)} on {task.tested(run)}"]
    if baseline is not None:
        number = shown(baseline.mean, digits=task.gap.digits)
        sentences.append(f"the same network without the teacher {task.verb} {number}")
    if teacher is not None:
        sentences.append(f"the teacher {task.verb} {shown(teacher.mean, digits=task.gap.digits)}")
    seeds = f" Means over {len(student.values)} seeds." if len(student.values) > 1 else ""
    text = f"{'; '.join(sentences)}.{seeds}"
    remark = task.remark(run)
    if remark is not None:
        return Headline(remark.title, f"{remark.text} {text}".strip())
    return Headline(_title(run, baseline, teacher), text)


def _title(run: Run, baseline: Spread | None, teacher: Spread | None) -> str:
    share = share_closed(run)
    if share is None:
        if baseline is not None and teacher is not None:
            return "The teacher is no better than the student without it"
        return run.task.alone(run)
    if share > 1:
        return run.task.better
    if share > 0:
        return f"Distilling closes {whole_percent(share)} of the gap to the teacher"
    return "Distilling did not help here"
