"""Which files of text are meant by a file, a folder or a pattern: none of them unread, none of another kind."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePath

from tutelage.errors import DataError

PLAIN = frozenset(
    {
        *(".markdown", ".md", ".rst", ".tex", ".text", ".txt"),
        *(".c", ".cc", ".cpp", ".cs", ".css", ".go", ".h", ".hpp", ".java", ".jl", ".js", ".jsx", ".kt", ".lua"),
        *(".php", ".pl", ".py", ".pyi", ".r", ".rb", ".rs", ".scala", ".sh", ".sql", ".swift", ".ts", ".tsx"),
    }
)
"""Files that are one text each: prose and source code. Files of rows and markup are not among them."""

SPLITS = {
    **dict.fromkeys(("test", "tests", "testing"), "test"),
    **dict.fromkeys(("dev", "eval", "evaluation", "heldout", "holdout", "val", "valid", "validation"), "validation"),
}
_ABOUT = ("changelog", "citation", "contributing", "copying", "licence", "license", "notice", "readme")


def find_files(source: str | Path) -> list[Path]:
    """Return the file, the files of a folder and all folders in it, or those that fit a pattern, sorted by name.

    A folder holds files of one kind and one split, and nothing about the data; a pattern means every file that it fits.
    Names that begin with a dot are left out. Errors: `DataError`.
    """
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(_inside(path), key=lambda file: file.as_posix())
    else:
        found = sorted(
            (Path(name) for name in glob.glob(str(source), recursive=True)), key=lambda file: file.as_posix()
        )
        found = [file for file in found if not file.is_dir()]
    if not found:
        raise DataError(
            f"{source} is no file, no folder with files, and no pattern that fits any; expected one of these"
        )
    for file in found:
        if not file.is_file():
            raise DataError(f"{file} is no regular file; expected files only: move it away, or use a pattern")
    if path.is_dir():
        _check_alike(path, found)
    return found


def _inside(folder: Path) -> list[Path]:
    def stop(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error

    found: list[Path] = []
    for place, folders, files in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in files if not name.startswith(".")]
        # A link to a folder is not followed; as an entry it is refused.
        found += [Path(place, name) for name in folders if Path(place, name).is_symlink()]
    return found


def _check_alike(folder: Path, files: Sequence[Path]) -> None:
    """Raise `DataError` unless the files of a folder are of one kind and one split, and all of them data."""
    came = None
    data = [file for file in files if file.stem.lower() not in _ABOUT]
    if data and len(data) < len(files):
        came = f"{_inner(folder, next(file for file in files if file not in data))} among its data"
    for what, of in (("kinds", _kind), ("splits", _split)):
        groups = {of(file.relative_to(folder)): _inner(folder, file) for file in reversed(data)}
        if len(groups) > 1 and came is None:
            one, other = sorted(groups.values())[:2]
            came = f"files of several {what}, {one} and {other} among them"
    if came is not None:
        raise DataError(
            f"{folder} holds {came}; expected data of one kind and split: move the others away, or name what is meant "
            f"by a pattern, such as {_pattern(folder, data, files)}"
        )


def _pattern(folder: Path, data: Sequence[Path], files: Sequence[Path]) -> str:
    """Return a pattern for data of one kind and split, those to train on if there are any; it fits no other file."""
    splits = {file: _split(file.relative_to(folder)) for file in data}
    first = min(data, key=lambda file: (splits[file], _kind(file) in ("plain", ".json")))
    others = [file for file in files if file.suffix == first.suffix and splits.get(file) != splits[first]]
    if not others:
        return f"{folder.as_posix()}/**/*{first.suffix}"
    if all(other.parent != first.parent for other in others):
        return f"{first.parent.as_posix()}/*{first.suffix}"
    return f"{first.parent.as_posix()}/{re.sub('[0-9]+', '*', first.name)}"


def _kind(file: PurePath) -> str:
    suffix = file.suffix.lower()
    return "plain" if suffix in PLAIN else {".ndjson": ".jsonl"}.get(suffix, suffix)


def _split(file: PurePath) -> str:
    """Return the split that a name says it is of: by its first or last word, or that of a folder; "" for training."""
    for part in (*file.parent.parts, file.name.split(".")[0], file.stem):
        words = re.findall(r"[a-z]+", part.lower())
        for word in words[:1] + words[-1:]:
            if word in SPLITS:
                return SPLITS[word]
    return ""


def _inner(folder: Path, file: Path) -> str:
    return file.relative_to(folder).as_posix()
