"""The words of messages: what came, what there is to choose from, and which name was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

_LONGEST = 60


def came(value: Any) -> str:
    """Return a value as a message shows it, in the terms of YAML.

    >>> print(came("sixty"), came(True), came(None), came({"a": 1}), came([1, 2]), sep=" | ")
    the text 'sixty' | true | nothing | the keys a | a list
    """
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {shorten(repr(str(value)))}"
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of more than 60 digits"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, dict):
        return f"the keys {shorten(', '.join(map(str, value)))}" if value else "{}"
    return "a list" if value else "an empty list"


def shorten(text: str, longest: int = _LONGEST) -> str:
    """Return a text that fits on a line with others."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def listing(names: Iterable[str]) -> str:
    """Return names as a sentence lists them: `a, b or c`."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that was probably meant, or None.

    >>> nearest("temprature", ["teacher", "temperature"]), nearest("lr", ["learning_rate"]), nearest("x", ["weight"])
    ('temperature', 'learning_rate', None)
    """
    names = list(known)
    plain = name.lower().replace("-", "_").replace(" ", "_")
    if plain in names:
        return plain
    # Initials, as in lr for learning_rate, are too far off for any measure of edits.
    initials = {"".join(word[0] for word in other.split("_") if word): other for other in names if "_" in other}
    if plain in initials:
        return initials[plain]
    squeezed = {other.replace("_", ""): other for other in names}
    close = difflib.get_close_matches(plain.replace("_", ""), squeezed, n=1, cutoff=0.65)
    return squeezed[close[0]] if close else None


def unknown(name: str, known: Iterable[str]) -> str:
    """Return the message about a key that is none of the known ones."""
    names = list(known)
    if not names:
        return "unknown key; there is nothing to set here"
    close = nearest(name, names)
    return f"unknown key; did you mean {close!r}?" if close else f"unknown key; expected {listing(names)}"
