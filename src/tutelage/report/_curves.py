"""Pictures over steps: each term of the loss apart, and how the student comes to follow its teacher."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from tutelage.report._contents import Run
from tutelage.report._measures import Curve, curve, terms
from tutelage.report._style import LIGHT, NARROW, WIDE, Picture, end_labels, figure
from tutelage.report._words import of_arms, shown
from tutelage.run_folder import BASELINE, STUDENT, TEACHER


def loss_terms(run: Run) -> list[Picture]:
    """Return one panel for each term of the loss, with the arms that have it."""
    of_student, of_baseline = terms(run.logs(STUDENT)), terms(run.logs(BASELINE))
    # What only the student is taught comes first: it is what the run is about.
    names = dict.fromkeys([*(name for name in of_student if name not in of_baseline), *of_student, *of_baseline])
    pictures: list[Picture] = []
    for name in names:
        curves = _of(run, name)
        caption = f"“{name}” on the training rows, before its weight and T². {_seeds(curves)}"
        pictures.append(_draw(f"loss-{len(pictures) + 1}", f"{name}, nats", curves, caption, WIDE))
    return pictures


def following(run: Run) -> list[Picture]:
    """Return a panel over steps for each score that the task watches; a line where the teacher has that score, too."""
    pictures = []
    for one in run.task.watched:
        curves = _of(run, f"eval_{one.key}")
        if curves:
            teacher = of_arms(run, TEACHER, one.key)
            level = None if teacher is None else teacher.mean
            caption = f"{one.reading}{'' if teacher is None else '; the dashed line is the teacher'}. {_seeds(curves)}"
            name = f"steps-{one.key}"
            pictures.append(_draw(name, one.title, curves, caption, NARROW, percent=one.percent, level=level))
    return pictures


def _of(run: Run, key: str) -> dict[str, Curve]:
    found = {name: curve(run.logs(name), key) for name in (STUDENT, BASELINE)}
    return {name: values for name, values in found.items() if values is not None}


def _seeds(curves: Mapping[str, Curve]) -> str:
    seeds = max(values.seeds for values in curves.values())
    return f"Mean and standard deviation over {seeds} seeds." if seeds > 1 else "One seed."


def _draw(
    name: str,
    title: str,
    curves: Mapping[str, Curve],
    caption: str,
    width: float,
    *,
    percent: bool = False,
    level: float | None = None,
) -> Picture:
    made, axes = figure(width, 2.5)
    low = min(float(values.mean.min()) for values in curves.values())
    high = max(float(values.mean.max()) for values in curves.values())
    logarithmic = not percent and low > 0 and high / low > 20
    if logarithmic:
        axes.set_yscale("log")
        caption += " The scale is logarithmic."
    for role, values in curves.items():
        _curve(axes, values, LIGHT[role], logarithmic=logarithmic)
    ends = [(float(values.mean[-1]), role, LIGHT[role]) for role, values in curves.items()]
    if level is not None:
        axes.axhline(level, color=LIGHT[TEACHER], linewidth=1.1, linestyle=(0, (4, 3)))
        ends.append((level, TEACHER, LIGHT[TEACHER]))
    axes.set_xlim(0, max(int(values.steps[-1]) for values in curves.values()))
    if percent:
        axes.set_ylim(top=min(1.0, axes.get_ylim()[1]))
    if logarithmic:
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high / low < 1000 else (1.0,)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    unit = (lambda value, _: f"{100 * value:.3g} %") if percent else (lambda value, _: f"{value:.3g}")
    axes.yaxis.set_major_formatter(FuncFormatter(unit))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(axis="y", color=LIGHT["line"], linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_xlabel("step", loc="right")
    axes.set_title(title)
    end_labels(axes, ends)
    alt = f"{title}, over steps: " + "; ".join(
        f"{role} from {shown(values.mean[0], percent=percent)} to {shown(values.mean[-1], percent=percent)}"
        for role, values in curves.items()
    )
    return Picture(name, made, f"{alt}.", caption)


def _curve(axes: Axes, values: Curve, colour: str, *, logarithmic: bool) -> None:
    lower, upper = values.mean - values.deviation, values.mean + values.deviation
    if logarithmic:
        # A band that reaches zero has no lower end on this scale; it ends at a third of the mean.
        lower = np.maximum(lower, values.mean / 3)
    if values.seeds > 1:
        axes.fill_between(values.steps, lower, upper, color=colour, alpha=0.16, linewidth=0)
    single = len(values.steps) == 1
    axes.plot(values.steps, values.mean, "o" if single else "-", color=colour, linewidth=1.6, markersize=4)
