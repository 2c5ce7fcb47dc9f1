"""Files of text as rows: JSON, Parquet, CSV, plain text, one of them or a folder or pattern of many."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.data._columns import READERS, read_columns
from tutelage.data._fields import check_unicode
from tutelage.data._find import PLAIN, find_files
from tutelage.errors import DamagedDataError, DataError, ParameterError

TextRow = dict[str, Any]

_READ = ("text", "prompt", "completion", "messages")
_DEPTH = 50


def read_rows(source: str | Path) -> list[TextRow]:
    """Return the rows of a file, of all files of a folder, or of those that fit a pattern such as `notes/**/*.txt`.

    .jsonl, .ndjson: an object on each line; .json: an array of objects, or lines; .parquet, .csv, .tsv: a row each; the
    text of a plain file (`PLAIN`), in UTF-8, is one row {"text": ...}. Other files are an error. A folder holds files
    of one kind and one split. Files are read in the order of their names. Errors: `DataError`, `DamagedDataError`,
    `MissingPackageError`.
    """
    rows = [row for file in find_files(source) for row in _rows_of(file)]
    if not rows:
        raise DataError(f"{source} has no rows; expected texts, prompts with completions, or messages")
    return rows


def split_rows(rows: Sequence[Mapping[str, Any]], test_fraction: float) -> tuple[list[TextRow], list[TextRow]]:
    """Return (training rows, rows held out), told apart by their text, prompt and completion, or messages.

    Equal ones go to one side, and neither order nor other rows change where one goes; so the fraction is met roughly.
    Errors: `ParameterError`, `DataError` if a side would be empty.
    """
    check_fraction(test_fraction)
    parts: tuple[list[TextRow], list[TextRow]] = ([], [])
    for row in rows:
        content = {name: row[name] for name in _READ if name in row} or row
        text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
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


def _rows_of(file: Path) -> Iterable[TextRow]:
    suffix = file.suffix.lower()
    if suffix in PLAIN:
        return [{"text": _text(file)}]
    if suffix in (".jsonl", ".ndjson"):
        return _lines(file, _text(file))
    if suffix == ".json":
        return _json(file, _text(file))
    if suffix in READERS and suffix != ".npz":
        return _table(file)
    packed = suffix in (".bz2", ".gz", ".tar", ".xz", ".zip", ".zst")
    remedy = "unpack it first" if packed else "convert it, or rename it to .txt if it is plain text"
    raise DataError(
        f"{file} is a {suffix or 'nameless'} file; expected rows (.jsonl, .ndjson, .json, .parquet, .csv, .tsv) or "
        f"plain text ({', '.join(sorted(PLAIN)[:6])} and others): {remedy}"
    )


def _text(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DamagedDataError(f"{file.name} is not text in UTF-8: {error}; leave it out, or convert it") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    if "\0" in text:
        raise DamagedDataError(f"{file.name} has bytes of 0, as UTF-16 or a binary file; expected UTF-8: convert it")
    return text


def _lines(file: Path, text: str) -> Iterator[TextRow]:
    # Not splitlines: JSON may hold the other signs that count as ends of lines there.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{file.name}:{number}"
            yield _row(_parsed(line, place), place)


def _json(file: Path, text: str) -> Iterable[TextRow]:
    """Return the objects of an array, or of lines, as many a .json file has them."""
    if not text.lstrip().startswith("["):
        if text.lstrip().partition("\n")[0].rstrip() == "{":
            raise DataError(
                f"{file.name} is one object over several lines; expected an array of objects, or one a line"
            )
        return _lines(file, text)
    rows = _parsed(text, file.name)
    return [_row(row, f"{file.name}, row {number}") for number, row in enumerate(rows, start=1)]


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise DamagedDataError(f"{place} is no JSON: {error}") from error


def _object(pairs: list[tuple[str, Any]]) -> TextRow:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = next(name for place, (name, _) in enumerate(pairs) if name in dict(pairs[:place]))
        raise ValueError(f"{twice!r} comes twice in an object")
    return made


def _row(row: Any, place: str) -> TextRow:
    if not isinstance(row, dict):
        raise DataError(f'{place} is {type(row).__name__}; expected an object, {{"text": ...}}')
    _check(row, place, _DEPTH)
    return row


def _check(value: Any, place: str, depth: int) -> None:
    """Raise `DataError` for text that has no UTF-8, and for what is nested deeper than anything that is meant."""
    if isinstance(value, str):
        check_unicode(value, place)
    elif isinstance(value, (dict, list)):
        if depth == 0:
            raise DataError(f"{place} is nested more than {_DEPTH} deep; expected text, or messages")
        for part in (*value, *value.values()) if isinstance(value, dict) else value:
            _check(part, place, depth - 1)


def _table(file: Path) -> Iterator[TextRow]:
    columns = {name: column.tolist() for name, column in read_columns(file).items()}
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, map(_plain, values), strict=True))


def _plain(value: Any) -> Any:
    """Return lists for the arrays that Parquet gives, at any depth: messages are lists of mappings."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return value
