"""YAML text -> plain data and the line of each setting, strictly: a recipe is data, short, and says each thing once.

ruamel.yaml splits the text into events; the values are made here, by the core schema of YAML 1.2, so that nothing a
file says can choose a type, refer to another place, or grow beyond what was written.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceStartEvent,
)

from tutelage.config._words import shorten
from tutelage.errors import Problem, RecipeError

MAX_BYTES = 2**20
MAX_DEPTH = 20
MAX_VALUES = 10_000

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Place:
    """Where a setting was written: a line of a file, or an override."""

    file: str
    line: int | None = None


@dataclass
class Document:
    """Plain data, the place of each setting by its path, and what was refused on the way."""

    value: Any
    places: dict[Path, Place]
    problems: dict[Path, Problem] = field(default_factory=dict)

    def place(self, path: Path) -> Place:
        """Return where a setting stands, or the innermost part of its path that stands anywhere."""
        return next(self.places[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.places)

    def refuse(self, path: Path, place: Place, message: str) -> None:
        """Note a problem; the first one of a setting is the one that counts."""
        self.problems.setdefault(path, Problem(place.file, place.line, dotted(path), message))


def dotted(path: Path) -> str:
    """Return a path as it is written in messages and overrides: `training.seeds[1]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{shorten(part)}" for part in path)
    return text.removeprefix(".")


def read(text: str, file: str, *, in_lines: bool = True) -> Document:
    """Return what a YAML text says.

    file: how it is called in messages; in_lines: whether a line number is worth saying. Aliases, tags and keys that
    come twice are noted in the document's problems. Errors: `RecipeError` where nothing can be read beyond the place.
    """
    builder = _Builder(file, in_lines)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            builder.take(event)
    except MarkedYAMLError as error:
        line = None if error.problem_mark is None else error.problem_mark.line + 1
        raise RecipeError([builder.stop(line, f"not YAML: {error.problem or error.context}")]) from None
    except RecipeError:
        raise
    except Exception as error:  # ruamel.yaml lets errors of Python itself pass: of chr, of int, of an index
        message = f"not YAML: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        raise RecipeError([builder.stop(None, message)]) from None
    return builder.document


@dataclass
class _Open:
    """A mapping or a list that is being filled."""

    value: dict[str, Any] | list[Any]
    path: Path
    key: str | None = None


class _Builder:
    def __init__(self, file: str, in_lines: bool) -> None:
        self.file, self.in_lines = file, in_lines
        self.document = Document(None, {(): self._place(1)})
        self.open: list[_Open] = []
        self.documents = self.values = 0

    def take(self, event: Event) -> None:
        if isinstance(event, DocumentStartEvent):
            self._start(event)
        elif isinstance(event, NodeEvent):
            self._node(event)
        elif self.open and type(event).__name__ in ("MappingEndEvent", "SequenceEndEvent"):
            self.open.pop()

    def stop(self, line: int | None, message: str) -> Problem:
        """Return the problem behind which nothing can be read."""
        place = self._place(line)
        return Problem(place.file, place.line, dotted(self.open[-1].path) if self.open else "", message)

    def _place(self, line: int | None) -> Place:
        return Place(self.file, line if self.in_lines else None)

    def _start(self, event: DocumentStartEvent) -> None:
        self.documents += 1
        if self.documents > 1:
            raise RecipeError([self.stop(_line(event), "a second document starts here; a recipe is one document")])
        if event.version or event.tags:
            raise RecipeError([self.stop(_line(event), "a %-directive; a recipe is plain YAML 1.2: remove it")])

    def _node(self, event: NodeEvent) -> None:
        self.values += 1
        if self.values > MAX_VALUES:
            raise RecipeError([self.stop(_line(event), f"more than {MAX_VALUES:,} values; expected a recipe")])
        inner = self.open[-1] if self.open else None
        if inner is not None and isinstance(inner.value, dict) and inner.key is None:
            self._key(event, inner)
            return
        path = () if inner is None else (*inner.path, inner.key if inner.key is not None else len(inner.value))
        # The line of a setting is that of its key, which `_key` has noted.
        if path and isinstance(path[-1], int):
            self.document.places[path] = self._place(_line(event))
        value = self._value(event, path)
        if inner is None:
            self.document.value = value
        elif isinstance(inner.value, dict):
            assert inner.key is not None
            inner.value[inner.key] = value
            inner.key = None
        else:
            inner.value.append(value)
        if isinstance(value, (dict, list)):
            if len(self.open) == MAX_DEPTH:
                raise RecipeError([self.stop(_line(event), f"nested deeper than {MAX_DEPTH} levels")])
            self.open.append(_Open(value, path))

    def _key(self, event: NodeEvent, inner: _Open) -> None:
        if not isinstance(event, ScalarEvent):
            raise RecipeError([self.stop(_line(event), "a key that is no text; expected `name: value`")])
        path = (*inner.path, event.value)
        assert isinstance(inner.value, dict)
        self._refuse_devices(event, path)
        if event.value in inner.value:
            first = self.document.places[path]
            where = f", first in line {first.line}" if first.line is not None else ""
            self.document.refuse(path, self._place(_line(event)), f"the key comes twice{where}; keep one of them")
        else:
            self.document.places[path] = self._place(_line(event))
        inner.key = event.value

    def _value(self, event: NodeEvent, path: Path) -> Any:
        self._refuse_devices(event, path)
        if isinstance(event, MappingStartEvent):
            return {}
        if isinstance(event, SequenceStartEvent):
            return []
        if not isinstance(event, ScalarEvent):
            return None
        if not event.implicit[0]:
            return event.value
        try:
            return plain(event.value)
        except ValueError:
            message = f"a number of {len(event.value):,} digits; expected a shorter one"
            self.document.refuse(path, self._place(_line(event)), message)
            return None

    def _refuse_devices(self, event: NodeEvent, path: Path) -> None:
        """Note what a recipe has no use for: aliases, anchors, tags, and text that no file can hold."""
        place = self._place(_line(event))
        if isinstance(event, AliasEvent):
            self.document.refuse(path, place, f"the alias *{event.anchor}; write the value out")
        elif event.anchor is not None:
            self.document.refuse(path, place, f"the anchor &{event.anchor}; remove it")
        elif (tag := getattr(event, "tag", None)) is not None:
            self.document.refuse(path, place, f"the tag {tag}; remove it")
        elif isinstance(event, ScalarEvent) and re.search("[\ud800-\udfff]", event.value):
            self.document.refuse(path, place, "half of a surrogate pair; expected whole characters")


def _line(event: Event) -> int:
    return int(event.start_mark.line) + 1


_NUMBERS: dict[str, Callable[[str], int | float]] = {
    r"[-+]?[0-9]+": int,
    r"0o[0-7]+": lambda text: int(text[2:], 8),
    r"0x[0-9a-fA-F]+": lambda text: int(text[2:], 16),
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?": float,
    r"[-+]?\.(inf|Inf|INF)": lambda text: float(text.replace(".", "")),
    r"\.(nan|NaN|NAN)": lambda text: float("nan"),
}
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def plain(text: str) -> Any:
    """Return what an unquoted word of YAML 1.2 means: null, true, false, a number, or else itself.

    >>> [plain(word) for word in ("1e-2", "no", "12:30", "0x10", "~", "true")]
    [0.01, 'no', '12:30', 16, None, True]
    """
    if text in _WORDS:
        return _WORDS[text]
    return next((make(text) for form, make in _NUMBERS.items() if re.fullmatch(form, text)), text)
