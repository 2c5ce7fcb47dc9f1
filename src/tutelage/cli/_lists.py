"""What there is to choose from: `tutelage ls`. Read from recipes and source, so nothing heavy is loaded."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path
from typing import Any

import tutelage
from tutelage.cli._console import table, width_of
from tutelage.config import load, recipe_names
from tutelage.config._divergences import Parameter, kinds
from tutelage.config._models import BRANCHES

Entry = dict[str, Any]


def recipes() -> list[Entry]:
    """Return the shipped recipes."""
    return [{"name": name, "summary": load(name).description} for name in recipe_names()]


def divergences() -> list[Entry]:
    """Return the kinds of divergence that a term can have, with their parameters."""
    return [
        {
            "name": kind.name,
            "summary": kind.summary,
            "parameters": {parameter.name: _parameter(parameter) for parameter in kind.parameters},
        }
        for kind in kinds().values()
    ]


def models() -> list[Entry]:
    """Return what a teacher or a student can be."""
    return [{"name": cls.kind, "summary": _summary(inspect.getdoc(cls))} for cls in BRANCHES.values()]


def backends() -> list[Entry]:
    """Return what runs the loop of an objective. Its module imports torch, so the classes are read from the source."""
    source = Path(tutelage.__file__).parent / "execution" / "_backends.py"
    found = []
    for node in ast.parse(source.read_text("utf-8")).body:
        if not isinstance(node, ast.ClassDef):
            continue
        names = [
            ast.literal_eval(line.value)
            for line in node.body
            if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "name"
        ]
        found += [{"name": name, "summary": _summary(ast.get_docstring(node))} for name in names]
    return found


KINDS = {"recipes": recipes, "divergences": divergences, "models": models, "backends": backends}


def shown(entries: list[Entry]) -> str:
    """Return entries for people: a name, its parameters with their defaults, and a line on each."""
    rows = []
    for entry in entries:
        defaults = ", ".join(f"{name}: {told['default']:g}" for name, told in entry.get("parameters", {}).items())
        rows.append([f"{entry['name']}{{{defaults}}}" if defaults else entry["name"], entry["summary"]])
    return table(rows, indent="  ", width=width_of(sys.stdout))


def _parameter(parameter: Parameter) -> Entry:
    """Return default and range; a range without an end has null there, as JSON knows no infinity."""
    high = None if parameter.high == float("inf") else parameter.high
    opened = [side for side, is_open in (("low", parameter.open_low), ("high", parameter.open_high)) if is_open]
    return {"default": parameter.default, "low": parameter.low, "high": high, "open": opened}


def _summary(text: str | None) -> str:
    return (text or "").split("\n")[0]
