"""Lets the file operations of `tutelage.manifest` fail, one at a time."""

import os
import signal

from tutelage import manifest

OPERATIONS = ("make_folder", "write_bytes", "write_by", "sync", "rename", "remove")
KILLED = "killed"


def fail_at(patch, number, kind):
    """Let the operation of this number fail, or kill the process there; return the count so far, in a list.

    A write fails when half is written. patch: a MonkeyPatch; kind: an errno, or `KILLED`.
    """
    count = [0]
    for name in OPERATIONS:
        real = getattr(manifest, name)

        def operation(path, *rest, name=name, real=real):
            count[0] += 1
            if count[0] != number:
                return real(path, *rest)
            if name in ("write_bytes", "write_by"):
                real(path, *rest)
                _halve(path)
            if kind == KILLED:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(kind, os.strerror(kind), str(path))

        patch.setattr(manifest, name, operation)
    return count


def _halve(path):
    """Leave half of a file; of a folder, half of its largest file."""
    if path.is_dir():
        path = max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    os.truncate(path, path.stat().st_size // 2)
