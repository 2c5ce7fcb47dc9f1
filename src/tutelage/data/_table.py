"""A table of numbers with one column to predict."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor

from tutelage.data._columns import Columns, as_names, as_numbers, read_columns
from tutelage.data._parts import check_classes, divide, hold_out, sorted_names
from tutelage.data._rows import UNLABELLED, Data, Rows
from tutelage.errors import DataError


def table(
    path: Path,
    target: str,
    features: Sequence[str] | None = None,
    test: Path | None = None,
    test_fraction: float = 0.25,
    labeled: int | None = None,
    omit: Sequence[str | int] = (),
) -> Data:
    """Return a CSV, Parquet or npz table as data.

    target: the column to predict; an empty cell is a row without label, which the student sees and the teacher does
    not. features: the columns to predict it from, all others if None; numbers without gaps. test: a table of the same
    columns; without one, `test_fraction` of the labelled rows is held out, from each class its share. labeled: how many
    training rows keep their label for the student and its baseline, balanced by class. omit: classes of which the
    student sees no labelled row. Errors: `DataError`, `DamagedDataError`, `MissingPackageError`.
    """
    columns = read_columns(path)
    used = _features(columns, target, features, path.name)
    inputs = as_numbers(columns, used, path.name)
    names = as_names(columns[target])
    classes = sorted_names({name for name in names if name is not None})
    labels = _labels(names, classes)
    check_classes(classes, labels, f"{path.name}, column {target!r}")
    if test is None:
        count = round(test_fraction * int((labels != UNLABELLED).sum()))
        places, held = hold_out(labels, count)
        rows, test_rows = Rows(inputs, labels[places], places), Rows(inputs, labels[held], held)
    else:
        rows = Rows(inputs, labels, torch.arange(len(labels)))
        test_rows = _test_rows(test, target, used, classes)
    return divide(
        rows,
        test_rows,
        classes=classes,
        shape=(len(used),),
        kind="table",
        features=tuple(used),
        labeled=labeled,
        omit=omit,
    )


def _features(columns: Columns, target: str, features: Sequence[str] | None, place: str) -> list[str]:
    for name in (target, *(features or ())):
        if name not in columns:
            near = get_close_matches(name, columns, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {list(columns)[:20]}"
            raise DataError(f"{place} has no column {name!r}; {hint}")
    if features is not None and target in features:
        raise DataError(f"{place}: the target {target!r} stands among the features; a model would just read it off")
    used = [name for name in columns if name != target] if features is None else list(features)
    if not used:
        raise DataError(f"{place} has no column beside the target {target!r}; expected columns to predict it from")
    return used


def _test_rows(path: Path, target: str, used: list[str], classes: tuple[str, ...]) -> Rows:
    columns = read_columns(path)
    _features(columns, target, used, path.name)
    names = as_names(columns[target])
    for row, name in enumerate(names, start=1):
        if name not in classes:
            found = "no label" if name is None else f"the class {name!r}"
            raise DataError(f"{path.name}: row {row} has {found}; expected one of {list(classes)[:20]}")
    return Rows(as_numbers(columns, used, path.name), _labels(names, classes), torch.arange(len(names)))


def _labels(names: Sequence[str | None], classes: tuple[str, ...]) -> Tensor:
    number = {name: label for label, name in enumerate(classes)}
    return torch.tensor([UNLABELLED if name is None else number[name] for name in names], dtype=torch.int64)
