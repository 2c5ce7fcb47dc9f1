"""Pydantic's errors -> problems: each with its place, what came, what was expected, and what to do."""

from __future__ import annotations

import types
from typing import Any, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tutelage.config import _data, _models, _terms, _texts
from tutelage.config._reading import Document
from tutelage.config._recipe import Recipe
from tutelage.config._spec import Spec, is_branch
from tutelage.config._training import TrainingSpec
from tutelage.config._words import came, listing, nearest, unknown

BRANCHES = {**_data.BRANCHES, **_models.BRANCHES, **_terms.BRANCHES}

_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "keys with values",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list, such as [1, 2]",
    "model_type": "keys with values",
    "string_too_short": "text",
    "string_type": "text",
}
_BOUNDS = {
    "greater_than": ("gt", ">"),
    "greater_than_equal": ("ge", ">="),
    "less_than": ("lt", "<"),
    "less_than_equal": ("le", "<="),
}


def note(document: Document, error: ValidationError) -> None:
    """Add the errors of the schema to the problems of a document."""
    for detail in error.errors(include_url=False):
        path = tuple(part for part in detail["loc"] if not is_branch(part))
        document.refuse(path, document.place(path), _message(detail))


def _message(detail: ErrorDetails) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "recipe":
        return str(context["message"])
    if kind == "extra_forbidden":
        return _stranger(str(detail["loc"][-1]), _known(detail["loc"][:-1]))
    if kind == "missing":
        return f"missing; add it{_about(detail['loc'])}"
    if kind == "literal_error":
        return _choice(value, detail["loc"])
    if kind in _BOUNDS:
        name, sign = _BOUNDS[kind]
        return f"expected a number {sign} {context[name]:g}, got {came(value)}"
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}; got {came(value)}"
    if kind == "too_short":
        return f"expected at least {context['min_length']} of them; got {came(value)}"
    return f"{detail['msg']}; got {came(value)}"


def _stranger(name: str, known: list[str]) -> str:
    """Return the message about an unknown key; one that belongs elsewhere is told where."""
    homes: dict[str, type[Spec]] = {
        "the recipe itself": Recipe,
        "`training`": TrainingSpec,
        "`data` of texts": _texts.TextsSpec,
        "a term of `objective`": _terms.TermSpec,
        "`teacher` or `student`": _models.ModelSpec,
    }
    if nearest(name, known) is None:
        for home, spec in homes.items():
            if name in spec.model_fields:
                return f"unknown key here; it belongs to {home}"
    return unknown(name, known)


def _spec_at(loc: tuple[str | int, ...]) -> type[Spec] | None:
    """Return the part of the schema to which a place belongs."""
    spec: type[Spec] | None = Recipe
    for part in loc:
        if part in BRANCHES:
            spec = BRANCHES[str(part)]
        elif spec is not None and part in spec.model_fields:
            spec = _spec_in(spec.model_fields[str(part)].annotation)
        else:
            spec = None
    return spec


def _spec_in(annotation: Any) -> type[Spec] | None:
    """Return the part of the schema that a field holds, also where it may be null."""
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType):
        found = [spec for spec in map(_spec_in, get_args(annotation)) if spec is not None]
        return found[0] if len(found) == 1 else None
    return None


def _known(loc: tuple[str | int, ...]) -> list[str]:
    spec = _spec_at(loc)
    assert spec is not None, loc
    return list(spec.model_fields)


def _about(loc: tuple[str | int, ...]) -> str:
    """Return the description of a field, as an aside."""
    spec = _spec_at(loc[:-1])
    field = spec.model_fields.get(str(loc[-1])) if spec is not None else None
    return f" ({field.description.rstrip('.')})" if field is not None and field.description else ""


def _choice(value: Any, loc: tuple[str | int, ...]) -> str:
    spec = _spec_at(loc[:-1])
    assert spec is not None, loc
    choices = [str(choice) for choice in get_args(spec.model_fields[str(loc[-1])].annotation)]
    close = nearest(value, choices) if isinstance(value, str) else None
    return f"expected {listing(choices)}; got {came(value)}{f'; did you mean {close!r}?' if close else ''}"
