"""Packages that only some networks need: imported when they are, and asked for by name where they are not there."""

from __future__ import annotations

import importlib
from typing import Any

from tutelage.errors import MissingPackageError


def optional(package: str, purpose: str, install: str) -> Any:
    """Return an optional package. Errors: `MissingPackageError`, which says what it is for and how to install it.

    >>> optional("json", "reading", "json").loads("[1]")
    [1]
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"{purpose} takes {error.name or package}, which is not installed: pip install '{install}'"
        ) from error
