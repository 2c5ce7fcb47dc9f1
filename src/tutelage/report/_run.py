"""Reads the folder of a run into one value, and refuses what does not fit together: a report must not guess.

An arm that was trained to its end has scores; then all its other files must be there, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.errors import DamagedDataError
from tutelage.records import check_arm, check_done, check_run, read_record
from tutelage.report._classification import Classification
from tutelage.report._contents import Arm, Log, Omitted, Run
from tutelage.report._files import Reader, environment, logs
from tutelage.report._language import Language, MaskedLanguage
from tutelage.report._task import Task
from tutelage.run_folder import COMPLETE, TEACHER, ArmFolder, RunFolder, read_json

_TASKS: Mapping[str, Task] = {
    "classification": Classification(),
    "causal_lm": Language(),
    "masked_lm": MaskedLanguage(),
    "sequence_classification": Classification(),
}
"""What the kinds of task have of their own. Nothing else asks which one it is."""


def read_run(path: Path) -> Run:
    """Read a folder. Errors: `RunFolderError` where there is no run, `DamagedDataError` for a file that is damaged."""
    folder = RunFolder.open(path)
    known = read_record(folder, ("status", "recipe", "seeds", "arms"))
    check_run(folder, known)
    check_done(folder, known)
    record = Reader(folder.record, known)
    task = _task(record)
    names = record.texts("arms")
    seeds = tuple(int(seed) for seed in record.items("seeds", int))
    for place in (folder.teacher, *(folder.arm(seed, name) for seed in seeds for name in names)):
        if place.done:
            check_arm(folder, place, known, model=False)
    latency = _latency(folder.latency)
    teacher, arms, partial, missing = None, [], dict[str, list[tuple[Log, ...]]](), []
    if folder.teacher.done:
        teacher = _arm(TEACHER, None, folder.teacher, task, latency)
    elif record.text("status") != COMPLETE:
        missing.append("the teacher")
    for seed in seeds:
        for name in (name for name in names if name != TEACHER):
            place = folder.arm(seed, name)
            if place.done:
                arms.append(_arm(name, seed, place, task, latency))
                continue
            missing.append(f"the {name} of seed {seed}")
            if place.metrics.exists():
                partial.setdefault(name, []).append(logs(place.metrics))
    every = [*([] if teacher is None else [teacher]), *arms]
    return Run(
        folder=folder,
        task=task,
        name=record.text("recipe"),
        status=record.text("status"),
        rows=record.values("rows", int) if "rows" in record.value else {},
        tokens=record.values("tokens", int) if "tokens" in record.value else {},
        vocabulary=record.number("vocabulary") if record.value.get("vocabulary") is not None else None,
        seeds=seeds,
        seconds=record.number("seconds") if record.value.get("seconds") is not None else None,
        environment=environment(folder.environment),
        recipe=folder.recipe.read_text(encoding="utf-8", errors="replace") if folder.recipe.is_file() else "",
        teacher=teacher,
        arms=tuple(arms),
        partial={name: tuple(of_name) for name, of_name in partial.items()},
        missing=tuple(missing),
        answers=task.answers(folder, record, every),
        passage=task.passage(folder),
    )


def _task(record: Reader) -> Task:
    """Return the task of a run; the first runs had one kind alone, and did not say so."""
    name = record.text("task") if "task" in record.value else "classification"
    if name not in _TASKS:
        raise DamagedDataError(f"{record.file}: task is {name!r}; expected one of {', '.join(_TASKS)}")
    return _TASKS[name]


def _latency(file: Path) -> dict[str, Mapping[str, float]]:
    """Return the milliseconds of an answer by role and batch size, as far as they were measured."""
    told = Reader(file, read_json(file) if file.exists() else {})
    return {name: told.values(name, (int, float)) for name in told.value}


def _arm(name: str, seed: int | None, place: ArmFolder, task: Task, latency: Mapping[str, Mapping[str, float]]) -> Arm:
    scores = Reader(place.scores, read_json(place.scores, task.scores))
    timing = Reader(place.timing, read_json(place.timing) if place.timing.exists() else {})
    omitted = scores.values("omitted", dict) if scores.value.get("omitted") else {}
    return Arm(
        name=name,
        seed=seed,
        scores={key: scores.number(key) for key in scores.value if key != "omitted"},
        omitted={key: _omitted(place.scores, key, value) for key, value in omitted.items()},
        logs=logs(place.metrics) if place.metrics.exists() else (),
        latency=latency.get(name)
        or (timing.values("latency_ms", (int, float)) if "latency_ms" in timing.value else {}),
        train_seconds=timing.number("train_seconds") if timing.value.get("train_seconds") is not None else None,
    )


def _omitted(file: Path, name: str, value: Mapping[str, Any]) -> Omitted:
    reader = Reader(file, value)
    rows, known, known_with_bias = (int(reader.number(key)) for key in ("rows", "known", "known_with_bias"))
    if not 0 <= known <= rows or not 0 <= known_with_bias <= rows:
        raise DamagedDataError(
            f"{file}: omitted.{name} knows {known} and {known_with_bias} of {rows} rows; expected at most all of them"
        )
    return Omitted(rows, known, known_with_bias)
