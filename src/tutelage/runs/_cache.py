"""Fitted teachers and tokenizers, kept under the hash of what made them, and checked before they are used.

<cache>/teachers/<sha256>/    the files of the model, and the manifest, which says what the model was made from
<cache>/tokenizers/<sha256>/  the same of the tokenizer
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import tutelage
from tutelage.data import train_tokenizer
from tutelage.errors import DamagedDataError, ModelError
from tutelage.manifest import MANIFEST, finish_swap, has_manifest, staged, verify, write_by
from tutelage.models import load_tokenizer

_Kept = TypeVar("_Kept")


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
    finish_swap(place)
    if not has_manifest(place):
        return None
    verify(place, "the cache")
    try:
        return load(place)
    except ModelError as error:
        raise DamagedDataError(f"{place} holds nothing that can be used: {error}") from error


def keep(made: Path, place: Path, made_from: Mapping[str, Any]) -> None:
    """Copy the files of a folder into the cache, whole or not at all."""
    with staged(place, {"from": dict(made_from)}) as staging:
        for file in sorted(made.iterdir()):
            if file.is_file() and file.name != MANIFEST:
                write_by(staging / file.name, partial(shutil.copyfile, file))


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
