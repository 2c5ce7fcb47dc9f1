"""Pictures of calibration: how often an answer is right, against how sure the network is of it."""

from __future__ import annotations

from tutelage.report._contents import Answers, Run
from tutelage.report._measures import Spread, reliability
from tutelage.report._style import LIGHT, MARKERS, NARROW, Picture, figure
from tutelage.report._words import shown


def calibration(run: Run) -> list[Picture]:
    """Return a reliability diagram for each role; the seeds of a role are pooled."""
    return [] if run.answers is None else [_diagram(run, run.answers, name) for name in run.names]


def _diagram(run: Run, answers: Answers, name: str) -> Picture:
    arms = run.of(name)
    diagram = reliability([answers.logits[arm] for arm in arms], answers.labels)
    ece = shown(Spread(tuple(arm.scores["ece"] for arm in arms)).mean, percent=True)
    made, axes = figure(NARROW, 3.4)
    colour = LIGHT[name]
    axes.plot([0, 1], [0, 1], color=LIGHT["line"], linewidth=1.0)
    axes.vlines(diagram.confidence, diagram.confidence, diagram.accuracy, color=colour, alpha=0.45, linewidth=1.2)
    axes.scatter(
        diagram.confidence,
        diagram.accuracy,
        s=14 + 220 * diagram.share,
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
    axes.text(0.04, 0.96, "too cautious", color=LIGHT["muted"], va="top")
    axes.text(0.98, 0.04, "too sure", color=LIGHT["muted"], ha="right")
    axes.set_title(name, color=colour, weight="bold", pad=13)
    axes.set_title(f"ECE {ece}", loc="right", pad=13)
    pooled = f" {len(arms)} seeds, pooled; ECE is their mean." if len(arms) > 1 else ""
    caption = f"On the line, answers are right as often as they claim. The larger the mark, the more rows.{pooled}"
    alt = f"Reliability of the {name}: expected calibration error {ece}."
    return Picture(f"reliability-{name}", made, alt, caption)
