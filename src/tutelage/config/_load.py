"""A recipe's file and overrides -> a checked `Recipe`, and back to text."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.representer import SafeRepresenter

import tutelage
from tutelage.config import _overrides
from tutelage.config._messages import BRANCHES, note
from tutelage.config._reading import MAX_BYTES, Document, read
from tutelage.config._recipe import Recipe
from tutelage.config._spec import branch
from tutelage.config._words import came, listing, nearest
from tutelage.errors import Problem, RecipeError

_SHIPPED = Path(tutelage.__file__).parent / "recipes"


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """Return the file of a recipe that comes with the package. Errors: `RecipeError` with the nearest name."""
    if name not in recipe_names():
        raise RecipeError([Problem(name, None, "", _no_such(name))])
    return _SHIPPED / f"{name}.yaml"


def load(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a file, or the shipped one of that name, with overrides applied and everything checked.

    overrides: `a.b=c` sets a setting, its right side read as YAML, and `~a.b` removes one, in this order. Relative
    paths start at the folder of the recipe, and in overrides at the current one. Errors: `RecipeError` with all
    problems, those of the file in its order, then those of the overrides.

    >>> from tutelage.config import load
    >>> recipe = load("digits-few-labels", ["objective.soft.temperature=2", "training.seeds=[7]"])
    >>> recipe.objective["soft"].kind, recipe.objective["soft"].temperature, recipe.training.seeds
    ('forward_kl', 2.0, [7])
    """
    path, name = _find(source)
    document = read(_text(path, name), name)
    for override in overrides:
        _overrides.apply(document, override)
    recipe = _check(document, path)
    if recipe is None:
        problems = document.problems.values()
        raise RecipeError(sorted(problems, key=lambda problem: (problem.line is None, problem.line or 0)))
    return recipe


def dump(recipe: Recipe) -> str:
    """Return a recipe as YAML in which every setting is written out; `load` reads an equal recipe from it."""
    writer = YAML(typ="safe", pure=True)
    writer.Representer = _Representer
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # ruamel types its default alone
    writer.width = 2**20  # a line that is broken in two is hard to edit
    stream = io.StringIO()
    writer.dump(_written(recipe), stream)
    return stream.getvalue()


class _Representer(SafeRepresenter):
    """Writes text with ends of lines, or what cannot be seen, in double quotes: other quotes fold such an end."""


def _text_of(representer: Any, text: str) -> Any:
    style = None if text.isprintable() else '"'
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Representer.add_representer(str, _text_of)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of recipes, by which editors complete and check them as they are typed."""
    schema = Recipe.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _written(recipe: Recipe) -> dict[str, Any]:
    """Return the settings in the order in which people write them: what a thing is comes before how it is."""
    settings = recipe.model_dump(mode="json", exclude_none=True)
    for holder in (settings, settings["objective"]):
        for name, value in holder.items():
            if isinstance(value, dict):
                holder[name] = dict(sorted(value.items(), key=lambda item: branch(item[0]) not in BRANCHES))
    return settings


def _find(source: str | Path) -> tuple[Path, str]:
    """Return the file that is meant, and how messages call it."""
    path = Path(source)
    try:
        if isinstance(source, str) and source in recipe_names() and not path.is_file():
            return recipe_path(source), f"{source}.yaml"
        if path.is_file():
            return path, str(source)
        message = "not a regular file; expected a recipe" if path.exists() else _no_such(str(source))
        message = "a folder; expected the file of a recipe" if path.is_dir() else message
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
    raise RecipeError([Problem(str(source), None, "", message)])


def _no_such(name: str) -> str:
    names = recipe_names()
    close = nearest(Path(name).stem, names)
    meant = f"did you mean {close!r}?" if close else f"expected a file, or {listing(names)}"
    return f"no such file, nor a recipe that comes with tutelage; {meant}"


def _text(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            message = f"larger than {MAX_BYTES:,} bytes; expected a recipe"
        else:
            return data.decode("utf-8-sig")
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        message = f"not UTF-8 text: byte {error.start} is {data[error.start]:#04x}; save the recipe as UTF-8"
    raise RecipeError([Problem(name, None, "", message)])


def _check(document: Document, path: Path) -> Recipe | None:
    """Return the recipe that a document holds, or None after noting what is wrong with it."""
    if not isinstance(document.value, dict):
        message = f"expected keys with values, such as `data:` and `student:`; got {came(document.value)}"
        document.refuse((), document.place(()), message)
        return None
    try:
        recipe = Recipe.model_validate(document.value, context={"folder": path.absolute().parent})
    except ValidationError as error:
        note(document, error)
        return None
    return None if document.problems else recipe
