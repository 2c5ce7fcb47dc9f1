"""The folder of a pretrained model: fetched at one commit or already here, and looked through before it is loaded.

Only data is read from it: weights as safetensors, never pickles, and no code of the repository.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from tutelage.errors import DamagedDataError, ModelError
from tutelage.models._check import check_saved
from tutelage.models._configuration import code_named, size_beyond_reason
from tutelage.models._optional import optional

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
GENERATION = "generation_config.json"
WEIGHT_FILES = (CONFIG, GENERATION, WEIGHTS, "model-*-of-*.safetensors", INDEX)
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack", ".tar")


@dataclass(frozen=True)
class Snapshot:
    """The files of a model at one commit."""

    name: str
    """The model as it was asked for."""
    folder: Path
    commit: str | None
    """None for a folder of the user's own."""

    def json(self, file: str) -> dict[str, Any]:
        """Return what a JSON file of the folder holds. Errors: `ModelError` if it is not there, `DamagedDataError`."""
        path = self.folder / file
        if not path.is_file():
            raise ModelError(f"{self.name} holds no {file}; expected a model in the layout of transformers")
        try:
            found = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise DamagedDataError(
                f"{path} is not JSON ({error}); expected it as it was saved: fetch it again"
            ) from error
        if not isinstance(found, dict):
            raise DamagedDataError(f"{path} holds a {type(found).__name__}; expected an object: fetch it again")
        return found

    def check_settings(self, file: str, *classes: str) -> None:
        """Raise `ModelError` if a JSON file names code that is not transformers', or sizes that no model has.

        classes: the classes of transformers that will be loaded; without them, code for any is refused.
        """
        if not (self.folder / file).is_file():
            return
        settings = self.json(file)
        code = code_named(settings, *classes)
        if code is not None:
            key, named = code
            raise ModelError(
                f"{self.name} comes with code of its own ({key!r} in {file}: {named}), which is never run here; "
                "expected an architecture and implementations that transformers has itself: choose such a model, "
                "remove the entry, or load this one yourself and pass the network"
            )
        size = size_beyond_reason(settings)
        if size is not None:
            raise ModelError(f"{self.name}: in {file}, {size}")


def fetch(model: str | os.PathLike[str], revision: str | None, files: Sequence[str]) -> Snapshot:
    """Return the folder of a model: a folder of that name, or the files of a repository on the Hugging Face Hub.

    revision: a branch, tag or commit of the repository; files: patterns of what is wanted of it.
    Errors: `ModelError` for a model that is not there, is gated, or cannot be reached.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ModelError(f"{model} is a folder and came with revision={revision!r}; expected none: it has but one")
        _check_plain(folder, files)
        check_saved(folder, lambda name: any(fnmatch(name, pattern) for pattern in files))
        return Snapshot(str(model), folder, None)
    if folder.exists():
        hint = f". {how_to_convert(folder)}" if is_pickle(folder) else ""
        raise ModelError(f"{model} is a file; expected the folder of a model, or the name of a repository{hint}")
    name = str(model)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise ModelError(f"{name} is no folder; expected one, or the name of a repository such as 'owner/model'")
    hub = optional("huggingface_hub", f"the model {name!r}", "tutelage[train]")
    errors = hub.errors
    at = f"{name} at revision {revision!r}" if revision is not None else name
    try:
        place = Path(hub.snapshot_download(name, revision=revision, allow_patterns=list(files)))
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{name} is gated: its owner asks for an agreement; accept it on the model's page, log in with 'hf auth "
            "login', and try again"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"{name} is neither a folder here nor a repository that can be seen; check the name, or log in with 'hf "
            "auth login' if it is private"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"{at} is not there; expected a branch, a tag or a commit of the repository") from error
    except errors.HFValidationError as error:
        raise ModelError(f"{name} is no folder and no name of a repository ({error})") from error
    except (OSError, errors.LocalEntryNotFoundError, errors.HfHubHTTPError) as error:
        raise ModelError(
            f"{at} is not kept on this machine and cannot be fetched ({_first_line(error)}); fetch it where there is a "
            "connection, or pass the folder that holds it"
        ) from error
    return Snapshot(name, place, place.name if re.fullmatch("[0-9a-f]{40}", place.name) else None)


def check_weights(snapshot: Snapshot) -> None:
    """Raise a named error unless the weights are whole safetensors files, and each holds what the index says."""
    folder = snapshot.folder
    if (folder / WEIGHTS).is_file():
        _names(folder / WEIGHTS)
        return
    if not (folder / INDEX).is_file():
        pickles = _pickles(snapshot)
        raise ModelError(
            f"{snapshot.name} holds no {WEIGHTS}"
            + (f", but {', '.join(pickles)}, which can run code when read" if pickles else "")
            + "; expected weights as safetensors: choose a revision or a model that has them, or convert these where "
            "you trust them"
        )
    shards = snapshot.json(INDEX).get("weight_map")
    if not (isinstance(shards, dict) and shards and all(isinstance(shard, str) for shard in shards.values())):
        raise DamagedDataError(f"{folder / INDEX} has no 'weight_map' of tensors and files: fetch it again")
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise ModelError(f"{folder / INDEX} names {shard!r}; expected safetensors files beside it")
        if not (folder / shard).is_file():
            raise DamagedDataError(f"{folder} lacks {shard}, which {INDEX} names: fetch it again")
        found, wanted = _names(folder / shard), {name for name, place in shards.items() if place == shard}
        if found != wanted:
            differing = sorted(found ^ wanted)
            raise DamagedDataError(
                f"{folder / shard} and {INDEX} disagree on {len(differing)} tensors, {differing[0]!r} among them; "
                "expected the files of one checkpoint: fetch them again, all at one revision"
            )


def is_pickle(file: Path) -> bool:
    """Return whether a file holds weights in a format that can run code when it is read, by its name or first bytes."""
    if file.suffix in PICKLES:
        return True
    with suppress(OSError), file.open("rb") as opened:
        begin = opened.read(9)
        # A safetensors file begins with the length of its header, which may look like either, and then the header.
        return begin.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x04")) and begin[8:] != b"{"
    return False


def how_to_convert(file: Path) -> str:
    """Return what to do with a file of weights that is never loaded."""
    return (
        f"{file.name} can run code when it is read, so it is never loaded here: load it with torch.load where you "
        "trust it, and save the weights by model.save_pretrained(folder) or safetensors.torch.save_file(weights, file)"
    )


def _check_plain(folder: Path, patterns: Sequence[str]) -> None:
    """Raise `ModelError` if one of the files is a pipe or a device: whoever reads it would wait forever."""
    for entry in folder.iterdir():
        if any(fnmatch(entry.name, pattern) for pattern in patterns) and entry.exists() and not entry.is_file():
            raise ModelError(f"{entry} is no plain file; expected one, as it was saved")


def _names(path: Path) -> set[str]:
    try:
        with safe_open(path, "pt") as file:
            return set(file.keys())
    except (SafetensorError, OSError) as error:
        raise DamagedDataError(
            f"{path} cannot be read as safetensors ({error}); it was cut off or changed: fetch it again"
        ) from error


def _pickles(snapshot: Snapshot) -> list[str]:
    """Return the names of weights in other formats, as far as they can be known."""
    names = [entry.name for entry in snapshot.folder.iterdir()]
    if snapshot.commit is not None:
        # What is not wanted was not fetched. Without an answer the message says less, and nothing else changes.
        with suppress(Exception):
            hub = optional("huggingface_hub", "", "")
            names = list(hub.list_repo_files(snapshot.name, revision=snapshot.commit))
    return sorted(name for name in names if name.endswith(PICKLES))[:4]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
