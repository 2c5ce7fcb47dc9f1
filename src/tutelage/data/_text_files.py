"""Files of text as rows: JSON lines, Parquet, plain text, one of them or a folder or pattern of many."""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.data._columns import read_columns
from tutelage.errors import DamagedDataError, DataError, ParameterError

TextRow = dict[str, Any]


def read_rows(source: str | Path) -> list[TextRow]:
    """Return the rows of a file, of all files of a folder, or of those that fit a pattern such as `notes/**/*.txt`.

    .jsonl: an object on each line; .parquet: a row each; any other file: its text, in UTF-8, is one row {"text": ...}.
    Files are read in the order of their names. Errors: `DataError`, `DamagedDataError`, `MissingPackageError`.
    """
    rows = [row for file in _files(source) for row in _rows_of(file)]
    if not rows:
        raise DataError(f"{source} has no rows; expected texts, prompts with completions, or messages")
    return rows


def split_rows(rows: Sequence[Mapping[str, Any]], test_fraction: float) -> tuple[list[TextRow], list[TextRow]]:
    """Return (training rows, rows held out), told apart by what they hold.

    Equal rows go to one side, and neither order nor other rows change where one goes; so the fraction is met roughly.
    Errors: `ParameterError`, `DataError` if a side would be empty.
    """
    check_fraction(test_fraction)
    parts: tuple[list[TextRow], list[TextRow]] = ([], [])
    for row in rows:
        text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=str)
        parts[is_held_out(text.encode("utf-8", "surrogatepass"), test_fraction)].append(dict(row))
    if not all(parts):
        raise DataError(
            f"of {len(rows)} rows {len(parts[1])} would be held out with test_fraction={test_fraction:g}; expected "
            "some on both sides: give more rows, another fraction, or a file of test rows"
        )
    return parts


def is_held_out(content: bytes, test_fraction: float) -> bool:
    """Return whether a content is for testing, by its sha256 alone."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") < test_fraction * 2**64


def check_fraction(test_fraction: float) -> None:
    """Raise `ParameterError` unless the fraction leaves something on both sides."""
    if not 0 < test_fraction < 1:
        raise ParameterError(f"test_fraction={test_fraction!r}: expected a share between 0 and 1, such as 0.1")


def _files(source: str | Path) -> list[Path]:
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [file for file in path.rglob("*") if not any(p.startswith(".") for p in file.relative_to(path).parts)]
    else:
        found = [Path(name) for name in glob.glob(str(source), recursive=True)]
    files = sorted((file for file in found if file.is_file()), key=lambda file: file.as_posix())
    if not files:
        raise DataError(
            f"{source} is no file, no folder with files, and no pattern that fits any; expected one of these"
        )
    return files


def _rows_of(file: Path) -> Iterator[TextRow]:
    if file.suffix.lower() == ".parquet":
        columns = {name: column.tolist() for name, column in read_columns(file).items()}
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, map(_plain, values), strict=True))
        return
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DamagedDataError(f"{file.name} is not text in UTF-8: {error}; leave it out, or convert it") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    if file.suffix.lower() != ".jsonl":
        yield {"text": text}
        return
    # Not splitlines: JSON may hold the other signs that count as ends of lines there.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DamagedDataError(f"{file.name}:{number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f'{file.name}:{number} is {type(row).__name__}; expected an object, {{"text": ...}}')
        yield row


def _plain(value: Any) -> Any:
    """Return lists for the arrays that Parquet gives, at any depth: messages are lists of mappings."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return value
