"""The files that tell of a run as a whole: run.json, environment.json, the scores over all seeds."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers

import tutelage
from tutelage.records import read_record, write_record
from tutelage.run_folder import BASELINE, RUNNING, STUDENT, TEACHER, ArmFolder, RunFolder, read_json, write_json
from tutelage.runs._plan import Plan
from tutelage.runs._scores import run_scores


def environment(plan: Plan) -> dict[str, Any]:
    """Return what a run depends on beside its recipe."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tutelage": tutelage.__version__,
        "platform": platform.platform(),
        "threads": plan.threads,
        "device": plan.device,
    }


def record(plan: Plan) -> dict[str, Any]:
    """Return run.json as it is at the start."""
    return {
        "status": RUNNING,
        "recipe": plan.name,
        "task": plan.recipe.task,
        "seeds": list(plan.seeds),
        "arms": list(plan.arms),
        TEACHER: plan.recipe.teacher is not None,
        **plan.subject.record(),
        "data": plan.subject.digest(of_all=True),
        "files": {},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
    }


def update(
    folder: RunFolder, changes: Mapping[str, Any], files: Iterable[Path] = (), *, forget: bool = False
) -> dict[str, Any]:
    """Change run.json, and return it. files: those of the run as a whole that are new; or, forget, that will be."""
    changed = {**read_record(folder), **changes}
    if forget and "files" in changed:
        names = {file.name for file in files}
        changed["files"] = {name: entry for name, entry in changed["files"].items() if name not in names}
    write_record(folder, changed, () if forget else files)
    return changed


def write_scores(folder: RunFolder, measure: str) -> dict[str, Any]:
    """Write the scores over the seeds that are done in all arms, and return them. measure: what gaps are told by."""
    known = read_record(folder, keys=("seeds", "arms"))
    done = {arm: read_json(arm.scores) for arm in (folder.teacher, *arms_of(folder, known)) if arm.done}
    scores = scores_over_seeds(folder, known, done, measure)
    write_json(folder.scores, scores)
    return scores


def arms_of(folder: RunFolder, known: Mapping[str, Any]) -> list[ArmFolder]:
    """Return the folders of all students and baselines of a run. known: its run.json."""
    return [folder.arm(seed, arm) for seed in known["seeds"] for arm in known["arms"]]


def scores_over_seeds(
    folder: RunFolder, known: Mapping[str, Any], found: Mapping[ArmFolder, Mapping[str, Any]], measure: str
) -> dict[str, Any]:
    """Return the scores of a run from those of its networks, over the seeds that have them for all arms."""
    seeds = [seed for seed in known["seeds"] if all(folder.arm(seed, arm) in found for arm in known["arms"])]
    arms = {arm: [found[folder.arm(seed, arm)] for seed in seeds] for arm in (STUDENT, BASELINE)[: len(known["arms"])]}
    teacher = [found[folder.teacher]] if folder.teacher in found else []
    return run_scores({TEACHER: teacher, **arms}, measure)
