"""What a run came to: the small table, `tutelage evaluate` and `tutelage report`."""

from __future__ import annotations

import shlex
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.cli._console import put, put_json, say, table
from tutelage.run_folder import BASELINE, STUDENT, TEACHER, RunFolder

ARMS = (TEACHER, STUDENT, BASELINE)


def summary(scores: Mapping[str, Any]) -> str:
    """Return the scores of a run, by arm and metric, as the table that a run ends with."""
    arms = [arm for arm in ARMS if arm in scores]
    many = any(len(scores[arm]["errors"]["values"]) > 1 for arm in arms)
    rows = [["", "errors", "of", "accuracy", "parameters"]]
    for arm in arms:
        told = scores[arm]
        errors, spread = told["errors"]["mean"], told["errors"]["std"]
        shown = f"{errors:.1f} ± {spread:.1f}" if len(told["errors"]["values"]) > 1 else f"{errors:g}"
        shares = f"{told['accuracy']['mean']:.1%}"
        rows.append([arm, shown, f"{told['rows']['mean']:,.0f}", shares, f"{told['parameters']['mean']:,.0f}"])
    lines = [table(rows, right=(1, 2, 3, 4), indent="  ")]
    if many:
        lines.append("  (mean and standard deviation over seeds)")
    gap = scores.get("gap_closed")
    if gap is not None:
        lines.append(f"  Distilling closed {_mean(gap):.0%} of the gap between baseline and teacher.")
    return "\n".join(lines)


def _mean(value: Any) -> float:
    return float(value["mean"] if isinstance(value, Mapping) else value)


def evaluate(run: Path, *, as_json: bool) -> None:
    """Carry out `tutelage evaluate`."""
    folder = RunFolder.open(run)
    say(f"evaluating the networks in {run} on the held-out rows ...")
    from tutelage.runs import evaluate

    scores = evaluate(folder.path)
    if as_json:
        put_json(scores)
    else:
        put(summary(scores))
    say(f"next: {shlex.join(['tutelage', 'report', str(run)])}")


def report(run: Path, *, show: bool) -> None:
    """Carry out `tutelage report`."""
    folder = RunFolder.open(run)
    say(f"drawing the report of {run} ...")
    from tutelage.report import build_report

    page = build_report(folder.path)
    put(str(page))
    if show and not webbrowser.open(page.absolute().as_uri()):
        say("no browser was found; open the page by hand")
    if not show:
        say(f"next: {shlex.join(['tutelage', 'report', str(run), '--open'])}")
