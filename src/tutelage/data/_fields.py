"""The fields of rows of text: those that are read must be text, and those that are not are named once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from tutelage.data._text_tokens import log
from tutelage.errors import DataError


def as_text(value: Any, name: str, place: str) -> str:
    """Return a field that is text. Errors: `DataError`, also for text that has no bytes in UTF-8."""
    if not isinstance(value, str):
        found = "null" if value is None else type(value).__name__
        raise DataError(f"{place}: {name!r} is {found}; expected text: remove the row, or give it some")
    check_unicode(value, f"{place}: {name!r}")
    return value


def check_unicode(text: str, place: str) -> None:
    """Raise `DataError` for half of a surrogate pair, which no tokenizer can read."""
    try:
        if not text.isascii():
            text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{place} has {text[error.start]!a} at character {error.start}, half of a surrogate pair; expected "
            "Unicode text: it was cut within a character, so remove it or write it again"
        ) from error


class Unread:
    """The fields of rows that are not read, counted.

    read: the fields that are; place: the data in the message.
    """

    def __init__(self, read: Collection[str], place: str) -> None:
        self.read, self.place = read, place
        self.rows: Counter[str] = Counter()

    def add(self, row: Mapping[str, Any]) -> None:
        """Count the fields of a row that hold something."""
        self.rows.update(str(name) for name, value in row.items() if name not in self.read and value is not None)

    def tell(self) -> None:
        """Log the fields once, if there are any."""
        if self.rows:
            found = ", ".join(f"{name!r} ({count:,} times)" for name, count in sorted(self.rows.items()))
            log.warning("%s: not used: %s; only %s are read", self.place, found, ", ".join(map(repr, self.read)))
