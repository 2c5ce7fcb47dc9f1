"""Files of tables as named columns: CSV by the standard library, Parquet by pyarrow, npz by numpy without pickles."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tutelage.errors import DamagedDataError, DataError, MissingPackageError

Columns = dict[str, np.ndarray]


def read_columns(path: Path) -> Columns:
    """Return the columns of a table, in the order of the file; text where the file has text."""
    if not path.is_file():
        raise DataError(f"{path} is not a file; expected a table (.csv, .parquet or .npz)")
    if path.suffix.lower() not in READERS:
        raise DataError(f"{path.name} is a {path.suffix or 'nameless'} file; expected one of {sorted(READERS)}")
    columns = READERS[path.suffix.lower()](path)
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


def as_names(column: np.ndarray) -> list[str | None]:
    """Return the target's cells as names of classes, None where a cell is empty (or -100): its class is not known."""
    return [_name(cell) for cell in column.tolist()]


def _name(cell: Any) -> str | None:
    if cell is None or cell != cell:  # NaN
        return None
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    text = cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell)
    return None if text.strip() in ("", "-100") else text.strip()


def _csv(path: Path) -> Columns:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file, strict=True) if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DamagedDataError(f"{path.name} cannot be read as CSV in UTF-8: {error}") from error
    if not rows:
        raise DataError(f"{path.name} is empty; expected a header and rows")
    header = [name.strip() for name in rows[0]]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path.name}: the header names {twice} more than once; expected each column once")
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise DataError(f"{path.name}: row {number} has {len(row)} cells; expected {len(header)}, as the header")
    return {name: np.array([row[i] for row in rows[1:]], dtype=object) for i, name in enumerate(header)}


def _parquet(path: Path) -> Columns:
    try:
        import pyarrow  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"reading {path.name} takes pyarrow, which is not installed: pip install 'tutelage[data]'"
        ) from error
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DamagedDataError(f"{path.name} cannot be read as Parquet: {error}") from error
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        # Nulls would make floats of whole numbers, and names of classes such as 3.0.
        array = column.to_numpy() if column.null_count == 0 else np.array(column.to_pylist(), dtype=object)
        columns[name] = array
    return columns


def _npz(path: Path) -> Columns:
    columns: Columns = {}
    try:
        # numpy leaves a file that it cannot read open, unless it was opened for it.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for name in arrays.files:
                array = arrays[name]
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
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise DamagedDataError(
            f"{path.name} cannot be read as npz without pickles ({error}); save plain arrays with numpy.savez"
        ) from error
    return columns


READERS: Mapping[str, Callable[[Path], Columns]] = {".csv": _csv, ".parquet": _parquet, ".npz": _npz}


def _first_without_number(column: np.ndarray) -> tuple[int, Any]:
    for row, cell in enumerate(column.tolist(), start=1):
        try:
            float(cell)
        except (ValueError, TypeError):
            return row, cell.strip() if isinstance(cell, str) else cell
    return 0, column.dtype


def _missing(place: str, name: str, row: int, found: str = "nothing") -> str:
    return f"{place}: column {name!r} has {found} in row {row}; expected a number: fill the gap, or leave the row out"
