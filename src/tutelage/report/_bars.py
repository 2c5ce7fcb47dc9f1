"""Pictures of scores: bars from zero with the seeds as marks, and the classes that were left out."""

from __future__ import annotations

from matplotlib.axes import Axes

from tutelage.report._contents import Run
from tutelage.report._measures import Spread
from tutelage.report._style import LIGHT, MARKERS, NARROW, WIDE, Picture, figure
from tutelage.report._words import (
    Metric,
    left_out_classes,
    of_arms,
    share_closed,
    shares_known,
    spread_text,
    whole_percent,
)
from tutelage.run_folder import BASELINE, STUDENT, TEACHER

ORDER = (BASELINE, STUDENT, TEACHER)
"""From the one that has least to the one that has most: the student is read between the two."""


def scores(run: Run, metric: Metric, *, gap: bool = False) -> Picture | None:
    """Return bars of one metric from zero, with the seeds as marks; gap: mark how much of it the student closes."""
    spreads = {name: of_arms(run, name, metric.key) for name in ORDER}
    there = {name: spread for name, spread in spreads.items() if spread is not None}
    if not there:
        return None
    made, axes = figure(WIDE if gap else NARROW, 0.45 + (0.66 if gap else 0.42) * len(there))
    half = 0.21 if gap else 0.25
    for place, (name, spread) in enumerate(there.items()):
        colour, mean, deviation = LIGHT[name], spread.mean, spread.deviation or 0.0
        axes.barh(place, mean, height=2 * half, color=colour, alpha=0.28, linewidth=0)
        axes.plot([mean, mean], [place - half, place + half], color=colour, linewidth=2.2, solid_capstyle="butt")
        if spread.deviation is not None:
            axes.plot([max(0.0, mean - deviation), mean + deviation], [place, place], color=colour, linewidth=1.2)
            axes.plot(
                spread.values,
                [place] * len(spread.values),
                MARKERS[name],
                color=colour,
                markersize=3.2,
                markeredgecolor=LIGHT["paper"],
                markeredgewidth=0.5,
            )
        axes.annotate(
            spread_text(spread, metric),
            (max(mean + deviation, *spread.values, mean), place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            weight="bold" if gap else "normal",
        )
    closed = share_closed(run) if gap else None
    if closed is not None:
        mark_gap(axes, there, closed)
    largest = max(max(*spread.values, spread.mean + (spread.deviation or 0.0)) for spread in there.values())
    axes.set_xlim(0, (largest or 1.0) * 1.4)
    name_rows(axes, list(there))
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.set_title(metric.title)
    alt = f"{metric.title}: " + "; ".join(f"{name} {spread_text(spread, metric)}" for name, spread in there.items())
    caption = metric.reading
    if any(spread.deviation is not None for spread in there.values()):
        caption += " Small marks: the seeds; line: one standard deviation." if gap else ""
    return Picture(f"scores-{metric.key}", made, f"{alt}.", caption)


def name_rows(axes: Axes, names: list[str]) -> None:
    """Give each role a row of the panel, from above, with its name in its colour."""
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_color(LIGHT[name])
    axes.tick_params(axis="y", length=0)


def mark_gap(axes: Axes, there: dict[str, Spread], share: float) -> None:
    """Draw between the rows of baseline and student the way to the teacher, and the part of it that is gone."""
    baseline, student, teacher = (there[name].mean for name in ORDER)
    places = {name: place for place, name in enumerate(there)}
    dotted = (0, (1.2, 1.8))
    for at, name in ((baseline, BASELINE), (teacher, TEACHER)):
        axes.plot([at, at], [0.5, places[name]], color=LIGHT[name], linewidth=0.9, linestyle=dotted, zorder=0.5)
    axes.plot([teacher, baseline], [0.5, 0.5], color=LIGHT["line"], linewidth=1.2, solid_capstyle="butt")
    if share <= 0:
        return
    arrow = {"arrowstyle": "-|>", "color": LIGHT["student"], "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (student, 0.5), (baseline, 0.5), arrowprops=arrow)
    axes.annotate(
        f"{whole_percent(share)} of the gap",
        (baseline, 0.5),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        color=LIGHT["student"],
    )


def left_out(run: Run) -> Picture | None:
    """Return, for each class without images in the transfer set, the share of its test rows that each arm knows."""
    known = [(key, name, shares_known(run, name, key)) for key in left_out_classes(run) for name in ORDER]
    rows = [(key, name, shares) for key, name, shares in known if shares is not None]
    if not rows:
        return None
    made, axes = figure(WIDE, 0.8 + 0.5 * len(rows))
    several = len({key for key, _, _ in rows}) > 1
    texts = []
    for place, (key, name, (before, after)) in enumerate(rows):
        colour, text = LIGHT[name], f"{whole_percent(before)} → {whole_percent(after)}"
        texts.append(f"{name}{f' ({key})' if several else ''} {text}")
        axes.plot([before, after], [place, place], color=colour, linewidth=3.0, alpha=0.3, zorder=1)
        axes.plot(
            before,
            place,
            MARKERS[name],
            markerfacecolor=LIGHT["paper"],
            markeredgecolor=colour,
            markersize=7,
            markeredgewidth=1.6,
            clip_on=False,
        )
        axes.plot(after, place, MARKERS[name], color=colour, markersize=5.5, clip_on=False)
        axes.annotate(
            text,
            (1.0, place),
            xytext=(12, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            weight="bold",
            annotation_clip=False,
        )
    axes.set_yticks(range(len(rows)), [f"{name}, {key}" if several else name for key, name, _ in rows])
    for label, (_, name, _) in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_color(LIGHT[name])
    axes.set(xlim=(0.0, 1.0), ylim=(len(rows) - 0.5, -0.5))
    axes.xaxis.set_ticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    axes.grid(axis="x", color=LIGHT["line"], linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0, pad=8)
    axes.spines["left"].set_visible(False)
    axes.set_title("Test rows of the class that are known")
    alt = f"Share of the class's test rows that is known, before and after its bias is set: {'; '.join(texts)}."
    caption = "Hollow: the network as it is. Filled: with one constant, the bias of that class, set on training rows."
    return Picture("omitted", made, alt, caption)
