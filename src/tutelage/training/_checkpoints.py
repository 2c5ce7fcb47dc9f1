"""Which checkpoints of a folder are whole, and can be resumed from; which are removed when there are too many."""

from __future__ import annotations

import json
import logging
import re
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from tutelage import manifest
from tutelage.errors import DamagedDataError, InputError

STATE = "trainer_state.json"
WEIGHTS = "model.safetensors"
OPTIMIZER, SCHEDULER, SCALER = "optimizer", "scheduler", "scaler"

_WHAT = "the checkpoint"
_NAME = re.compile(r"checkpoint-(\d+)")
# Where transformers, and tutelage before it wrote manifests, kept what a checkpoint needs.
_BEFORE = {
    "model": r"model\.safetensors|pytorch_model_fsdp(\.bin|_\d+)",
    OPTIMIZER: r"optimizer(\.pt|\.bin|_\d+)",
    SCHEDULER: r"scheduler\.pt",
    "rng_state": r"rng_state(_\d+)?\.pth",
}
_log = logging.getLogger(__name__)


def rng_name(rank: int) -> str:
    """Return the name of the state in which a process keeps its random numbers."""
    return f"rng_state_{rank}"


def last_checkpoint(folder: str | Path) -> Path | None:
    """Return the newest whole checkpoint in a folder, or None; a warning names each newer one, and what is wrong.

    Every file of it was read and has the checksum that its manifest says. One that a crash left half-written, or whose
    files were changed, does not count.
    """
    whole, left = newest_whole(Path(folder))
    for reason in left:
        instead = "no older one is whole" if whole is None else f"the newest whole one is {whole.name}"
        _log.warning("a checkpoint is skipped, and %s: %s", instead, reason)
    return whole


def newest_whole(folder: Path) -> tuple[Path | None, list[InputError]]:
    """Return the newest whole checkpoint, and what is wrong with each newer one."""
    left = []
    for _, place in sorted(_checkpoints(folder), reverse=True):
        try:
            check(place)
        except InputError as error:
            left.append(error)
        else:
            return place, left
    return None, left


def check(folder: Path) -> None:
    """Read a checkpoint through. Errors: `DamagedDataError` if it is not whole, `InputError` if it is none."""
    manifest.finish_swap(folder)
    if not folder.is_dir():
        raise InputError(f"there is no complete checkpoint at {folder}; expected the folder of one to resume from")
    about = manifest.verify(folder, _WHAT).about if manifest.has_manifest(folder) else _check_older(folder)
    step = _step_in(folder)
    named = _NAME.fullmatch(folder.name)
    for source, other in (("its name", named and int(named[1])), ("its manifest", about.get("step"))):
        if other is not None and other != step:
            raise DamagedDataError(f"{folder} holds step {step}, and {source} says {other}; resume from another one")
    if about.get("resumable") is False:
        raise InputError(
            f"{folder} was saved with save_only_model=True, so training cannot be resumed from it; expected one with "
            "the state of the optimizer"
        )


def _check_older(folder: Path) -> dict[str, Any]:
    """Check a checkpoint without a manifest as far as that can be done."""
    names = {path.name for path in folder.iterdir()}
    if names & {f"{SCHEDULER}.json", f"{rng_name(0)}.json"}:
        raise DamagedDataError(f"{folder / manifest.MANIFEST} is missing; nothing else tells whether {_WHAT} is whole")
    for what, pattern in _BEFORE.items():
        found = [folder / name for name in names if re.fullmatch(pattern, name)]
        if not found:
            raise DamagedDataError(f"{folder} has no file of its {what}; it is no complete checkpoint")
        for path in found:
            if not _is_sound(path):
                raise DamagedDataError(f"{path} is damaged; it belongs to {_WHAT}")
    _log.warning(
        "%s was written without a manifest, by transformers or an earlier tutelage: nothing tells whether its weights "
        "are those that were written. It is read by torch.load(weights_only=True)",
        folder,
    )
    return {}


def _is_sound(path: Path) -> bool:
    """Return whether a file is whole, as far as its format says: the zip files of torch have checksums."""
    if path.suffix == "" and path.is_dir():
        # Of the ranks of a sharded model.
        return True
    if not path.is_file():
        return False
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt"):
                return True
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (SafetensorError, zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, zlib.error):
        return False


def _step_in(folder: Path) -> int:
    path = folder / STATE
    if not path.is_file():
        raise DamagedDataError(f"{path} is missing; {folder} is no complete checkpoint")
    try:
        step = json.loads(path.read_bytes())["global_step"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DamagedDataError(f"{path} cannot be read ({error}); {folder} is no complete checkpoint") from error
    if type(step) is not int:
        raise DamagedDataError(f"{path} has global_step {step!r}; expected a whole number")
    return step


def _checkpoints(folder: Path) -> Iterable[tuple[int, Path]]:
    """Yield the steps and places of all checkpoints; one whose replacement was interrupted is there, too."""
    if not folder.is_dir():
        return
    names = {manifest.name_of_aside(path) or path.name for path in folder.iterdir()}
    yield from ((int(named[1]), folder / named[0]) for named in map(_NAME.fullmatch, names) if named)


def rotate(folder: Path, limit: int | None, written: Path, best: str | None) -> None:
    """Remove checkpoints until no more than a limit are left, never the one that was written just now, nor the best.

    First those that are not whole, then those of later steps, which an earlier training left, then the oldest.
    """
    if limit is None or limit <= 0:
        return
    found = sorted(_checkpoints(folder))
    now = next(step for step, place in found if place == written)
    kept = {written} if best is None else {written, Path(best)}
    order = sorted((_looks_whole(place), step <= now, step, place) for step, place in found if place not in kept)
    for *_, place in order[: max(0, len(found) - max(limit, len(kept)))]:
        try:
            manifest.retire(place)
        except OSError as error:
            _log.warning("%s is one checkpoint too many, and cannot be removed: %s", place, error.strerror)


def _looks_whole(folder: Path) -> bool:
    """Return whether the files have the lengths that they should have, without reading them."""
    try:
        files = manifest.read_manifest(folder).files
        return all((folder / name).stat().st_size == length for name, (length, _) in files.items())
    except (DamagedDataError, OSError):
        return False
