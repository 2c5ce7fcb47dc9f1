"""A corpus that every machine with Python has: the source of its standard library."""

from __future__ import annotations

import sysconfig
from dataclasses import dataclass
from pathlib import Path

from tutelage.data._text_files import TextRow, check_fraction, is_held_out
from tutelage.data._text_tokens import log
from tutelage.errors import DataError

# Installed packages differ from machine to machine, and distributions leave the tests out or not.
_LEFT_OUT = frozenset({"__pycache__", "dist-packages", "idle_test", "site-packages", "test", "tests"})


@dataclass(frozen=True)
class Corpus:
    """Texts to learn from and texts held out, with what was not read."""

    train: tuple[TextRow, ...]
    test: tuple[TextRow, ...]
    skipped: tuple[str, ...]
    """Files that are not UTF-8, or cannot be opened."""


def python_source(test_fraction: float = 0.05, root: Path | None = None) -> Corpus:
    """Return the .py files of the standard library, {"text": ..., "file": ...} each, without tests and packages.

    A file's content alone decides whether it is held out, so the order in which a machine lists files, and files that
    another version of Python has, change nothing for the others. Empty files are left out; those that are not UTF-8 are
    skipped, and said. root: another folder of sources. Errors: `ParameterError`, `DataError`.
    """
    check_fraction(test_fraction)
    folder = Path(sysconfig.get_paths()["stdlib"]) if root is None else root
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*.py") if file.is_file()}
    parts: tuple[list[TextRow], list[TextRow]] = ([], [])
    skipped = []
    for name, file in sorted(files.items()):
        if _LEFT_OUT & set(Path(name).parts[:-1]):
            continue
        try:
            content = file.read_bytes()
            # As Python reads source, whatever ends the lines of a checkout.
            text = content.decode("utf-8-sig").replace("\r\n", "\n")
        except (OSError, UnicodeDecodeError):
            skipped.append(name)
            continue
        if text:
            parts[is_held_out(text.encode(), test_fraction)].append({"text": text, "file": name})
    if skipped:
        log.warning("%s: skipped %d files that are not UTF-8: %s", folder.name, len(skipped), ", ".join(skipped))
    if not all(parts):
        raise DataError(
            f"{folder} has {len(parts[0])} Python files to learn from and {len(parts[1])} held out; expected some of "
            "both, as in an installed standard library: some systems ship it compiled, or in a package of its own"
        )
    return Corpus(tuple(parts[0]), tuple(parts[1]), tuple(skipped))
