"""Where a run goes: a folder of its own, never one that holds something already."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import typer

from tutelage.cli._console import is_first
from tutelage.errors import RunFolderError
from tutelage.run_folder import RunFolder


def new_folder(name: str, out: Path | None) -> Path:
    """Return the folder for a run of this name, after checking that it can be made. Nothing is made yet.

    This is looked at before torch is loaded and data are read: whoever mistyped a path is told at once.
    """
    folder = out if out is not None else _free(Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}")
    if not is_first():
        return folder  # the first process looks, and says which it is
    if folder.is_dir() and not RunFolder(folder).is_free:
        raise RunFolderError(
            f"{folder} is there already and not empty; choose another --out, or go on with it by --resume {folder}"
        )
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise typer.BadParameter(f"{there} is a file; expected a folder, or a path where one can be made")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(13, "permission denied", str(there))
    return folder


def _free(folder: Path) -> Path:
    """Return the folder, with a number behind it where two runs start within a second."""
    number, free = 1, folder
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free
