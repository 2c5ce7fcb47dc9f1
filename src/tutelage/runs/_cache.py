"""Fitted teachers and tokenizers, kept under the hash of what made them, and looked at again before they are used.

<cache>/teachers/<sha256>/    the files of the model, made.json
<cache>/tokenizers/<sha256>/  those of the tokenizer, made.json
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import tutelage
from tutelage.data import train_tokenizer
from tutelage.errors import DamagedDataError, ModelError
from tutelage.models import load_tokenizer
from tutelage.run_folder import read_json, write_json

_Kept = TypeVar("_Kept")

_MADE = "made.json"


def cache_folder() -> Path:
    """Return where teachers are kept: $TUTELAGE_CACHE, or tutelage in $XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get("TUTELAGE_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    # The standard has relative paths in it ignored.
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "tutelage"


def place_of(made_from: Mapping[str, Any], kind: str = "teachers") -> Path:
    """Return the folder of what is made from this."""
    text = json.dumps(made_from, sort_keys=True)
    return cache_folder() / kind / hashlib.sha256(text.encode()).hexdigest()


def kept(place: Path, load: Callable[[Path], _Kept]) -> _Kept | None:
    """Return what a folder keeps, None if there is none.

    Errors: `DamagedDataError` if it is not what was written there.
    """
    if not place.exists():
        return None
    digests = read_json(place / _MADE, keys=("sha256",))["sha256"]
    if not isinstance(digests, dict) or not digests:
        raise DamagedDataError(f"{place / _MADE} names no files; expected those beside it")
    for name, digest in digests.items():
        if Path(name).name != name or not (place / name).is_file() or digest != _sha256(place / name):
            raise DamagedDataError(f"{place / name} is not what was written; make it again")
    try:
        return load(place)
    except ModelError as error:
        raise DamagedDataError(f"{place} holds nothing that can be used: {error}") from error


def keep(made: Path, place: Path, made_from: Mapping[str, Any]) -> None:
    """Copy the files of a folder into the cache, whole or not at all."""
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    names = sorted(file.name for file in made.iterdir() if file.is_file())
    try:
        part.mkdir(parents=True)
        for name in names:
            shutil.copyfile(made / name, part / name)
        write_json(part / _MADE, {"from": dict(made_from), "sha256": {name: _sha256(part / name) for name in names}})
        if place.exists():
            shutil.rmtree(place)
        part.replace(place)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def kept_tokenizer(texts: Iterable[str], size: int, *, for_encoder: bool = False) -> Any:
    """Return a tokenizer that is trained on texts, or was so before."""
    texts = list(texts)
    digest = hashlib.sha256()
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        digest.update(f"{len(content)} ".encode() + content)
    versions = [tutelage.__version__, version("tokenizers"), version("transformers")]
    made_from: dict[str, Any] = {"texts": digest.hexdigest(), "size": size, "versions": versions}
    if for_encoder:
        made_from["for_encoder"] = True
    place = place_of(made_from, "tokenizers")
    # What is damaged, or cannot be kept, is only made once more: it takes seconds, and comes out the same.
    with contextlib.suppress(DamagedDataError, OSError):
        found = kept(place, load_tokenizer)
        if found is not None:
            return found
    made = train_tokenizer(texts, size, for_encoder=for_encoder)
    with tempfile.TemporaryDirectory() as folder:
        made.save_pretrained(folder)
        with contextlib.suppress(OSError):
            keep(Path(folder), place, made_from)
        # One that was read has more settings than one that was made, and a run must not tell which it was.
        return load_tokenizer(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
