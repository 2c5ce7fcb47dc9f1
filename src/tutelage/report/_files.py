"""Reads JSON files of a run value by value: what is not of the kind that it should be is damage, and named."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import DamagedDataError
from tutelage.report._contents import Log
from tutelage.run_folder import read_json, read_lines


def logs(file: Path) -> tuple[Log, ...]:
    """Return the lines of a log. A number that was not finite stands there as null: its line goes without it."""
    found = []
    for number, line in enumerate(read_lines(file), start=1):
        reader = Reader(Path(f"{file}:{number}"), line)
        if "step" not in line:
            raise DamagedDataError(f"{file}:{number} lacks 'step'; it has {sorted(line)}")
        found.append({key: reader.number(key) for key in line if key == "step" or line[key] is not None})
    return tuple(found)


def environment(file: Path) -> dict[str, str]:
    """Return versions and the like as texts; nothing where the file is not there."""
    return {key: str(value) for key, value in read_json(file).items()} if file.is_file() else {}


@dataclass(frozen=True)
class Reader:
    """A JSON object that names its file when a value is not of the kind that it should be."""

    file: Path
    value: Mapping[str, Any]

    def number(self, key: str) -> float:
        """Return a finite number."""
        value = self.value.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise DamagedDataError(f"{self.file}: {key} is {value!r}; expected a number")
        return float(value)

    def text(self, key: str) -> str:
        """Return a text."""
        value = self.value.get(key)
        if not isinstance(value, str):
            raise DamagedDataError(f"{self.file}: {key} is {value!r}; expected a text")
        return value

    def items(self, key: str, kind: type) -> list[Any]:
        """Return a list of things of one kind."""
        value = self.value.get(key)
        if not isinstance(value, list) or not all(_is(item, kind) for item in value):
            raise DamagedDataError(f"{self.file}: {key} is {_short(value)}; expected a list of {kind.__name__}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list, each thing in it as a text."""
        return tuple(str(item) for item in self.items(key, object))

    def values(self, key: str, kind: type | tuple[type, ...]) -> dict[str, Any]:
        """Return an object whose values are of one kind."""
        value = self.value.get(key)
        if not isinstance(value, dict) or not all(_is(item, kind) for item in value.values()):
            kinds = "objects" if kind is dict else "numbers"
            raise DamagedDataError(f"{self.file}: {key} is {value!r}; expected an object of {kinds}")
        return {str(name): item for name, item in value.items()}


def _short(value: object) -> str:
    """Return a value as it came; of a long list, what can be read."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _is(item: object, kind: type | tuple[type, ...]) -> bool:
    """Whether JSON held this kind: to Python, true and false are whole numbers, too."""
    return isinstance(item, kind) and (kind is object or not isinstance(item, bool))
