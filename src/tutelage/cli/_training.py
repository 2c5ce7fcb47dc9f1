"""The commands that train: demo and train, from the first line to the table, the report and the next command."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import typer

from tutelage.cli._console import is_first, put, put_json, say, say_next
from tutelage.cli._describe import describe
from tutelage.cli._exits import OK
from tutelage.cli._folders import new_folder
from tutelage.cli._results import summary
from tutelage.config import Recipe, load
from tutelage.errors import MissingPackageError
from tutelage.records import check_recipe, read_record
from tutelage.run_folder import COMPLETE, RunFolder, read_json
from tutelage.signals import code_of, terminable

DEMO = "digits-few-labels"


def demo(out: Path | None, seeds: int | None) -> None:
    """Carry out `tutelage demo`."""
    recipe = load(DEMO, [] if seeds is None else [f"training.seeds={seeds}"])
    folder = new_folder(DEMO, out)
    say("A small student learns from a big teacher, and the same student learns without it.")
    say(describe(recipe, folder))
    say(f"This takes about {20 + 15 * len(recipe.training.seed_list)} seconds on two cores. Ctrl-C stops it safely.")
    _needs_report()
    _carry_out(recipe, DEMO, folder, report=True, as_json=False)
    say_next("init", DEMO, "mine.yaml", remark="a copy of this recipe, to change it")


def train(
    source: str | None,
    overrides: Sequence[str],
    out: Path | None,
    resume: Path | None,
    *,
    dry_run: bool,
    report: bool,
    as_json: bool,
) -> None:
    """Carry out `tutelage train`."""
    if resume is not None:
        recipe, name, folder = _stopped(source, out, resume)
    elif source is None:
        raise typer.BadParameter("nothing to train; give a recipe, or --resume RUN", param_hint="RECIPE")
    else:
        recipe = load(source, overrides)
        name = Path(source).stem
        folder = new_folder(name, out)
    say(f"{name}: {' '.join(recipe.description.split())}" if recipe.description else name)
    if dry_run:
        _plan(recipe, name, folder, as_json=as_json)
        say_next("train", *_again(source, overrides, out, resume))
        return
    say(describe(recipe, folder))
    if report:
        _needs_report()
    _carry_out(None if resume is not None else recipe, name, folder, report=report, as_json=as_json)
    say_next("report", str(folder), *(["--open"] if report else []))


def _stopped(source: str | None, out: Path | None, resume: Path) -> tuple[Recipe, str, Path]:
    """Return the recipe, name and folder of a run that is to go on."""
    if source is not None:
        raise typer.BadParameter(
            f"the run goes on with its own recipe; remove {source!r}, or train it anew without --resume",
            param_hint="--resume",
        )
    if out is not None:
        raise typer.BadParameter(f"the run goes on in its own folder; remove --out {out}", param_hint="--resume")
    folder = RunFolder.open(resume)
    known = read_record(folder, ["recipe"])
    check_recipe(folder, known)
    return load(folder.recipe), str(known["recipe"]), folder.path


def _again(source: str | None, overrides: Sequence[str], out: Path | None, resume: Path | None) -> list[str]:
    """Return the words of the command, without --dry-run."""
    words = [] if source is None else [source, *overrides]
    for option, value in (("--out", out), ("--resume", resume)):
        words += [] if value is None else [option, str(value)]
    return words


def _needs_report() -> None:
    """Look for what the report takes before the training, and not after it."""
    missing = [package for package in ("matplotlib", "jinja2") if find_spec(package) is None]
    if missing:
        raise MissingPackageError(
            f"the report takes {' and '.join(missing)}, not installed here: pip install 'tutelage[report]', or train "
            "with --no-report"
        )


def _plan(recipe: Recipe, name: str, folder: Path, *, as_json: bool) -> None:
    say("loading PyTorch and the data ...")
    from tutelage.runs import prepare

    plan = prepare(recipe, folder, name)
    if as_json:
        put_json(plan.summary())
    else:
        put(str(plan))


def _carry_out(recipe: Recipe | None, name: str, folder: Path, *, report: bool, as_json: bool) -> None:
    """Train, show the scores, build the report. An interruption says how to go on, and ends the command.

    recipe: None to go on with the run in the folder.
    """
    with terminable():
        try:
            say("loading PyTorch and the data ...")
            code = _run(recipe, name, folder, report=report, as_json=as_json)
        except KeyboardInterrupt as stop:
            code = code_of(stop)
    if code != OK:
        _say_how_to_go_on(folder)
        raise typer.Exit(code)


def _run(recipe: Recipe | None, name: str, folder: Path, *, report: bool, as_json: bool) -> int:
    """Train and show what came of it; return the exit code."""
    from tutelage.cli._watching import Watcher
    from tutelage.runs import run

    with Watcher() as watcher:
        summary = run(recipe, folder, name=name, resume=recipe is None, on_event=watcher)
    if summary.status != COMPLETE:
        assert summary.signal is not None, summary
        return 128 + summary.signal
    if is_first():
        _show(folder, report=report, as_json=as_json)
    return OK


def _show(folder: Path, *, report: bool, as_json: bool) -> None:
    opened = RunFolder.open(folder)
    scores = read_json(opened.scores)
    if not as_json:
        put(summary(scores))
    page: Path | None = None
    if report:
        say("drawing the report ...")
        from tutelage.report import build_report

        page = build_report(folder)
    if as_json:
        put_json({"folder": str(folder), "report": None if page is None else str(page), "scores": scores})
    elif page is not None:
        put(f"report: {page}")


def _say_how_to_go_on(folder: Path) -> None:
    if RunFolder(folder).record.is_file():
        say(f"Stopped. What is done, and a checkpoint of what is not, is saved in {folder}.")
        say_next("train", "--resume", str(folder))
    else:
        say("Stopped before anything was written.")
