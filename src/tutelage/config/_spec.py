"""What all parts of the schema share: strictness, errors in our own words, and the types of single settings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, ValidationInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from tutelage.config._words import came, listing, nearest, unknown


class Spec(BaseModel):
    """A part of a recipe: unknown keys are errors, `true` is no number, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ShellText(str):
    """Text that came with an override, whose relative paths start where the command was typed."""

    __slots__ = ()


def refusal(message: str) -> PydanticCustomError:
    """Return an error of the schema with this message, to be raised by a validator."""
    return PydanticCustomError("recipe", "{message}", {"message": message})


def refuse(problems: Sequence[tuple[tuple[str, ...], str]]) -> None:
    """Raise the problems, if there are any, each with its place below the setting that is being validated."""
    if problems:
        raise ValidationError.from_exception_data(
            "recipe", [InitErrorDetails(type=refusal(message), loc=loc, input=None) for loc, message in problems]
        )


# A union is told apart by the key it has. Its branches get names that no key can have, since pydantic puts them into
# the place of an error: that is how they are found again and left out of the message.
def branch(name: str) -> str:
    """Return the name of a union's branch as it stands in the place of an error."""
    return f"<{name}>"


def is_branch(part: object) -> bool:
    """Return whether a part of an error's place is the name of a branch."""
    return isinstance(part, str) and part.startswith("<") and part.endswith(">")


def one_key_of(keys: Sequence[str], others: Iterable[str], what: str, example: str) -> BeforeValidator:
    """Return the check that a union is made with exactly one of these keys, beside the others that all branches have.

    Pydantic's own check would list the errors of every branch, for something that was meant to be one of them.
    """
    known = set(others)

    def check(value: Any) -> Any:
        if isinstance(value, Spec):
            return value
        if not isinstance(value, dict):
            raise refusal(f"expected {what}, such as {example}; got {came(value)}")
        found = [key for key in keys if key in value]
        if len(found) > 1:
            *first, last = found
            # At the key that came last: it may be an override's, beside one of the file.
            refuse([((last,), f"stands beside {listing(first)}; keep one of them (an override `~path` removes one)")])
        if not found:
            strangers = [key for key in value if key not in known]
            refuse([((key,), unknown(key, keys)) for key in strangers if nearest(key, keys)])
            choices = listing(keys)
            raise refusal(f"expected {what}, such as {example}, by one of the keys {choices}; got {came(value)}")
        return value

    return BeforeValidator(check)


def key_of(value: Any, classes: Mapping[str, type[Spec]]) -> str | None:
    """Return the branch of a union that a checked value belongs to."""
    if isinstance(value, Spec):
        return next((branch(key) for key, cls in classes.items() if isinstance(value, cls)), None)
    return next((branch(key) for key in classes if key in value), None)


def listed(key: str, value: Any, choices: Iterable[str]) -> None:
    """Raise the error of a setting, below what is being validated, whose value is none of these names."""
    names = list(choices)
    if value in names:
        return
    close = nearest(value, names) if isinstance(value, str) else None
    hint = f"; did you mean {close!r}?" if close else ""
    refuse([((key,), f"expected {listing(names)}; got {came(value)}{hint}")])


def resolve(text: str, info: ValidationInfo) -> Path:
    """Return a path made absolute: relative ones start at the recipe's folder, or, in an override, at the shell's."""
    base = Path.cwd() if isinstance(text, ShellText) or not info.context else Path(info.context["folder"])
    home = os.path.expanduser(text) if text == "~" or text.startswith("~/") else text
    return Path(os.path.normpath(base / home))


def name_or_folder(name: Any, info: ValidationInfo) -> Any:
    """Return a folder as an absolute path, and any other name as it is: an id on the hub."""
    if not isinstance(name, str) or not name:
        return name
    if "\0" in name:
        raise refusal(f"expected a folder or an id, got {name!r}")
    path = resolve(name, info)
    return str(path) if name.startswith((".", "~", "/")) or Path(name).is_absolute() or path.is_dir() else name


def _path(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        raise refusal(f"expected the path of a file or folder, got {came(value)}")
    if not value or "\0" in value:
        raise refusal(f"expected the path of a file or folder, got {value!r}")
    return resolve(value, info)


FilePath = Annotated[Path, BeforeValidator(_path, json_schema_input_type=str)]
Text = Annotated[str, StringConstraints(min_length=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
