"""The commands: their names, options and help. What they do stands in the modules that they import when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import tutelage
from tutelage.cli._console import put

app = typer.Typer(
    name="tutelage",
    help="Knowledge distillation: train a small student from a big teacher. Start with `tutelage demo`.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 ok, 1 failed, 2 usage or recipe, 3 a check failed, 4 damaged data, 130 interrupted, "
    "143 terminated.",
)

Source = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe's file, or the name of a shipped one (tutelage ls).")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE", help="Settings in place of the recipe's: training.seeds=5; ~teacher.fit removes one."
    ),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="The run's folder; must be new or empty.", show_default="runs/..."),
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        put(f"tutelage {tutelage.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error happened; may stand anywhere.")] = False,
) -> None:
    pass


@app.command()
def demo(
    out: Out = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, max=1000, metavar="N", help="How many seeds to run.", show_default="3")
    ] = None,
) -> None:
    """Distil a teacher of handwritten digits into a small student, with a report, in about a minute."""
    from tutelage.cli._training import demo

    demo(out, seeds)


@app.command()
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="A recipe's file, or the name of a shipped one.", show_default=False),
    ] = None,
    overrides: Overrides = None,
    out: Out = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN", help="Go on with a run that was stopped; needs no RECIPE.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")] = False,
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Train only; `tutelage report RUN` comes later.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train what a recipe describes, and report on it."""
    from tutelage.cli._training import train

    train(recipe, overrides or [], out, resume, dry_run=dry_run, report=not no_report, as_json=as_json)


@app.command()
def validate(recipe: Source, overrides: Overrides = None, as_json: Json = False) -> None:
    """Check a recipe in a moment, and report everything that is wrong with it."""
    from tutelage.cli._recipes import validate

    validate(recipe, overrides or [], as_json=as_json)


@app.command()
def evaluate(run: Run, as_json: Json = False) -> None:
    """Score the networks of a run again, on the rows that were held out."""
    from tutelage.cli._results import evaluate

    evaluate(run, as_json=as_json)


@app.command()
def report(run: Run, show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False) -> None:
    """Write the page and the pictures of a run."""
    from tutelage.cli._results import report

    report(run, show=show)


@app.command()
def init(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe.")] = "digits-few-labels",
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Where the copy goes.", show_default="RECIPE.yaml")
    ] = None,
) -> None:
    """Copy a shipped recipe, to edit it."""
    from tutelage.cli._recipes import init

    init(recipe, file)


@app.command("ls")
def ls(
    what: Annotated[
        Literal["recipes", "divergences", "models", "backends"] | None,
        typer.Argument(help="Which list.", show_default="all"),
    ] = None,
    as_json: Json = False,
) -> None:
    """List recipes, divergences, models and backends."""
    from tutelage.cli._recipes import ls

    ls(what, as_json=as_json)


@app.command()
def schema(
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write it there.", show_default="stdout")
    ] = None,
) -> None:
    """Write the JSON Schema of recipes, by which editors complete and check them."""
    from tutelage.cli._recipes import schema

    schema(out)


@app.command()
def env(as_json: Json = False) -> None:
    """Show versions and devices, for bug reports."""
    from tutelage.cli._environment import show

    show(as_json=as_json)
