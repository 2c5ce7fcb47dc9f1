"""The picture of a score that has no zero worth showing: one mark for each role on an axis of its own."""

from __future__ import annotations

from matplotlib.ticker import FuncFormatter, MaxNLocator

from tutelage.report._bars import ORDER, mark_gap, name_rows
from tutelage.report._contents import Run
from tutelage.report._style import LIGHT, MARKERS, WIDE, Picture, figure
from tutelage.report._words import Metric, of_arms, share_closed, spread_text


def scores(run: Run, metric: Metric) -> Picture | None:
    """Return marks of one metric, with the seeds and the part of the gap that the student closes."""
    spreads = {name: of_arms(run, name, metric.key) for name in ORDER}
    there = {name: spread for name, spread in spreads.items() if spread is not None}
    if not there:
        return None
    made, axes = figure(WIDE, 0.75 + 0.6 * len(there))
    for place, (name, spread) in enumerate(there.items()):
        colour, mean, deviation = LIGHT[name], spread.mean, spread.deviation or 0.0
        if spread.deviation is not None:
            axes.plot([mean - deviation, mean + deviation], [place, place], color=colour, linewidth=1.2)
            # Below the mean, so that neither hides the other: the seeds lie close together.
            axes.plot(
                spread.values,
                [place + 0.2] * len(spread.values),
                "|",
                color=colour,
                markersize=5,
                markeredgewidth=0.9,
            )
        axes.plot([mean], [place], MARKERS[name], color=colour, markersize=7, linewidth=0)
        axes.annotate(
            spread_text(spread, metric),
            (max(mean + deviation, *spread.values, mean), place),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            weight="bold",
        )
    closed = share_closed(run)
    if closed is not None:
        mark_gap(axes, there, closed)
    low = min(min(*spread.values, spread.mean - (spread.deviation or 0.0)) for spread in there.values())
    high = max(max(*spread.values, spread.mean + (spread.deviation or 0.0)) for spread in there.values())
    span = (high - low) or 0.1
    # Texts stand to the right of what they tell of.
    axes.set_xlim(low - 0.12 * span, high + 0.6 * span)
    name_rows(axes, list(there))
    # The room of the texts is no part of the scale.
    near = [at for at in MaxNLocator(4).tick_values(low, high) if low - 0.12 * span <= at <= high + 0.12 * span]
    axes.set_xticks(near)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axes.grid(axis="x", color=LIGHT["line"], linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.set_title(metric.title)
    alt = f"{metric.title}: " + "; ".join(f"{name} {spread_text(spread, metric)}" for name, spread in there.items())
    caption = f"{metric.reading} The axis does not start at zero."
    if any(spread.deviation is not None for spread in there.values()):
        caption += " Small strokes: the seeds; line: one standard deviation."
    return Picture(f"scores-{metric.key}", made, f"{alt}.", caption)
