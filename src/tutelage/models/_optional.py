"""Packages that only some networks need: imported when they are, and asked for by name where they are not there."""

from __future__ import annotations

import importlib
from typing import Any

from tutelage.packages import importing


def optional(package: str, purpose: str, install: str) -> Any:
    """Return an optional package. Errors: `MissingPackageError`, which says what it is for and how to install it.

    >>> optional("json", "reading", "json").loads("[1]")
    [1]
    """
    with importing(purpose, install):
        return importlib.import_module(package)
