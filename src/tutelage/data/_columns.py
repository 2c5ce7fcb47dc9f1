"""Files of tables as named columns: CSV by the standard library, Parquet by pyarrow, npz by numpy without pickles."""

from __future__ import annotations

import contextlib
import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tutelage.data._text_tokens import log
from tutelage.errors import DamagedDataError, DataError
from tutelage.packages import importing

Columns = dict[str, np.ndarray]

_LONGEST_CELL = 2**31 - 1
_LOGICAL = ("true", "false")
_SEPARATORS = (";", "\t", "|", ",")


def read_columns(path: Path, keep: Sequence[str] = ()) -> Columns:
    """Return the columns of a table, in the order of the file; text where the file has text, dates among it.

    The index of a pandas data frame is left out, unless it is among the columns to `keep`, and that is logged.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a file; expected a table ({', '.join(READERS)})")
    if path.suffix.lower() not in READERS:
        raise DataError(f"{path.name} is a {path.suffix or 'nameless'} file; expected one of {sorted(READERS)}")
    columns, index = READERS[path.suffix.lower()](path)
    left_out = [name for name in columns if name in index and name not in keep]
    if left_out:
        log.warning("%s: left out %s, the index that pandas wrote", path.name, ", ".join(map(repr, left_out)))
    columns = {name: column for name, column in columns.items() if name not in left_out}
    rows = {name: len(column) for name, column in columns.items()}
    if not rows or max(rows.values()) == 0:
        raise DataError(f"{path.name} has no rows; expected a header and rows")
    if len(set(rows.values())) > 1:
        raise DataError(f"{path.name}: the columns have different lengths, {rows}; expected one value per row")
    return columns


def as_numbers(columns: Columns, names: Sequence[str], place: str) -> Tensor:
    """Return the named columns as float32 (rows, columns); `DataError` names the first cell that is no number."""
    made = []
    for name in names:
        column = columns[name]
        if column.dtype == object and (
            lists := [cell for cell in column if isinstance(cell, (dict, list, np.ndarray))]
        ):
            raise DataError(
                f"{place}: column {name!r} has several values in a row, {str(lists[0])[:40]}; expected one number: "
                "make a column of each, or leave it out of `features`"
            )
        if all(str(cell).strip().casefold() in _LOGICAL for cell in column.tolist()):
            column = np.array([str(cell).strip().casefold() == "true" for cell in column.tolist()])
        try:
            numbers = column.astype(np.float64)
        except (ValueError, TypeError) as error:
            row, cell = _first_without_number(column)
            if cell in ("", None):
                raise DataError(_missing(place, name, row)) from error
            raise DataError(
                f"{place}: column {name!r} has {str(cell)[:40]!r} in row {row}; expected numbers: encode the column, "
                "or leave it out of `features`"
            ) from error
        bad = np.flatnonzero(~np.isfinite(numbers))
        if len(bad):
            raise DataError(_missing(place, name, int(bad[0]) + 1, found=str(numbers[bad[0]])))
        made.append(torch.from_numpy(numbers).to(torch.float32))
        if not bool(made[-1].isfinite().all()):
            raise DataError(f"{place}: column {name!r} has numbers beyond float32; rescale it")
    return torch.stack(made, dim=1)


def _delimited(path: Path, separator: str) -> tuple[Columns, set[str]]:
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file, delimiter=separator, strict=True) if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DamagedDataError(f"{path.name} cannot be read as CSV in UTF-8: {error}") from error
    finally:
        csv.field_size_limit(limit)
    if not rows:
        raise DataError(f"{path.name} is empty; expected a header and rows")
    header = [name.strip() for name in rows[0]]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path.name}: the header names {twice} more than once; expected each column once")
    if len(header) == 1 and (other := next((sign for sign in _SEPARATORS if sign in header[0]), None)):
        raise DataError(
            f"{path.name}: the header is one column, {header[0][:60]!r}, and seems to be separated by {other!r}; "
            f"expected {separator!r} between columns in a {path.suffix} file, and a point in numbers: save it so"
        )
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise DataError(f"{path.name}: row {number} has {len(row)} cells; expected {len(header)}, as the header")
    return {name: _objects([row[i] for row in rows[1:]]) for i, name in enumerate(header)}, set()


def _parquet(path: Path) -> tuple[Columns, set[str]]:
    with importing(f"reading {path.name}", "tutelage[data]"):
        import pyarrow  # type: ignore[import-untyped]
        from pyarrow import parquet
    try:
        # Not read_table: to it a folder called split=train is a column.
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
        columns = {}
        for name, column in zip(table.column_names, table.columns, strict=True):
            if pyarrow.types.is_duration(column.type):
                column = column.cast(pyarrow.int64())
            elif pyarrow.types.is_temporal(column.type):
                column = column.cast(pyarrow.string())  # else a date would count as a number: of days, or nanoseconds
            # Nulls would make floats of whole numbers, and names of classes such as 3.0.
            array = column.to_numpy() if column.null_count == 0 else _objects(column.to_pylist())
            columns[name] = array
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DamagedDataError(f"{path.name} cannot be read as Parquet: {error}") from error
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise DataError(f"{path.name} has the columns {twice} more than once; expected each column once")
    return columns, _index_columns(table.schema)


def _index_columns(schema: Any) -> set[str]:
    """Return the columns of a Parquet file that are the index of a pandas data frame."""
    found = {name for name in schema.names if re.fullmatch(r"__index_level_\d+__", name)}
    with contextlib.suppress(ValueError, AttributeError, TypeError):  # metadata that pandas did not write
        written = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
        found |= {name for name in written.get("index_columns", []) if isinstance(name, str)}
    return found


def _objects(values: list[Any]) -> np.ndarray:
    return np.fromiter(values, dtype=object, count=len(values))


def _npz(path: Path) -> tuple[Columns, set[str]]:
    columns: Columns = {}
    try:
        # numpy leaves a file that it cannot read open, unless it was opened for it.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for name in arrays.files:
                array = arrays[name]
                if array.dtype.kind not in "biufSUMm":
                    raise DataError(f"{path.name}: the array {name!r} is {array.dtype}; expected numbers or text")
                if array.dtype.kind == "M":
                    array = array.astype(str)  # else a date would count as a number: of days, or nanoseconds
                if array.ndim == 1:
                    columns[name] = array
                elif array.ndim == 2:
                    columns |= {f"{name}[{i}]": array[:, i] for i in range(array.shape[1])}
                else:
                    raise DataError(
                        f"{path.name}: the array {name!r} has shape {array.shape}; expected one value or one row of "
                        "values per row: flatten it, or use a folder of images"
                    )
    except DataError:
        raise
    except Exception as error:  # the readers of zip, zlib and numpy raise what they like
        raise DamagedDataError(
            f"{path.name} cannot be read as npz without pickles ({error}); save plain arrays with numpy.savez"
        ) from error
    return columns, set()


READERS: Mapping[str, Callable[[Path], tuple[Columns, set[str]]]] = {
    ".csv": partial(_delimited, separator=","),
    ".tsv": partial(_delimited, separator="\t"),
    ".parquet": _parquet,
    ".npz": _npz,
}
"""Suffix -> what reads such a file: (its columns, those that are the index of a data frame)."""


def _first_without_number(column: np.ndarray) -> tuple[int, Any]:
    for row, cell in enumerate(column.tolist(), start=1):
        try:
            float(cell)
        except (ValueError, TypeError):
            return row, cell.strip() if isinstance(cell, str) else cell
    return 0, column.dtype


def _missing(place: str, name: str, row: int, found: str = "nothing") -> str:
    return f"{place}: column {name!r} has {found} in row {row}; expected a number: fill the gap, or leave the row out"
