"""`a.b=c` and `~a.b` after a recipe: one setting is set or removed, and what results is checked like the file."""

from __future__ import annotations

from typing import Any

from tutelage.config._reading import Document, Place, dotted, read
from tutelage.config._spec import ShellText
from tutelage.config._words import nearest, shorten
from tutelage.errors import Problem, RecipeError


def apply(document: Document, override: str) -> None:
    """Set or remove one setting of a document.

    The right side of `=` is read as YAML. Mappings on the way are made where they are missing, so that a misspelt one
    is found, and named, when the whole is checked. A problem is noted in the document.
    """
    place = Place(f"override {shorten(repr(override), 120)}")
    if not isinstance(document.value, dict):
        return  # the file itself is refused, for being no mapping
    removes = override.startswith("~")
    name, equals, text = override.removeprefix("~").partition("=")
    keys = tuple(name.strip().split("."))
    if not all(keys) or removes == bool(equals):
        # The place names the override, and no setting has its path.
        problem = Problem(place.file, None, "", "expected key.sub=value, or ~key.sub to remove a setting")
        document.problems.setdefault((place.file,), problem)
    elif removes:
        _remove(document, keys, place)
    else:
        _set(document, keys, text, place)


def _set(document: Document, keys: tuple[str, ...], text: str, place: Place) -> None:
    try:
        given = read(text, place.file, in_lines=False)
    except RecipeError as error:
        document.refuse(keys, place, error.problems[0].message)
        return
    parent = _parent(document, keys, place)
    if parent is None:
        return
    _forget(document, keys)
    parent[keys[-1]] = _from_the_shell(given.value)
    document.places[keys] = place
    for path, problem in given.problems.items():
        document.refuse((*keys, *path), place, problem.message)


def _parent(document: Document, keys: tuple[str, ...], place: Place) -> dict[str, Any] | None:
    """Return the mapping that holds a setting, made where it is missing or empty."""
    parent = document.value
    for end, key in enumerate(keys[:-1], 1):
        if parent.get(key) is None:
            parent[key] = {}
            document.places.setdefault(keys[:end], place)
        parent = parent[key]
        if not isinstance(parent, dict):
            what = "a list, which is set as a whole" if isinstance(parent, list) else "a single value"
            document.refuse(keys, place, f"{dotted(keys[:end])} is {what}; nothing can be set inside")
            return None
    assert isinstance(parent, dict)
    return parent


def _remove(document: Document, keys: tuple[str, ...], place: Place) -> None:
    parent: Any = document.value
    for end, key in enumerate(keys, 1):
        if not isinstance(parent, dict) or key not in parent:
            known = list(parent) if isinstance(parent, dict) else []
            close = nearest(key, known)
            hint = f"; did you mean {close!r}?" if close else ", so there is nothing to remove"
            document.refuse(keys[:end], place, f"there is no such setting{hint}")
            return
        if end < len(keys):
            parent = parent[key]
    _forget(document, keys)
    del parent[keys[-1]]


def _forget(document: Document, keys: tuple[str, ...]) -> None:
    """Drop the places and problems of what is replaced: a setting that is gone cannot be wrong."""
    for table in (document.places, document.problems):
        for path in [path for path in table if path[: len(keys)] == keys]:
            del table[path]


def _from_the_shell(value: Any) -> Any:
    if isinstance(value, str):
        return ShellText(value)
    if isinstance(value, list):
        return [_from_the_shell(item) for item in value]
    return {key: _from_the_shell(item) for key, item in value.items()} if isinstance(value, dict) else value
