"""What a run came to: the small table, `tutelage evaluate` and `tutelage report`."""

from __future__ import annotations

import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from tutelage.cli._console import put, put_json, say, say_next, table
from tutelage.cli._exits import CHECK_FAILED
from tutelage.run_folder import BASELINE, STUDENT, TEACHER, RunFolder, read_json

ARMS = (TEACHER, STUDENT, BASELINE)


def summary(scores: Mapping[str, Any]) -> str:
    """Return the scores of a run, as in its scores.json, as the table that a run ends with."""
    arms = [arm for arm in ARMS if arm in scores]
    if "perplexity" in scores[arms[0]]:
        return _of_texts(scores, arms)
    rows = [["", f"errors of {scores[arms[0]]['rows']['mean']:,.0f}", "accuracy", "parameters"]]
    for arm in arms:
        errors, accuracy, parameters = (scores[arm][metric] for metric in ("errors", "accuracy", "parameters"))
        rows.append([arm, _spread(errors), f"{accuracy['mean']:.1%}", f"{parameters['mean']:,.0f}"])
    lines = [table(rows, right=(1, 2, 3), indent="  "), *_closing(scores, arms[-1])]
    for name, told in scores.get("omitted", {}).items():
        lines += ["", _omitted(name, told)]
    return "\n".join(lines)


def _of_texts(scores: Mapping[str, Any], arms: Sequence[str]) -> str:
    """Return the table of language models."""
    rows = [
        ["", f"nats per token of {scores[arms[0]]['tokens']['mean']:,.0f}", "perplexity", "guessed right", "parameters"]
    ]
    for arm in arms:
        nll, std = scores[arm]["nll"]["mean"], scores[arm]["nll"]["std"]
        perplexity, accuracy, parameters = (
            scores[arm][name]["mean"] for name in ("perplexity", "accuracy", "parameters")
        )
        spread = f"{nll:.3f}" if std is None else f"{nll:.3f} ± {std:.3f}"
        rows.append([arm, spread, f"{perplexity:.1f}", f"{accuracy:.1%}", f"{parameters:,.0f}"])
    return "\n".join([table(rows, right=(1, 2, 3, 4), indent="  "), *_closing(scores, arms[-1])])


def _closing(scores: Mapping[str, Any], arm: str) -> list[str]:
    """Return what is said below a table: over how many seeds it is, and what came of it."""
    lines = []
    seeds = len(scores[arm]["parameters"]["values"])
    if seeds > 1:
        lines.append(f"  (mean ± standard deviation of {seeds} seeds; the teacher is one)")
    if "gap_closed" in scores:
        closed = scores["gap_closed"]["mean"]
        lines.append(f"\n  Distilling closed {closed:.0%} of the gap between baseline and teacher.")
    return lines


def _spread(told: Mapping[str, Any]) -> str:
    return f"{told['mean']:g}" if told["std"] is None else f"{told['mean']:.1f} ± {told['std']:.1f}"


def _omitted(name: str, told: Mapping[str, Any]) -> str:
    """Return what is known of a class that the student never saw."""
    rows = [[f"class {name}, which the student never saw", "known", "with its bias set"]]
    for arm in (arm for arm in ARMS if arm in told):
        of = told[arm]["rows"]["mean"]
        rows.append([arm, *(f"{told[arm][key]['mean'] / of:.1%}" for key in ("known", "known_with_bias"))])
    return table(rows, right=(1, 2), indent="  ")


def evaluate(run: Path, *, as_json: bool) -> None:
    """Carry out `tutelage evaluate`. A model that no longer scores what was recorded of it fails the check."""
    folder = RunFolder.open(run)
    say(f"evaluating the networks in {run} on the held-out rows ...")
    from tutelage.runs import evaluate

    scores = evaluate(folder.path)
    before = read_json(folder.scores) if folder.scores.is_file() else {}
    if as_json:
        put_json(scores)
    else:
        put(summary(scores))
    changed = [
        f"{arm} {_measured(before[arm])} -> {_measured(scores[arm])}"
        for arm in ARMS
        if arm in before and _measured(before[arm]) != _measured(scores[arm])
    ]
    if changed:
        what = "nats per token" if "perplexity" in scores[STUDENT] else "errors"
        say(
            f"tutelage: not the {what} that were recorded: {', '.join(changed)}. The models are not the ones that were "
            "trained, or this machine computes otherwise; the recorded scores stay as they are"
        )
        raise typer.Exit(CHECK_FAILED)
    say_next("report", str(run))


def _measured(scores: Mapping[str, Any]) -> list[float]:
    """Return what is measured again: errors, or nats per token as far as they are the same on every machine."""
    if "errors" in scores:
        return list(scores["errors"]["values"])
    return [round(value, 3) for value in scores["nll"]["values"]]


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
        say_next("report", str(run), "--open")
