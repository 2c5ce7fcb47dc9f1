"""A table of numbers with one column to predict."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor

from tutelage.data._columns import Columns, as_numbers, read_columns
from tutelage.data._labels import class_names_of, spelled
from tutelage.data._parts import check_classes, divide, hold_out, sorted_names
from tutelage.data._rows import UNLABELLED, Data, Rows
from tutelage.data._text_tokens import log
from tutelage.errors import DataError

_UNNAMED = re.compile(r"|Unnamed: \d+(\.\d+|_level_\d+)?")
_ROWS_THAT_COUNT = 20


def table(
    path: Path,
    target: str,
    features: Sequence[str] | None = None,
    test: Path | None = None,
    test_fraction: float = 0.25,
    labeled: int | None = None,
    omit: Sequence[str | int] = (),
    missing: Sequence[str | int] | None = None,
    classes: Sequence[str] | None = None,
) -> Data:
    """Return a CSV, TSV, Parquet or npz table as data.

    target: the column to predict; an empty cell, null, NaN or -100 is a row without label, which the student sees and
    the teacher does not. features: the columns to predict it from, all others if None; numbers without gaps. test: a
    table of the same columns; without one, `test_fraction` of the labelled rows is held out, from each class its share.
    labeled: how many training rows keep their label for the student and its baseline, balanced by class. omit: classes
    of which the student sees no labelled row. missing: other labels that mean none; unless given, common marks of
    missing labels, such as -1 and NA, are an error. classes: their names in the order of the logits, for a table whose
    rows may all be without label; `test` is needed then. Errors: `DataError`, `DamagedDataError`,
    `MissingPackageError`.
    """
    columns = read_columns(path, keep=(target, *(features or ())))
    used = _features(columns, target, features, path.name)
    inputs = as_numbers(columns, used, path.name)
    _tell_row_numbers(inputs, used, path.name)
    names = class_names_of(columns[target].tolist(), f"{path.name}, column {target!r}", missing)
    unlabelled = all(name is None for name in names)
    if unlabelled and classes is not None and test is not None:
        known = tuple(classes)
    else:
        known = sorted_names({name for name in names if name is not None})
        check_classes(known, _labels(names, known), f"{path.name}, column {target!r}")
    labels = _labels(names, known)
    if test is None:
        count = round(test_fraction * int((labels != UNLABELLED).sum()))
        places, held = hold_out(labels, count)
        rows, test_rows = Rows(inputs, labels[places], places), Rows(inputs, labels[held], held)
    else:
        rows = Rows(inputs, labels, torch.arange(len(labels)))
        test_rows = _test_rows(test, target, used, known, missing)
    return divide(
        rows,
        test_rows,
        classes=known,
        shape=(len(used),),
        kind="table",
        features=tuple(used),
        labeled=labeled,
        omit=omit,
        needs_labels=classes is None,
    )


def _features(columns: Columns, target: str, features: Sequence[str] | None, place: str) -> list[str]:
    for name in (target, *(features or ())):
        if f"{name}[1]" in columns:
            raise DataError(
                f"{place}: the array {name!r} has several values per row; expected one: of one-hot rows save "
                f"{name}.argmax(1), or name one of its columns, {name + '[0]'!r} and so on"
            )
        if name not in columns:
            near = get_close_matches(name, columns, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {list(columns)[:20]}"
            raise DataError(f"{place} has no column {name!r}; {hint}")
    if features is not None and target in features:
        raise DataError(f"{place}: the target {target!r} stands among the features; a model would just read it off")
    used = [name for name in columns if name != target] if features is None else list(features)
    unnamed = [name for name in used if features is None and _UNNAMED.fullmatch(name)]
    if unnamed:
        raise DataError(
            f"{place}: column {list(columns).index(unnamed[0]) + 1} has the name {unnamed[0]!r}, as pandas writes an "
            "index; expected a name for each column: write the file with to_csv(index=False), remove the column, or "
            "name the columns to learn from in `features`"
        )
    if not used:
        raise DataError(f"{place} has no column beside the target {target!r}; expected columns to predict it from")
    return used


def _tell_row_numbers(inputs: Tensor, names: Sequence[str], place: str) -> None:
    """Log the columns that count the rows: in a table that is sorted by class they give the class away."""
    if len(inputs) < _ROWS_THAT_COUNT:
        return
    counting = (inputs.diff(dim=0) == 1).all(dim=0).tolist()
    found = [name for name, counts in zip(names, counting, strict=True) if counts]
    if found:
        log.warning(
            "%s: %s counts the rows; if it says nothing about them, leave it out of `features`",
            place,
            ", ".join(map(repr, found)),
        )


def _test_rows(
    path: Path, target: str, used: list[str], classes: tuple[str, ...], missing: Sequence[str | int] | None
) -> Rows:
    columns = read_columns(path, keep=(target, *used))
    _features(columns, target, used, path.name)
    names = class_names_of(columns[target].tolist(), f"{path.name}, column {target!r}", missing)
    known = {spelled(name) for name in classes}
    for row, name in enumerate(names, start=1):
        if name not in known:
            found = "no label" if name is None else f"the class {name!r}"
            raise DataError(f"{path.name}: row {row} has {found}; expected one of {list(classes)[:20]}")
    return Rows(as_numbers(columns, used, path.name), _labels(names, classes), torch.arange(len(names)))


def _labels(names: Sequence[str | None], classes: tuple[str, ...]) -> Tensor:
    number = {spelled(name): label for label, name in enumerate(classes)}
    return torch.tensor([UNLABELLED if name is None else number[name] for name in names], dtype=torch.int64)
