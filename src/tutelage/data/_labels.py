"""What a label says in any file: the name of a class, or that it is missing. One rule for all readers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from tutelage.errors import DataError

MARKS = (
    *("-1", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"),
    *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
)
"""What may be a class or a missing label: -1, as scikit-learn has it, and what pandas reads as missing."""
UNLABELLED = "-100"
"""What PyTorch ignores; a missing label everywhere."""

_WHOLE = re.compile(r"(-?(?:0|[1-9]\d*))\.0*", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_BOOLEANS = {"true": "True", "false": "False"}


def spelled(name: str) -> str:
    """Return the name of a class in the one way in which numbers and booleans are written here."""
    text = name.strip()
    whole = _WHOLE.fullmatch(text)
    return str(int(whole[1])) if whole else _BOOLEANS.get(text.lower(), text)


def class_name(value: Any, *, fractions: bool = False) -> str | None:
    """Return the name of the class that a label is, None for a missing label. Raises ValueError with the reason.

    Labels that differ in type alone are one class: 1, 1.0, "1" and "1.0"; true, "True" and "TRUE". Missing are null,
    NaN, text without a character, and -100, which PyTorch ignores. fractions: whether 2.5 is a class.

    >>> class_name(1.0), class_name("1.00"), class_name(" cat "), class_name(float("nan")), class_name("")
    ('1', '1', 'cat', None, None)
    """
    if value is None:
        return None
    if isinstance(value, np.generic):
        value = float(value) if isinstance(value, np.longdouble) else value.item()
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{value[:20]!r}, which is not text in UTF-8") from error
    if isinstance(value, (bool, int)):
        name = str(value)
    elif isinstance(value, (float, Decimal)):
        if value != value:
            return None
        whole = value not in (float("inf"), float("-inf")) and value == int(value)
        if not whole and not fractions:
            raise ValueError(_fraction(value))
        name = str(int(value) if whole else value)
    elif isinstance(value, str):
        name = spelled(value)
        if not fractions and _NUMBER.fullmatch(name) and not float(name).is_integer():
            raise ValueError(_fraction(name))
    elif isinstance(value, (list, tuple, dict, np.ndarray)):
        raise ValueError(f"{str(value)[:40]}, and rows with several labels are not supported")
    else:
        raise ValueError(f"{str(value)[:40]!r}, a {type(value).__name__}")
    return None if name in ("", UNLABELLED) else name


def class_names_of(labels: Iterable[Any], place: str, missing: Sequence[str | int] | None = None) -> list[str | None]:
    """Return the name of the class of each row, None where the label is missing.

    missing: labels that count as missing beside those of `class_name`; every other one is a class then. Unless given, a
    label that is commonly a mark of a missing one (`MARKS`), or a fraction, is an error. place: the file and column in
    messages. Errors: `DataError`.
    """
    gone = _names(missing or ())
    found: list[str | None] = []
    for row, label in enumerate(labels, start=1):
        try:
            name = class_name(label, fractions=missing is not None)
        except ValueError as error:
            raise DataError(
                f"{place}: row {row} has the class {error}; expected text, a whole number, or null for a row without "
                "label"
            ) from error
        if missing is None and name in MARKS:
            raise DataError(
                f"{place}: row {row} has the label {name}, which may be a class or mean that the label is missing; "
                f"leave the cell empty (null) if it is missing, or say so with `missing: [{_quoted(name)}]`; "
                "`missing: []` makes every label a class"
            )
        found.append(None if name in gone else name)
    for one, other in (("True", "1"), ("False", "0")):
        if one in found and other in found:
            raise DataError(
                f"{place} has the labels {one} and {other}, which are two classes here; expected one way to write them"
            )
    return found


def same_classes(one: Sequence[str], other: Sequence[str]) -> bool:
    """Return whether two lists of classes are equal, but for how numbers and booleans are written."""
    return [*map(spelled, one)] == [*map(spelled, other)]


def _names(labels: Sequence[str | int]) -> set[str | None]:
    try:
        return {class_name(label, fractions=True) for label in labels}
    except ValueError as error:
        raise DataError(f"missing has {error}; expected text or whole numbers") from error


def _fraction(number: object) -> str:
    return f"{number}, and regression is not supported: `missing: []` makes every number a class"


def _quoted(name: str) -> str:
    return name if name == "-1" else f"'{name}'"
