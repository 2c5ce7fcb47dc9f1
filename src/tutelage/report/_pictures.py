"""The pictures of scores, of training, of calibration and of what was left out: one panel each, labelled directly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from tutelage.report._measures import Curve, Spread, curve, reliability, terms
from tutelage.report._run import Run
from tutelage.report._style import LIGHT, MARKERS, Picture, end_labels, figure
from tutelage.report._words import Metric, of_arms, share_closed, shown, spread_text
from tutelage.run_folder import BASELINE, STUDENT, TEACHER

_WIDTH = 4.6


def scores(run: Run, metric: Metric, *, gap: bool = False) -> Picture | None:
    """Return bars of one metric from zero, with the seeds as dots; gap: mark how much of it the student closes."""
    spreads = {name: of_arms(run, name, metric.key) for name in (BASELINE, STUDENT, TEACHER)}
    there = {name: spread for name, spread in spreads.items() if spread is not None}
    if not there:
        return None
    made, axes = figure(_WIDTH if gap else 3.6, 0.5 + (0.56 if gap else 0.42) * len(there))
    largest = max(max(spread.values) for spread in there.values()) or 1.0
    for place, (name, spread) in enumerate(there.items()):
        colour = LIGHT[name]
        axes.barh(place, spread.mean, height=0.5, color=colour, alpha=0.28, linewidth=0)
        axes.plot([spread.mean] * 2, [place - 0.25, place + 0.25], color=colour, linewidth=2.2, solid_capstyle="butt")
        if spread.deviation is not None:
            low, high = max(0.0, spread.mean - spread.deviation), spread.mean + spread.deviation
            axes.plot([low, high], [place, place], color=colour, linewidth=1.4)
            axes.plot(
                spread.values,
                [place] * len(spread.values),
                MARKERS[name],
                color=colour,
                markersize=3.4,
                markeredgecolor=LIGHT["paper"],
                markeredgewidth=0.6,
            )
        end = max(spread.mean + (spread.deviation or 0.0), *spread.values, spread.mean)
        axes.annotate(
            spread_text(spread, metric), (end, place), xytext=(6, 0), textcoords="offset points", va="center",
            color=colour, weight="bold" if gap else "normal",
        )  # fmt: skip
    if gap and (share := share_closed(run)) is not None and 0 < share[1] and STUDENT in there and BASELINE in there:
        _mark_gap(axes, there[BASELINE].mean, there[STUDENT].mean)
    axes.set_xlim(0, largest * 1.32)
    axes.set_ylim(len(there) - 0.5, -0.5)
    axes.set_yticks(range(len(there)), [name for name in there])
    for label, name in zip(axes.get_yticklabels(), there, strict=True):
        label.set_color(LIGHT[name])
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.set_title(metric.title)
    alt = f"{metric.title}: " + "; ".join(f"{name} {spread_text(spread, metric)}" for name, spread in there.items())
    return Picture(f"scores-{metric.key}", made, f"{alt}.", f"{metric.reading}")


def _mark_gap(axes: Axes, baseline: float, student: float) -> None:
    """Draw what the student is spared: a thin arrow from where the baseline ends."""
    axes.plot([baseline, baseline], [0.25, 1.0], color=LIGHT["baseline"], linewidth=0.8, linestyle=(0, (2, 2)))
    # Its place is free: the label of the student's bar ends before, or the arrow would be too short to draw.
    _ = student


@dataclass(frozen=True)
class _Line:
    """One role's curve in a panel."""

    name: str
    curve: Curve


def loss_terms(run: Run) -> list[Picture]:
    """Return one panel for each term of the loss, with the arms that have it."""
    names = dict.fromkeys(name for role in (STUDENT, BASELINE) for name in terms(run.logs(role)))
    pictures = []
    for name in names:
        lines = _lines(run, name)
        if lines:
            caption = f"The term “{name}”, before its weight and T², in nats per row. {_band(lines)}"
            pictures.append(_curves(f"loss-{len(pictures) + 1}", f"{name}, nats", lines, caption))
    return pictures


def following(run: Run) -> list[Picture]:
    """Return the panels of agreement with the teacher, KL to it, and accuracy, over steps."""
    wanted = [
        ("agreement", "eval_agreement", "Agrees with the teacher", True, "Share of the test rows with the same answer."),
        ("kl", "eval_kl", "KL(teacher ‖ network), nats", False, "0 where both give the same probabilities."),
        ("accuracy", "eval_accuracy", "Accuracy", True, "On the test rows; the square is where the teacher stands."),
    ]
    pictures = []
    for name, key, title, percent, caption in wanted:
        lines = _lines(run, key)
        if lines:
            teacher = of_arms(run, TEACHER, "accuracy") if name == "accuracy" else None
            level = None if teacher is None else teacher.mean
            words = f"{caption} {_band(lines)}"
            pictures.append(_curves(f"steps-{name}", title, lines, words, percent=percent, level=level))
    return pictures


def _lines(run: Run, key: str) -> list[_Line]:
    found = ((name, curve(run.logs(name), key)) for name in (STUDENT, BASELINE))
    return [_Line(name, values) for name, values in found if values is not None]


def _band(lines: Sequence[_Line]) -> str:
    seeds = max(line.curve.seeds for line in lines)
    return f"Mean and standard deviation over {seeds} seeds." if seeds > 1 else "One seed."


def _curves(
    name: str, title: str, lines: Sequence[_Line], caption: str, *, percent: bool = False, level: float | None = None
) -> Picture:
    made, axes = figure(_WIDTH, 2.7)
    low = min(float(line.curve.mean.min()) for line in lines)
    high = max(float(line.curve.mean.max()) for line in lines)
    logarithmic = not percent and low > 0 and high / low > 20
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high / low < 1000 else (1.0,)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        caption += " The scale is logarithmic."
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    last = max(int(line.curve.steps[-1]) for line in lines)
    for line in lines:
        values, colour = line.curve, LIGHT[line.name]
        lower, upper = values.mean - values.deviation, values.mean + values.deviation
        if logarithmic:
            lower = np.maximum(lower, values.mean / 3)
        if values.seeds > 1:
            axes.fill_between(values.steps, lower, upper, color=colour, alpha=0.16, linewidth=0)
        axes.plot(values.steps, values.mean, color=colour, linewidth=1.6)
    ends = [(float(line.curve.mean[-1]), line.name, LIGHT[line.name]) for line in lines]
    if level is not None:
        axes.axhline(level, color=LIGHT[TEACHER], linewidth=1.0, linestyle=(0, (4, 3)))
        ends.append((level, TEACHER, LIGHT[TEACHER]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %" if percent else f"{value:.3g}"))
    axes.set_xlim(0, last)
    axes.margins(y=0.04)
    if percent:
        axes.set_ylim(top=min(1.0, axes.get_ylim()[1]))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(axis="y", color=LIGHT["line"], linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_xlabel("step", loc="right")
    axes.set_title(title)
    end_labels(axes, ends)
    alt = f"{title} over steps: " + "; ".join(
        f"{line.name} from {shown(line.curve.mean[0], percent=percent)} to {shown(line.curve.mean[-1], percent=percent)}"
        for line in lines
    )
    return Picture(name, made, f"{alt}.", caption)


def calibration(run: Run) -> list[Picture]:
    """Return a reliability diagram for each role; the seeds of a role are pooled."""
    pictures = []
    for name in run.names:
        arms = run.of(name)
        assert run.labels is not None
        diagram = reliability([arm.logits for arm in arms], run.labels)
        ece = Spread(tuple(arm.scores["ece"] for arm in arms))
        made, axes = figure(3.4, 3.2)
        colour = LIGHT[name]
        axes.plot([0, 1], [0, 1], color=LIGHT["line"], linewidth=1.0)
        axes.vlines(diagram.confidence, diagram.confidence, diagram.accuracy, color=colour, alpha=0.45, linewidth=1.2)
        axes.scatter(
            diagram.confidence,
            diagram.accuracy,
            s=14 + 260 * diagram.share,
            marker=MARKERS[name],
            color=colour,
            alpha=0.85,
            linewidth=0,
            clip_on=False,
            zorder=3,
        )
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="confidence of the answer", ylabel="share that is right")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks([0, 0.5, 1], ["0", "50 %", "100 %"])
        axes.text(0.04, 0.94, "too cautious", color=LIGHT["muted"], va="top")
        axes.text(0.98, 0.05, "too sure", color=LIGHT["muted"], ha="right")
        axes.set_title(name, color=colour, weight="bold")
        axes.set_title(f"ECE {shown(ece.mean, percent=True)}", loc="right", color=LIGHT["ink"])
        alt = f"Reliability of the {name}: expected calibration error {shown(ece.mean, percent=True)}."
        pooled = f" {len(arms)} seeds, pooled." if len(arms) > 1 else ""
        caption = f"On the line, confidence is right as often as it says; the larger the mark, the more rows.{pooled}"
        pictures.append(Picture(f"reliability-{name}", made, alt, caption))
    return pictures


def left_out(run: Run) -> Picture | None:
    """Return, for each class without images in the transfer set, the share of its test rows that each arm knows."""
    names = [name for name in (BASELINE, STUDENT, TEACHER) if any(arm.omitted for arm in run.of(name))]
    rows = [(key, name) for key in _left_out_classes(run) for name in names if run.of(name)[0].omitted.get(key)]
    if not rows:
        return None
    made, axes = figure(_WIDTH, 0.75 + 0.46 * len(rows))
    for place, (key, name) in enumerate(rows):
        arms = [arm.omitted[key] for arm in run.of(name) if key in arm.omitted]
        total, colour = arms[0].rows, LIGHT[name]
        before = Spread(tuple(arm.known / total for arm in arms))
        after = Spread(tuple(arm.known_with_bias / total for arm in arms))
        axes.plot([before.mean, after.mean], [place, place], color=colour, linewidth=3.0, alpha=0.3, zorder=1)
        axes.plot(
            before.mean, place, MARKERS[name], markerfacecolor=LIGHT["paper"], markeredgecolor=colour, markersize=7,
            markeredgewidth=1.6, clip_on=False,
        )  # fmt: skip
        axes.plot(after.mean, place, MARKERS[name], color=colour, markersize=7, clip_on=False)
        same = abs(after.mean - before.mean) < 0.12
        text = f"{100 * before.mean:.0f} → {100 * after.mean:.0f} %" if same else f"{100 * after.mean:.0f} %"
        axes.annotate(
            text, (max(before.mean, after.mean), place), xytext=(8, 0), textcoords="offset points", va="center",
            color=colour, weight="bold", annotation_clip=False,
        )  # fmt: skip
        if not same:
            axes.annotate(
                f"{100 * before.mean:.0f} %", (before.mean, place), xytext=(0, 9), textcoords="offset points",
                va="bottom", ha="center", color=colour,
            )  # fmt: skip
    several = len(_left_out_classes(run)) > 1
    axes.set_yticks(range(len(rows)), [f"{name}, {key}" if several else name for key, name in rows])
    for label, (_, name) in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_color(LIGHT[name])
    axes.set(xlim=(-0.02, 1.0), ylim=(len(rows) - 0.5, -0.7))
    axes.xaxis.set_ticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.grid(axis="x", color=LIGHT["line"], linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_title("Share of the omitted class that is known")
    alt = "Known rows of the omitted class, as it is and with its bias set: " + "; ".join(
        f"{name}, class {key}" for key, name in rows
    )
    caption = (
        "Hollow: as the network is. Filled: after one constant, the bias of that class, was set on training rows. "
        "Means over the seeds."
    )
    return Picture("omitted", made, f"{alt}.", caption)


def _left_out_classes(run: Run) -> list[str]:
    return list(dict.fromkeys(key for arm in run.arms for key in arm.omitted))
