"""A run has its folder for itself: the lock comes before the first look, and what killed processes left is removed."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from tutelage import manifest
from tutelage.errors import RunFolderError
from tutelage.run_folder import LOCK, RunFolder
from tutelage.runs import _ranks


@contextlib.contextmanager
def claimed(place: Path, *, new: bool = False) -> Iterator[None]:
    """Hold the lock of a run's folder. new: the folder is made for a run that starts, and gone again if that fails.

    Of several processes the first one holds it, and the others fail where it does. Errors: `RunFolderError` for a
    folder that another process works in, that holds something else, or that cannot be written.
    """
    if not _ranks.is_first():
        _ranks.together(_nothing)
        yield
        return
    made = [folder for folder in (place, *place.parents) if not folder.exists()] if new else []
    lock = FileLock(place / LOCK)
    try:
        # What it returns, the others would get.
        _ranks.together(lambda: _take(lock, place, new=new))
        yield
    finally:
        started = RunFolder(place).record.is_file()
        if made and not started and not lock.is_locked:
            # A signal may have come between its file and the lock.
            with contextlib.suppress(OSError):
                lock.acquire(timeout=0)
        if lock.is_locked:
            if new and not started:
                _clear(place)
            # While it is held: whoever opened it in this moment sees that it is gone, and makes it anew.
            (place / LOCK).unlink(missing_ok=True)
        for folder in () if started else made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        lock.release()


def owner_of(lock: Path) -> str:
    """Return who holds a lock, as they wrote it there, for a message; nothing if nobody did."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text = lock.read_text().strip()
        return f" ({text})" if text.isprintable() and text else ""
    return ""


def sign(lock: Path) -> None:
    """Write into a lock that is held who holds it."""
    with contextlib.suppress(OSError):
        lock.write_text(f"process {os.getpid()} on {socket.gethostname()}")


def _take(lock: FileLock, place: Path, *, new: bool) -> None:
    if new:
        _check_free(place)
    try:
        if new:
            place.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunFolderError(
            f"another process{owner_of(place / LOCK)} works in {place}; wait for it, stop it, or choose another folder"
        ) from error
    except OSError as error:
        raise RunFolderError(f"{place} cannot be written ({error.strerror}); choose another folder") from error
    sign(place / LOCK)
    if new:
        # Another run may have come and gone since the first look.
        _check_free(place)
        _clear(place)
    _sweep(place)


def _check_free(place: Path) -> None:
    if not RunFolder(place).is_free:
        raise RunFolderError(
            f"{place} is there already and not empty; a run never writes over another: choose a new folder, or resume "
            "the run in it"
        )


def _clear(place: Path) -> None:
    """Remove what a start that did not come to its end left in a folder."""
    for entry in RunFolder(place).left_by_a_start():
        manifest.remove(entry)


def _sweep(place: Path) -> None:
    """Remove what processes that were killed left half-written."""
    run = RunFolder(place)
    networks = [run.teacher.path, *(place.glob("seed-*")), *(place.glob("seed-*/*"))]
    for folder in (place, *networks):
        manifest.sweep(folder)


def _nothing() -> None:
    pass
