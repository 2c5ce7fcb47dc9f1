"""Folders that are there whole or not at all, and whose files can be checked: how everything is written and trusted.

A folder is written beside its place, under a name of its own. When all files are on the disk, a manifest is written
last: its format version, and the length and CRC-32 of each file. One rename puts the folder into its place; one that
was there is moved aside before, and removed after. So a crash leaves the old folder or the new one, and `finish_swap`
says which. Whoever reads checks against the manifest, and trusts no name of a folder.

    manifest.json   {"format": 1, "about": {...}, "files": {"name": {"bytes": 12, "crc32": "0a1b2c3d"}}, "crc32": "..."}

Its own "crc32" is that of "format", "about" and "files". Files that it does not name are nobody's concern.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import socket
import stat
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from tutelage.errors import DamagedDataError

MANIFEST = "manifest.json"
FORMAT = 1

_CHUNK = 1 << 20
# A manifest is small: one that is not was written by nobody here, and is not read into memory.
_LARGEST_MANIFEST = 16 << 20
# Of a process on another machine nothing is known but when it last wrote.
_FORGOTTEN_AFTER = 24 * 3600.0
_SWAP_TAKES = 5.0
# What says nothing of the file.
_OF_THE_PROCESS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_PRIVATE = re.compile(r"\.(?P<name>.+)\.(?P<host>[\w-]+)\.(?P<pid>\d+)-(?P<start>\d+)\.(?P<ending>staging|part|gone)")
_ASIDE = re.compile(r"\.(?P<name>.+)\.tutelage-old")


@dataclass(frozen=True)
class Manifest:
    """What a folder holds. files: {name: (bytes, CRC-32)}; about: what its writer says of it, plain JSON."""

    files: Mapping[str, tuple[int, int]]
    about: Mapping[str, Any] = field(default_factory=dict)


# --- writing ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def staged(folder: str | os.PathLike[str], about: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """Give a folder to write files to; it comes to its place when all are written, and whatever fails leaves the old.

    about: what the manifest says of the folder beside its files, plain JSON.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     with staged(Path(parent) / "model") as staging:
    ...         _ = (staging / "weights").write_bytes(b"123456789")
    ...     verify(Path(parent) / "model").files
    {'weights': (9, 3421780262)}
    """
    staging = begin(folder)
    try:
        yield staging
        commit(staging, folder, about)
    except BaseException:
        discard(staging)
        raise


def begin(folder: str | os.PathLike[str]) -> Path:
    """Make a staging folder for a folder; several processes may write to it. `commit` or `discard` it at the end."""
    finish_swap(folder)
    staging = private(folder, "staging")
    discard(staging)
    make_folder(staging)
    return staging


def commit(staging: Path, folder: str | os.PathLike[str], about: Mapping[str, Any] | None = None) -> None:
    """Bring all files of a staging folder to the disk, write its manifest, and move it to its place."""
    place = Path(folder)
    seal(staging, about)
    aside = _aside_of(place)
    try:
        if os.path.lexists(place):
            rename(place, aside)
        rename(staging, place)
    except BaseException:
        if os.path.lexists(aside) and not os.path.lexists(place):
            with contextlib.suppress(OSError):
                rename(aside, place)
        raise
    sync_folder(place.parent)
    # The new folder is in its place: what is left of the old one is removed by the next who comes here.
    with contextlib.suppress(OSError):
        remove(aside)


def retire(folder: str | os.PathLike[str]) -> None:
    """Remove a folder that is in its place: it is gone at once, and never half of it is there."""
    gone = private(folder, "gone")
    rename(Path(folder), gone)
    discard(gone)


def discard(staging: Path) -> None:
    """Remove what was staged, as far as that can be done."""
    with contextlib.suppress(OSError):
        remove(staging)


def seal(folder: Path, about: Mapping[str, Any] | None = None) -> None:
    """Bring all files of a folder to the disk, and write its manifest last."""
    files: dict[str, Any] = {}
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if path == folder / MANIFEST:
                continue
            files[path.relative_to(folder).as_posix()] = entry_of(path)
            sync(path)
        if Path(parent) != folder:
            sync_folder(Path(parent))
    content = {"format": FORMAT, "about": dict(about or {}), "files": files}
    write_bytes(folder / MANIFEST, _written(content))
    sync(folder / MANIFEST)
    sync_folder(folder)


def record(folder: Path, files: Mapping[str, Path]) -> None:
    """Write the manifest of files in a folder that stays where it is; the files are on the disk already.

    files: {name in the folder: where the file is now}, which may be a part that comes to its place afterwards.
    """
    entries = {name: entry_of(path) for name, path in files.items()}
    part = private(folder / MANIFEST, "part")
    write_bytes(part, _written({"format": FORMAT, "about": {}, "files": entries}))
    sync(part)
    rename(part, folder / MANIFEST)
    sync_folder(folder)


def entry_of(path: Path) -> dict[str, Any]:
    """Return what a manifest says of a file."""
    with path.open("rb") as file:
        return {"bytes": os.fstat(file.fileno()).st_size, "crc32": f"{_crc_of_file(file):08x}"}


def private(path: str | os.PathLike[str], ending: str) -> Path:
    """Return a name beside a path that no other process uses, and by which `sweep` knows whether this one still runs.

    ending: "staging" for a folder that is being written, "part" for a file, "gone" for what is being removed.
    """
    place = Path(path)
    return place.with_name(f".{place.name}.{_host()}.{os.getpid()}-{_started(os.getpid())}.{ending}")


# --- reading ----------------------------------------------------------------------------------------------------------


def has_manifest(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder has a manifest, of whatever content."""
    return os.path.lexists(Path(folder) / MANIFEST)


def read_manifest(folder: str | os.PathLike[str], what: str = "the folder") -> Manifest:
    """Return the manifest of a folder, without a look at the files. Errors: `DamagedDataError`."""
    path = Path(folder) / MANIFEST
    with opened(path, what) as file:
        if os.fstat(file.fileno()).st_size > _LARGEST_MANIFEST:
            raise DamagedDataError(f"{path} is larger than {_LARGEST_MANIFEST} bytes, and so no manifest of {what}")
        text = file.read(_LARGEST_MANIFEST)
    try:
        content = json.loads(text)
        version = content["format"]
        if isinstance(version, int) and version > FORMAT:
            raise DamagedDataError(
                f"{path} has format {version}, and this version of tutelage reads {FORMAT}; {what} was written by a "
                "newer one, or changed since: update tutelage"
            )
        crc = content.pop("crc32")
        if version != FORMAT or crc != checksum(content) or text != _written(content):
            raise DamagedDataError(f"{path} was changed after it was written, so {what} cannot be trusted")
        files = files_of(content["files"])
        about = dict(content["about"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if isinstance(error, DamagedDataError):
            raise
        raise DamagedDataError(f"{path} is no manifest ({error}), so {what} cannot be trusted") from error
    check_names(files, path, what)
    return Manifest(files, about)


def files_of(entries: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return {name: (bytes, CRC-32)} of what `entry_of` says of files."""
    return {name: (int(entry["bytes"]), int(entry["crc32"], 16)) for name, entry in entries.items()}


def check_names(files: Mapping[str, Any], path: Path, what: str) -> None:
    """Raise `DamagedDataError` if a file that is named is not inside the folder. path: of the file that names it."""
    for name in files:
        if not _is_inside(name):
            raise DamagedDataError(f"{path} names {name!r}, which is no file inside the folder; {what} is not read")


def verify(
    folder: str | os.PathLike[str], what: str = "the folder", only: Callable[[str], bool] | None = None
) -> Manifest:
    """Check each file that a folder's manifest names, and return the manifest.

    what: how messages call the folder; only: which names are checked, if not all.
    Errors: `DamagedDataError`, which names the file and what is wrong with it.
    """
    finish_swap(folder)
    manifest = read_manifest(folder, what)
    check_files(folder, manifest.files, what, only)
    return manifest


def check_files(
    folder: str | os.PathLike[str],
    files: Mapping[str, tuple[int, int]],
    what: str,
    only: Callable[[str], bool] | None = None,
) -> None:
    """Raise `DamagedDataError` unless files of a folder are as long as they were written, and their CRC-32 the same."""
    place = Path(folder)
    inside = place.resolve()
    for name, (length, crc) in files.items():
        if only is not None and not only(name):
            continue
        path = place / name
        with opened(path, what) as file:
            if not path.resolve().is_relative_to(inside):
                raise DamagedDataError(f"{path} is a link out of the folder; expected the file itself in {what}")
            found = os.fstat(file.fileno()).st_size
            if found != length:
                change = "cut off" if found < length else "longer than it was"
                raise DamagedDataError(
                    f"{path} is {change}: it has {found} bytes, and {what} was written with {length}"
                )
            if _crc_of_file(file) != crc:
                raise DamagedDataError(
                    f"{path} was changed after it was written: the checksum of its {length} bytes is another one, so "
                    f"{what} cannot be trusted"
                )


def missing(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the files that a folder's manifest names and that are not there. Errors: `DamagedDataError`."""
    finish_swap(folder)
    return [path for name in read_manifest(folder).files if not os.path.lexists(path := Path(folder) / name)]


def finish_swap(folder: str | os.PathLike[str]) -> None:
    """Finish what a crash interrupted while a folder was replaced: the newest that is whole gets the place."""
    place = Path(folder)
    aside = _aside_of(place)
    deadline = time.monotonic() + _SWAP_TAKES
    while os.path.lexists(aside) and not os.path.lexists(place):
        staging = _stagings_of(place)
        if any(not _is_abandoned(path) for path in staging) and time.monotonic() < deadline:
            # Its writer is between two renames.
            time.sleep(0.01)
            continue
        newest = max(
            (path for path in staging if _is_whole(path)), key=lambda path: path.stat().st_mtime, default=aside
        )
        # Another reader may have been faster.
        with contextlib.suppress(FileNotFoundError):
            rename(newest, place)
            sync_folder(place.parent)
    if os.path.lexists(aside) and all(_is_abandoned(path) for path in _stagings_of(place)):
        # Where it may only be read, it stays.
        with contextlib.suppress(OSError):
            remove(aside)


def name_of_aside(path: Path) -> str | None:
    """Return which name a folder had before it was moved aside; None for any other."""
    match = _ASIDE.fullmatch(path.name)
    return match and match["name"]


def is_private(name: str) -> bool:
    """Return whether `private` makes such a name."""
    return _PRIVATE.fullmatch(name) is not None


def sweep(parent: str | os.PathLike[str]) -> None:
    """Finish interrupted swaps in a folder, and remove what processes that have ended left half-written there."""
    place = Path(parent)
    if not place.is_dir():
        return
    for entry in sorted(place.iterdir()):
        if name := name_of_aside(entry):
            finish_swap(place / name)
    for entry in sorted(place.iterdir()):
        match = _PRIVATE.fullmatch(entry.name)
        # What is being removed, nobody misses.
        if match and (match["ending"] == "gone" or _is_abandoned(entry)):
            discard(entry)


# --- the file operations of all this: a test makes each of them fail --------------------------------------------------


def make_folder(path: Path) -> None:
    """Make a folder, and those above it."""
    path.mkdir(parents=True, exist_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a small file."""
    with naming(path):
        path.write_bytes(data)


def write_by(path: Path, write: Callable[[Path], object]) -> None:
    """Let a library write a file or a folder."""
    with naming(path):
        write(path)


def sync(path: Path) -> None:
    """Wait until a file is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can do that."""
    if os.name == "nt":
        return
    try:
        sync(path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def rename(old: Path, new: Path) -> None:
    """Move a folder or file to a place beside it."""
    old.replace(new)


def remove(path: Path) -> None:
    """Remove a folder, file or link, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make what the system refuses an OSError that names a path, in whatever words a library tells of it."""
    try:
        yield
    except Exception as error:
        number = _errno_of(error)
        if number is None or (isinstance(error, OSError) and error.filename is not None):
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _errno_of(error: BaseException | None) -> int | None:
    """Return what the system said when a library failed: in an error behind its own, or in words, as in Rust."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        if match := re.search(r"\(os error (\d+)\)", str(error)):
            return int(match[1])
        error = error.__cause__ or error.__context__
    return None


# --- inside -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(path: Path, what: str) -> Iterator[BinaryIO]:
    """Open a plain file; a pipe in its place must not hang."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise DamagedDataError(f"{path} is missing; it belongs to {what}") from None
    except OSError as error:
        if error.errno in _OF_THE_PROCESS:
            raise
        raise DamagedDataError(f"{path} cannot be opened ({error.strerror}); it belongs to {what}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DamagedDataError(f"{path} is no plain file; expected the one that belongs to {what}")
    with os.fdopen(descriptor, "rb") as file:
        try:
            yield file
        except OSError as error:
            raise DamagedDataError(f"{path} cannot be read ({error.strerror}); it belongs to {what}") from error


def _crc_of_file(file: Any) -> int:
    crc, buffer = 0, memoryview(bytearray(_CHUNK))
    while count := file.readinto(buffer):
        crc = zlib.crc32(buffer[:count], crc)
    return crc


def checksum(content: Mapping[str, Any]) -> str:
    """Return the CRC-32 of JSON, whatever the order of its keys."""
    return f"{zlib.crc32(json.dumps(content, sort_keys=True, separators=(',', ':')).encode()):08x}"


def _written(content: Mapping[str, Any]) -> bytes:
    """Return a manifest as it stands in its file; any other bytes were not written here."""
    return (json.dumps({**content, "crc32": checksum(content)}, indent=1, allow_nan=False) + "\n").encode()


def _is_inside(name: str) -> bool:
    plain = 0 < len(name) < 1024 and name != MANIFEST and not re.search(r"[\x00\\]|^[A-Za-z]:", name)
    return plain and all(part not in ("", ".", "..") for part in name.split("/"))


def _is_whole(folder: Path) -> bool:
    try:
        verify(folder)
    except DamagedDataError:
        return False
    return True


def _aside_of(place: Path) -> Path:
    return place.with_name(f".{place.name}.tutelage-old")


def _stagings_of(place: Path) -> list[Path]:
    found = ((entry, _PRIVATE.fullmatch(entry.name)) for entry in place.parent.iterdir())
    return [entry for entry, match in found if match and match["name"] == place.name and match["ending"] == "staging"]


def _is_abandoned(path: Path) -> bool:
    """Return whether the process that wrote here has ended."""
    match = _PRIVATE.fullmatch(path.name)
    assert match is not None, path
    if match["host"] == _host():
        return _started(int(match["pid"])) != match["start"]
    with contextlib.suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > _FORGOTTEN_AFTER
    return True


def _host() -> str:
    return re.sub(r"[^\w-]", "_", socket.gethostname()) or "host"


def _started(pid: int) -> str | None:
    """Return when a process started, in ticks since the machine did; None if there is none, "0" if nobody can say."""
    if os.name == "nt":
        return "0"
    if not os.path.exists("/proc/self/stat"):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            return "0"
        return "0"
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    # A zombie has ended, whether or not somebody has asked for it.
    return None if fields[0] == "Z" else fields[19]
