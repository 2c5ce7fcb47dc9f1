"""The files that tell of a run as a whole: run.json, environment.json, the scores over all seeds."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import torch
import transformers

import tutelage
from tutelage.run_folder import BASELINE, RUNNING, STUDENT, TEACHER, RunFolder, read_json, write_json
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
        **plan.subject.record(),
        "data": plan.subject.digest(of_all=True),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
    }


def update(folder: RunFolder, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Change run.json, and return it."""
    changed = {**read_json(folder.record), **changes}
    write_json(folder.record, changed)
    return changed


def write_scores(folder: RunFolder, measure: str) -> dict[str, Any]:
    """Write the scores over the seeds that are done in all arms, and return them. measure: what gaps are told by."""
    known = read_json(folder.record, keys=("seeds", "arms"))
    seeds = [s for s in known["seeds"] if all(folder.arm(s, arm).done for arm in known["arms"])]
    arms = {
        arm: [read_json(folder.arm(seed, arm).scores) for seed in seeds]
        for arm in (STUDENT, BASELINE)[: len(known["arms"])]
    }
    teacher = [read_json(folder.teacher.scores)] if folder.teacher.done else []
    scores = run_scores({TEACHER: teacher, **arms}, measure)
    write_json(folder.scores, scores)
    return scores
