"""Numbers in sentences."""

from __future__ import annotations


def counted(number: float, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun. plural: unless it only takes an s.

    >>> counted(1, "epoch"), counted(1200, "row"), counted(0, "class", "classes")
    ('1 epoch', '1,200 rows', '0 classes')
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
