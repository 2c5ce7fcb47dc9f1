"""Reads the folder of a run into one value, and refuses what does not fit together: a report must not guess.

An arm that was trained to its end has scores; then all its other files must be there, too. Legend: n rows, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.errors import DamagedDataError
from tutelage.run_folder import (
    BASELINE,
    COMPLETE,
    STUDENT,
    TEACHER,
    ArmFolder,
    RunFolder,
    read_arrays,
    read_json,
    read_lines,
)

Log = Mapping[str, float]

_SCORES = ("rows", "errors", "accuracy", "nll", "brier", "ece", "parameters", "bytes")


@dataclass(frozen=True)
class Omitted:
    """A class without any image in the transfer set: how many of its test rows are known all the same."""

    rows: int
    known: int
    known_with_bias: int


@dataclass(frozen=True, eq=False)
class Arm:
    """One network that was trained to its end. seed: None for the teacher."""

    name: str
    seed: int | None
    scores: Mapping[str, float]
    omitted: Mapping[str, Omitted]
    logits: np.ndarray
    """(n, C), float64."""
    logs: tuple[Log, ...]
    latency: Mapping[str, float]
    """Milliseconds, by batch size."""
    train_seconds: float | None


@dataclass(frozen=True, eq=False)
class Run:
    """What a report tells of."""

    folder: RunFolder
    name: str
    status: str
    kind: str
    classes: tuple[str, ...]
    features: tuple[str, ...]
    rows: Mapping[str, int]
    seeds: tuple[int, ...]
    seconds: float | None
    environment: Mapping[str, str]
    recipe: str
    teacher: Arm | None
    arms: tuple[Arm, ...]
    partial: Mapping[str, tuple[tuple[Log, ...], ...]]
    """The logs of arms that are not finished, by name."""
    labels: np.ndarray | None
    """(n,), of the test rows; None where no arm is finished."""
    inputs: np.ndarray | None
    """(n, ...), float64; None where the folder does not keep them."""
    missing: tuple[str, ...]

    def of(self, name: str) -> list[Arm]:
        """Return the finished arms of one name: one for each seed, one for the teacher."""
        if name == TEACHER:
            return [] if self.teacher is None else [self.teacher]
        return [arm for arm in self.arms if arm.name == name]

    @property
    def names(self) -> list[str]:
        """The roles that have a finished arm, in the order in which they are shown."""
        return [name for name in (TEACHER, STUDENT, BASELINE) if self.of(name)]

    def logs(self, name: str) -> list[tuple[Log, ...]]:
        """Return the logs of one role: those of its finished arms, or, before there is one, of those that train."""
        return [arm.logs for arm in self.of(name) if arm.logs] or list(self.partial.get(name, ()))


def read_run(path: Path) -> Run:
    """Read a folder. Errors: `RunFolderError` where there is no run, `DamagedDataError` for a file that is damaged."""
    folder = RunFolder.open(path)
    record = _Reader(folder.record, read_json(folder.record, ("status", "recipe", "seeds", "arms", "classes", "kind")))
    classes = record.texts("classes")
    names = record.texts("arms")
    seeds = tuple(int(seed) for seed in record.items("seeds", int))
    teacher, arms, partial, missing = None, [], dict[str, list[tuple[Log, ...]]](), []
    labels: list[tuple[Path, np.ndarray]] = []
    if folder.teacher.done:
        teacher, its_labels = _arm(TEACHER, None, folder.teacher, len(classes))
        labels.append((folder.teacher.evaluation, its_labels))
    elif record.text("status") != COMPLETE:
        missing.append("the teacher")
    for seed in seeds:
        for name in (name for name in names if name != TEACHER):
            place = folder.arm(seed, name)
            if place.done:
                arm, its_labels = _arm(name, seed, place, len(classes))
                arms.append(arm)
                labels.append((place.evaluation, its_labels))
                continue
            missing.append(f"the {name} of seed {seed}")
            if place.metrics.is_file():
                partial.setdefault(name, []).append(_logs(place.metrics))
    for file, its_labels in labels:
        if not np.array_equal(its_labels, labels[0][1]):
            raise DamagedDataError(f"{file} has other labels than {labels[0][0]}; all arms answer the same test rows")
    known = labels[0][1] if labels else None
    return Run(
        folder=folder,
        name=record.text("recipe"),
        status=record.text("status"),
        kind=record.text("kind"),
        classes=classes,
        features=record.texts("features") if record.value.get("features") else (),
        rows=record.values("rows", int) if "rows" in record.value else {},
        seeds=seeds,
        seconds=record.number("seconds") if record.value.get("seconds") is not None else None,
        environment=_environment(folder.environment),
        recipe=folder.recipe.read_text(encoding="utf-8", errors="replace") if folder.recipe.is_file() else "",
        teacher=teacher,
        arms=tuple(arms),
        partial={name: tuple(logs) for name, logs in partial.items()},
        labels=known,
        inputs=None if known is None else _inputs(folder.test, known),
        missing=tuple(missing),
    )


def _arm(name: str, seed: int | None, place: ArmFolder, classes: int) -> tuple[Arm, np.ndarray]:
    scores = _Reader(place.scores, read_json(place.scores, _SCORES))
    arrays = read_arrays(place.evaluation, ("logits", "labels"))
    logits, labels = arrays["logits"], arrays["labels"]
    if logits.ndim != 2 or logits.shape[1] != classes or labels.shape != logits.shape[:1] or not len(labels):
        raise DamagedDataError(
            f"{place.evaluation} has logits {logits.shape} and labels {labels.shape}; "
            f"expected (rows, {classes}) and (rows,), as run.json names {classes} classes"
        )
    if not np.isfinite(logits).all():
        raise DamagedDataError(f"{place.evaluation} has logits that are NaN or infinite; evaluate the run again")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
        raise DamagedDataError(f"{place.evaluation} has labels outside 0 to {classes - 1}; evaluate the run again")
    timing = _Reader(place.timing, read_json(place.timing) if place.timing.is_file() else {})
    omitted = scores.values("omitted", dict) if scores.value.get("omitted") else {}
    arm = Arm(
        name=name,
        seed=seed,
        scores={key: scores.number(key) for key in scores.value if key != "omitted"},
        omitted={key: _omitted(place.scores, key, value) for key, value in omitted.items()},
        logits=logits.astype(np.float64),
        logs=_logs(place.metrics) if place.metrics.is_file() else (),
        latency=timing.values("latency_ms", (int, float)) if "latency_ms" in timing.value else {},
        train_seconds=timing.number("train_seconds") if timing.value.get("train_seconds") is not None else None,
    )
    return arm, labels.astype(np.int64)


def _omitted(file: Path, name: str, value: Mapping[str, Any]) -> Omitted:
    reader = _Reader(file, value)
    rows, known, known_with_bias = (int(reader.number(key)) for key in ("rows", "known", "known_with_bias"))
    if not 0 <= known <= rows or not 0 <= known_with_bias <= rows:
        raise DamagedDataError(
            f"{file}: omitted.{name} knows {known} and {known_with_bias} of {rows} rows; expected at most all of them"
        )
    return Omitted(rows, known, known_with_bias)


def _logs(file: Path) -> tuple[Log, ...]:
    logs = []
    for number, line in enumerate(read_lines(file), start=1):
        reader = _Reader(Path(f"{file}:{number}"), line)
        logs.append({key: reader.number(key) for key in line})
        if "step" not in line:
            raise DamagedDataError(f"{file}:{number} lacks 'step'; it has {sorted(line)}")
    return tuple(logs)


def _environment(file: Path) -> dict[str, str]:
    return {key: str(value) for key, value in read_json(file).items()} if file.is_file() else {}


def _inputs(file: Path, labels: np.ndarray) -> np.ndarray | None:
    if not file.is_file():
        return None
    arrays = read_arrays(file, ("inputs", "labels"))
    if len(arrays["inputs"]) != len(labels) or not np.array_equal(arrays["labels"], labels):
        raise DamagedDataError(
            f"{file} has {len(arrays['inputs'])} rows; expected the {len(labels)} that were evaluated, in their order"
        )
    return arrays["inputs"].astype(np.float64)


@dataclass(frozen=True)
class _Reader:
    """A JSON object that names its file when a value is not of the kind that it should be."""

    file: Path
    value: Mapping[str, Any]

    def number(self, key: str) -> float:
        value = self.value.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise DamagedDataError(f"{self.file}: {key} is {value!r}; expected a number")
        return float(value)

    def text(self, key: str) -> str:
        value = self.value.get(key)
        if not isinstance(value, str):
            raise DamagedDataError(f"{self.file}: {key} is {value!r}; expected a text")
        return value

    def items(self, key: str, kind: type) -> list[Any]:
        value = self.value.get(key)
        if not isinstance(value, list) or not all(_is(item, kind) for item in value):
            raise DamagedDataError(f"{self.file}: {key} is {value!r}; expected a list of {kind.__name__}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(str(item) for item in self.items(key, object))

    def values(self, key: str, kind: type | tuple[type, ...]) -> dict[str, Any]:
        value = self.value.get(key)
        if not isinstance(value, dict) or not all(_is(item, kind) for item in value.values()):
            kinds = "objects" if kind is dict else "numbers"
            raise DamagedDataError(f"{self.file}: {key} is {value!r}; expected an object of {kinds}")
        return {str(name): item for name, item in value.items()}


def _is(item: object, kind: type | tuple[type, ...]) -> bool:
    """Whether JSON held this kind: to Python, true and false are whole numbers, too."""
    return isinstance(item, kind) and (kind is object or not isinstance(item, bool))
