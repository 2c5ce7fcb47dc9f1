"""The commands on recipes that train nothing: validate, init, ls, schema. All of them are done in a moment."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import typer

from tutelage.cli._console import put, put_json, say, say_next
from tutelage.cli._describe import describe
from tutelage.cli._lists import KINDS, shown
from tutelage.config import RecipeError, json_schema, load, recipe_path


def validate(source: str, overrides: Sequence[str], *, as_json: bool) -> None:
    """Carry out `tutelage validate`."""
    try:
        recipe = load(source, overrides)
    except RecipeError as error:
        if as_json:
            put_json({"valid": False, "problems": [asdict(problem) for problem in error.problems]})
        raise
    if as_json:
        put_json({"valid": True, "problems": [], "recipe": recipe.model_dump(mode="json", exclude_none=True)})
        return
    put(f"{source} is valid")
    say(describe(recipe))
    say("the data has not been read: train --dry-run does that")
    say_next("train", source, *overrides)


def init(name: str, file: Path | None) -> None:
    """Carry out `tutelage init`."""
    source = recipe_path(name)
    target = file if file is not None else Path(f"{name}.yaml")
    if target.is_dir():
        target = target / source.name
    _write_new(target, source.read_text("utf-8"))
    put(str(target))
    say_next("train", str(target))


def ls(what: str | None, *, as_json: bool) -> None:
    """Carry out `tutelage ls`."""
    lists = {kind: entries() for kind, entries in KINDS.items() if what in (None, kind)}
    if as_json:
        put_json(lists)
        return
    for place, (kind, entries) in enumerate(lists.items()):
        put(("\n" if place else "") + kind)
        put(shown(entries))
    if what in (None, "recipes"):
        say()
        say_next("init", lists["recipes"][0]["name"])


def schema(out: Path | None) -> None:
    """Carry out `tutelage schema`."""
    text = json.dumps(json_schema(), indent=2)
    if out is None:
        put(text)
        return
    _write_new(out, text + "\n")
    put(str(out))
    say(f"next: begin a recipe with the line `# yaml-language-server: $schema={out}`, and editors check it as you type")


def _write_new(path: Path, text: str) -> None:
    """Write a file that must not be there yet."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise typer.BadParameter(f"{path} is there already and is not overwritten; choose another name") from error
    except FileNotFoundError as error:
        message = f"{os.strerror(errno.ENOENT)}: the folder {path.parent}"
        raise OSError(errno.ENOENT, message, str(path)) from error
