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

_SPLITS = {
    **dict.fromkeys(("test", "tests", "testing"), "test"),
    **dict.fromkeys(("dev", "eval", "evaluation", "heldout", "val", "valid", "validation"), "validation"),
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
    for file in files:
        if file.stem.lower() in _ABOUT and len(files) > 1:
            other = next(other for other in files if other != file)
            raise _not_alike(folder, f"{_inner(folder, file)} among its texts", f"**/*{other.suffix}")
    for what, of in (("kinds", _kind), ("splits", _split)):
        groups = {of(file.relative_to(folder)): file for file in reversed(files)}
        if len(groups) > 1:
            one, other = sorted(groups.values())[:2]
            begin = "**/" if of is _kind else re.split(r"[^A-Za-z]", _inner(folder, one))[0]
            came = f"files of several {what}, {_inner(folder, one)} and {_inner(folder, other)} among them"
            raise _not_alike(folder, came, f"{begin}*{one.suffix}")


def _not_alike(folder: Path, came: str, pattern: str) -> DataError:
    return DataError(
        f"{folder} holds {came}; expected data of one kind and split: move the others away, or name what is meant by a "
        f"pattern, such as {folder.as_posix()}/{pattern}"
    )


def _kind(file: PurePath) -> str:
    suffix = file.suffix.lower()
    return "plain" if suffix in PLAIN else {".ndjson": ".jsonl"}.get(suffix, suffix)


def _split(file: PurePath) -> str:
    """Return the split that a name says it is of: by its first or last word, or that of a folder; "" for training."""
    for part in (*file.parent.parts, file.name.split(".")[0], file.stem):
        words = re.findall(r"[a-z]+", part.lower())
        for word in words[:1] + words[-1:]:
            if word in _SPLITS:
                return _SPLITS[word]
    return ""


def _inner(folder: Path, file: Path) -> str:
    return file.relative_to(folder).as_posix()
