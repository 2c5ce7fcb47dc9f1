"""Fitted teachers, kept under the hash of what made them, and looked at again before they are used.

<cache>/teachers/<sha256>/  model.safetensors  model.json  made.json
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.errors import DamagedDataError, ModelError
from tutelage.models import Standardised, load_model
from tutelage.run_folder import read_json, write_json

_MADE = "made.json"
_FILES = ("model.safetensors", "model.json")


def cache_folder() -> Path:
    """Return where teachers are kept: $TUTELAGE_CACHE, or tutelage in $XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get("TUTELAGE_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    # The standard has relative paths in it ignored.
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "tutelage"


def place_of(made_from: Mapping[str, Any]) -> Path:
    """Return the folder of the teacher that is made from this."""
    text = json.dumps(made_from, sort_keys=True)
    return cache_folder() / "teachers" / hashlib.sha256(text.encode()).hexdigest()


def kept(place: Path) -> Standardised | None:
    """Return the teacher in a folder, None if there is none.

    Errors: `DamagedDataError` if it is not what was written there.
    """
    if not place.exists():
        return None
    digests = read_json(place / _MADE, keys=("sha256",))["sha256"]
    for name in _FILES:
        if not (place / name).is_file() or not isinstance(digests, dict) or digests.get(name) != _sha256(place / name):
            raise DamagedDataError(f"{place / name} is not what was written; fit the teacher again")
    try:
        return load_model(place)
    except ModelError as error:
        raise DamagedDataError(f"{place} holds no teacher that can be used: {error}") from error


def keep(model: Path, place: Path, made_from: Mapping[str, Any]) -> None:
    """Copy a model's folder into the cache, whole or not at all."""
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        for name in _FILES:
            shutil.copyfile(model / name, part / name)
        write_json(part / _MADE, {"from": dict(made_from), "sha256": {name: _sha256(part / name) for name in _FILES}})
        if place.exists():
            shutil.rmtree(place)
        part.replace(place)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
