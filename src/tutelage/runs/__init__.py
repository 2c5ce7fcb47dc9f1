"""A recipe carried out: teacher, students and baselines of all seeds, trained and scored, in a folder of their own.

plan = prepare(recipe, folder)                 # what will be done; nothing is written
summary = run(recipe, folder, on_event=print)  # does it
summary = run(None, folder, resume=True)       # goes on after an interruption, to the same bytes
scores = evaluate(folder)                      # scores the networks of a folder anew
"""

from __future__ import annotations

from tutelage.packages import importing

with importing("running recipes", "tutelage[train]"):
    from tutelage.runs._evaluate import evaluate
    from tutelage.runs._events import (
        ArmDone,
        ArmStarted,
        Event,
        Finished,
        Interrupted,
        Note,
        Progress,
        RunSummary,
        Started,
        Stopping,
        TeacherFitted,
        TeacherReused,
    )
    from tutelage.runs._plan import Plan, prepare
    from tutelage.runs._run import run

__all__ = [
    "ArmDone",
    "ArmStarted",
    "Event",
    "Finished",
    "Interrupted",
    "Note",
    "Plan",
    "Progress",
    "RunSummary",
    "Started",
    "Stopping",
    "TeacherFitted",
    "TeacherReused",
    "evaluate",
    "prepare",
    "run",
]
