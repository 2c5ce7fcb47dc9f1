"""The tables of the page, as texts: scores by role, size and speed beside the teacher's, what was run."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from tutelage.report._contents import Run
from tutelage.report._measures import Spread
from tutelage.report._words import left_out_classes, of_arms, share_closed, shown, spread_text, whole_percent
from tutelage.run_folder import BASELINE, STUDENT, TEACHER
from tutelage.wording import counted


@dataclass(frozen=True)
class Cell:
    """One text of a table, with a word beside it."""

    text: str
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A line of a table: what it is about, and a cell for each role (a dash where there is none)."""

    title: str
    cells: tuple[Cell, ...]
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """One number in large print, and what it is."""

    value: str
    text: str


def scores(run: Run) -> list[Line]:
    """Return one line for each metric that some role has."""
    lines = []
    for metric in run.task.metrics:
        spreads = [of_arms(run, name, metric.key) for name in run.names]
        if any(spread is not None for spread in spreads):
            cells = tuple(Cell("–" if spread is None else spread_text(spread, metric)) for spread in spreads)
            lines.append(Line(metric.title, cells, metric.reading))
    return lines


def statistic(run: Run) -> str:
    """Return what the scores are of several seeds; nothing for a single one."""
    seeds = max((len(run.of(name)) for name in run.names), default=0)
    return f"; mean ± standard deviation over {seeds} seeds" if seeds > 1 else ""


def size(run: Run) -> list[Line]:
    """Return parameters, bytes, latency and training time, each with how many times less than the teacher's it is."""
    return [
        Line(title, tuple(_beside(value, values[0] if run.names[0] == TEACHER else None, kind) for value in values))
        for title, values, kind in _measured(run)
        if any(value is not None for value in values)
    ]


def figures(run: Run) -> list[Figure]:
    """Return the few numbers that sum a run up."""
    found = []
    closed, gain = share_closed(run), run.task.gain(run)
    if gain is not None:
        found.append(Figure(*gain))
    if closed is not None:
        found.append(Figure(whole_percent(closed), "of the gap between baseline and teacher closed"))
    agreement = of_arms(run, STUDENT, "agreement")
    if agreement is not None:
        words = f"of the {run.task.answered} as the teacher does"
        found.append(Figure(shown(agreement.mean, percent=True), words))
    speedups = []
    for _, values, kind in _measured(run):
        by_name = dict(zip(run.names, values, strict=True))
        teacher, student = by_name.get(TEACHER), by_name.get(STUDENT)
        if teacher and student and kind == "parameters" and teacher > student:
            found.append(Figure(_times(teacher / student), "fewer parameters than the teacher"))
        if teacher and student and kind == "ms":
            speedups.append(teacher / student)
    # A busy machine spoils single latencies, by any factor: only the least of them is claimed, and only if it is one.
    if speedups and min(speedups) >= 1.1:
        found.append(Figure(_times(min(speedups)), "as fast as the teacher, or more, at every batch size measured"))
    return found


@dataclass(frozen=True)
class Known:
    """How many test rows of a class that was left out a role knows: means over the seeds."""

    name: str
    key: str
    rows: int
    before: str
    after: str


def known(run: Run) -> list[Known]:
    """Return the counts behind the picture of the classes that were left out."""
    found = []
    for key in left_out_classes(run):
        for name in run.names:
            counts = [arm.omitted[key] for arm in run.of(name) if key in arm.omitted]
            if counts and counts[0].rows:
                before = Spread(tuple(float(one.known) for one in counts)).mean
                after = Spread(tuple(float(one.known_with_bias) for one in counts)).mean
                found.append(Known(name, key, counts[0].rows, shown(before, digits=1), shown(after, digits=1)))
    return found


def facts(run: Run) -> list[tuple[str, str]]:
    """Return what was run: recipe, data, seeds, versions."""
    data = ", ".join(f"{run.rows[key]:,} {text}" for key, text in run.task.rows.items() if key in run.rows)
    steps = sorted({int(arm.logs[-1]["step"]) for arm in run.arms if arm.logs})
    found = [
        ("Recipe", run.name),
        ("Rows", data),
        *run.task.facts(run),
        ("Seeds", ", ".join(str(seed) for seed in run.seeds)),
        ("Steps", " or ".join(f"{step:,}" for step in steps) + " for each arm" if steps else ""),
        ("Took", _duration(run.seconds) if run.seconds is not None else ""),
    ]
    found += [(key[:1].upper() + key[1:].replace("_", " "), value) for key, value in run.environment.items()]
    return [(key, value) for key, value in found if value]


def _measured(run: Run) -> Iterator[tuple[str, list[float | None], str]]:
    """Yield (title, a number for each role, its kind): means of sizes, medians of times over the seeds."""
    for key, title in (("parameters", "Parameters"), ("bytes", "Model file")):
        values = [of_arms(run, name, key) for name in run.names]
        yield title, [None if value is None else value.mean for value in values], key
    sizes = dict.fromkeys(size for name in run.names for arm in run.of(name) for size in arm.latency)
    for size in sizes:
        title = "Latency, one row" if size == "1" else f"Latency, a batch of {size}"
        latency = [[arm.latency[size] for arm in run.of(name) if size in arm.latency] for name in run.names]
        yield title, [statistics.median(times) if times else None for times in latency], "ms"
    # A teacher that was kept from an earlier run took no time in this one.
    trained = [[arm.train_seconds for arm in run.of(name) if arm.train_seconds] for name in run.names]
    yield "Training time", [statistics.median(times) if times else None for times in trained], "seconds"


def _beside(value: float | None, teacher: float | None, kind: str) -> Cell:
    if value is None:
        return Cell("–")
    texts = {
        "parameters": f"{value:,.0f}",
        "bytes": _bytes(value),
        "ms": f"{value:.3g} ms",
        "seconds": _duration(value),
    }
    if kind == "seconds" or not teacher or not value or value == teacher:
        return Cell(texts[kind])
    return Cell(
        texts[kind], f"{_times(teacher / value)} less" if teacher > value else f"{_times(value / teacher)} more"
    )


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}×" if ratio >= 10 else f"{ratio:.1f}×"


def _bytes(value: float) -> str:
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= step:
            return f"{value / step:.3g} {unit}"
    return f"{value:.0f} bytes"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def legend(run: Run) -> list[tuple[str, str]]:
    """Return the roles that there are and what each is."""
    rows = f" on {counted(run.rows['train'], 'row')}" if "train" in run.rows else ""
    meaning = {
        TEACHER: "the network that is distilled",
        STUDENT: f"taught by the teacher{rows}" if TEACHER in run.names else f"trained{rows}",
        BASELINE: f"the same network without the teacher: {run.task.labels(run)} alone, as many steps",
    }
    return [(name, meaning[name]) for name in run.names]
