"""What a run has recorded of its files, and whether they are still those that it wrote.

run.json says of the files of the run as a whole how long they are and what their CRC-32 is, and so does a manifest.json
in the folder of each network that is done. Both are written after the files that they name; only the scores of a
network, which say that it is done, come to their place after its manifest. Runs of earlier versions have neither, and
are taken as they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage import manifest
from tutelage.errors import DamagedDataError
from tutelage.run_folder import (
    COMPLETE,
    TEACHER,
    ArmFolder,
    RunFolder,
    begin_file,
    finish_file,
    json_text,
    object_of,
    read_text,
    write_json,
    write_text,
)

_WHAT = "the run"
_FILES, _CHECKSUM = "files", "crc32"


# --- the run as a whole -----------------------------------------------------------------------------------------------


def write_record(folder: RunFolder, record: Mapping[str, Any], written: Iterable[Path] = ()) -> None:
    """Write run.json. written: files of the run as a whole that are new, as far as they are there.

    A record that an earlier version began says nothing of files, and goes on as it was.
    """
    if _FILES not in record:
        write_json(folder.record, record)
        return
    entries = {file.name: manifest.entry_of(file) for file in written if file.is_file()}
    content = {**record, _FILES: {**record[_FILES], **entries}}
    content.pop(_CHECKSUM, None)
    write_text(folder.record, _recorded(content))


def read_record(folder: RunFolder, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Return run.json, which has at least these keys. Errors: `DamagedDataError` if it is not what was written."""
    text = read_text(folder.record)
    content = object_of(text, str(folder.record), keys)
    if _FILES in content or _CHECKSUM in content:
        kept = {key: value for key, value in content.items() if key != _CHECKSUM}
        if not isinstance(content.get(_FILES), dict) or text != _recorded(kept):
            raise DamagedDataError(
                f"{folder.record} was changed after it was written, so nothing tells whether {_WHAT} is whole; "
                "expected it as it was: copy it back, or train again in a new folder"
            )
        manifest.check_names(content[_FILES], folder.record, _WHAT)
    return content


def check_run(folder: RunFolder, record: Mapping[str, Any], without: Sequence[Path] = ()) -> None:
    """Raise `DamagedDataError` unless the files of the run as a whole are those that it wrote.

    without: which may be missing, but not be other ones.
    """
    check_recipe(folder, record)
    not_now = {folder.recipe.name, *(path.name for path in without if not path.exists())}
    with _remedied(folder):
        manifest.check_files(folder.path, _files_of(folder, record), _WHAT, lambda name: name not in not_now)


def check_recipe(folder: RunFolder, record: Mapping[str, Any]) -> None:
    """Raise `DamagedDataError` if the recipe of a run is not the one that it was started with."""
    try:
        manifest.check_files(folder.path, _files_of(folder, record), _WHAT, lambda name: name == folder.recipe.name)
    except DamagedDataError as error:
        raise DamagedDataError(
            f"{error}. A run keeps its recipe: put this one back as it was, or start another run of the changed one "
            "with --out"
        ) from error


def _files_of(folder: RunFolder, record: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    try:
        return manifest.files_of(record.get(_FILES, {}))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedDataError(f"{folder.record} has no lengths and checksums of its files ({error!r})") from error


def _recorded(content: Mapping[str, Any]) -> str:
    return json_text({**content, _CHECKSUM: manifest.checksum(content)})


@contextlib.contextmanager
def _remedied(folder: RunFolder) -> Iterator[None]:
    """Say what to do about damage."""
    try:
        yield
    except DamagedDataError as error:
        raise DamagedDataError(
            f"{error}. Copy it back; or remove what is left of it, and `tutelage train --resume {folder.path}` makes "
            "it again"
        ) from error


# --- one network ------------------------------------------------------------------------------------------------------


def finish_arm(arm: ArmFolder, scores: Mapping[str, Any]) -> None:
    """Write the scores of a network whose other files are all there, and the manifest of them all: it is done."""
    part = begin_file(arm.scores, lambda path: manifest.write_bytes(path, json_text(scores).encode()))
    try:
        files = (arm.model / manifest.MANIFEST, arm.metrics, arm.evaluation, arm.timing)
        there = {file.relative_to(arm.path).as_posix(): file for file in files if file.is_file()}
        manifest.record(arm.path, {**there, arm.scores.name: part})
        finish_file(part, arm.scores)
    finally:
        part.unlink(missing_ok=True)


def missing_files(folder: RunFolder, arm: ArmFolder, record: Mapping[str, Any]) -> list[Path]:
    """Return the files of a network that is done, and that are not there any more. Errors: `DamagedDataError`."""
    found: list[Path] = []
    if _FILES in record:
        if not manifest.has_manifest(arm.path):
            found.append(arm.path / manifest.MANIFEST)
        with _remedied(folder):
            for place in (arm.path, arm.model):
                found += manifest.missing(place) if manifest.has_manifest(place) else []
    return found


def check_done(folder: RunFolder, record: Mapping[str, Any]) -> None:
    """Raise `DamagedDataError` if a network of a complete run has no scores, by which it counts as done."""
    if _FILES not in record or record.get("status") != COMPLETE:
        return
    arms = [folder.arm(seed, name) for seed in record["seeds"] for name in record["arms"]]
    if record.get(TEACHER):
        arms.append(folder.teacher)
    with _remedied(folder):
        for arm in arms:
            if not arm.done:
                raise DamagedDataError(f"{arm.scores} is missing, and the run is complete")


def check_arm(
    folder: RunFolder,
    arm: ArmFolder,
    record: Mapping[str, Any],
    without: Sequence[Path] = (),
    *,
    model: bool = True,
) -> None:
    """Raise `DamagedDataError` unless the files of a network that is done are those that were written.

    without: which may be missing, but not be other ones; model: whether its weights are read through, too.
    """
    if _FILES not in record:
        return
    absent = {path for path in without if not path.exists()}
    with _remedied(folder):
        if arm.path / manifest.MANIFEST not in absent:
            manifest.verify(arm.path, _WHAT, lambda name: arm.path / name not in absent)
        if model and manifest.has_manifest(arm.model):
            manifest.verify(arm.model, "the model", lambda name: arm.model / name not in absent)
