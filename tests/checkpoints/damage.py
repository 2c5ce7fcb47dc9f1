"""Kinds of damage to a checkpoint: what disks, copies, full volumes and people do to files."""

import os
import re
import shutil
from pathlib import Path


def _rewritten(change):
    def damage(path, older, other):
        data = bytearray(path.read_bytes())
        changed = bytes(change(data))
        path.write_bytes(changed)

    return damage


def _flipped(place):
    def change(data):
        if data:
            data[int(place * (len(data) - 1))] ^= 1
        return data

    return change


def _without_a_sector(data):
    start = len(data) // 2
    return data[:start] + bytes(len(data[start : start + 512])) + data[start + 512 :]


def _garbage(data):
    return bytes((7 * i * i + 13 * i + 101) % 256 for i in range(len(data)))


def _another_number(data):
    """Change the first number of a text; a binary file has none that a person would edit."""
    text = data.decode("utf-8", errors="ignore")
    if len(text.encode()) != len(data):
        return data
    return re.sub(r"\d+", lambda match: str(int(match[0]) + 1), text, count=1).encode()


def _replaced(make):
    def damage(path, older, other):
        path.unlink()
        make(path, older)

    return damage


def _swapped(path, older, other):
    if other is not None:
        beside = path.with_name("swapped")
        path.rename(beside)
        other.rename(path)
        beside.rename(other)


# Of one file: what is called with it, the same file of the older checkpoint, and another file of its own checkpoint.
OF_A_FILE = {
    "a bit at the start": _rewritten(_flipped(0)),
    "a bit in the middle": _rewritten(_flipped(0.5)),
    "a bit at the end": _rewritten(_flipped(1)),
    "cut to nothing": _rewritten(lambda data: b""),
    "cut in half": _rewritten(lambda data: data[: len(data) // 2]),
    "one byte less": _rewritten(lambda data: data[:-1]),
    "one byte more": _rewritten(lambda data: data + b"\0"),
    "a page more": _rewritten(lambda data: data + bytes(4096)),
    "garbage": _rewritten(_garbage),
    "zeros": _rewritten(lambda data: bytes(len(data))),
    "a sector lost": _rewritten(_without_a_sector),
    "halves exchanged": _rewritten(lambda data: data[len(data) // 2 :] + data[: len(data) // 2]),
    "a number edited": _rewritten(_another_number),
    "missing": _replaced(lambda path, older: None),
    "of the older checkpoint": _replaced(lambda path, older: shutil.copy(older, path)),
    "a link to the older one": _replaced(lambda path, older: path.symlink_to(older)),
    "a link to nothing": _replaced(lambda path, older: path.symlink_to("nothing")),
    "a folder": _replaced(lambda path, older: path.mkdir()),
    "a pipe": _replaced(lambda path, older: os.mkfifo(path)),
    "changed for another": _swapped,
}


def _copied_over(newest, older):
    shutil.rmtree(newest)
    shutil.copytree(older, newest)


def _mixed(newest, older):
    """Files that are as they are in the older one, all but the last."""
    for path in sorted(older.iterdir())[:-1]:
        shutil.copy(path, newest)


def _emptied(newest, older):
    for path in newest.iterdir():
        path.unlink()


def _a_file(newest, older):
    shutil.rmtree(newest)
    newest.write_bytes(b"checkpoint")


def _renamed(newest, older):
    newest.rename(newest.with_name("checkpoint-1000"))


# Of a checkpoint as a whole: called with the newest and the older one.
OF_THE_FOLDER = {
    "the older one under its name": _copied_over,
    "most files of the older one": _mixed,
    "empty": _emptied,
    "a file": _a_file,
    "under the name of a later step": _renamed,
}


def contents(folder: Path):
    """Return what a folder holds, as far as it can tell whether damage changed anything."""
    found = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
        kind = "link" if path.is_symlink() else "file" if path.is_file() else "other"
        found[path.relative_to(folder).as_posix()] = (kind, path.read_bytes() if path.is_file() else None)
    return found


def all_damage(newest: Path):
    """Yield (kind, name of a file or None, what damages a folder of checkpoints given its newest and older one)."""
    names = sorted(path.name for path in newest.iterdir())
    for kind, damage in OF_A_FILE.items():
        for number, name in enumerate(names):
            other = names[(number + 1) % len(names)]

            def damaged(new, old, damage=damage, name=name, other=other):
                damage(new / name, old / name, new / other)

            yield kind, name, damaged
    for kind, damage in OF_THE_FOLDER.items():
        yield kind, None, damage
