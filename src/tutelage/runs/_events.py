"""What a run tells while it goes on. seed: None for the teacher, whose arm is called "teacher"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tutelage.runs._plan import Plan


@dataclass(frozen=True)
class RunSummary:
    """What a run came to.

    status: "complete" or "interrupted"; scores: those of the run, as in its scores.json; signal: the one that
    interrupted it.
    """

    folder: Path
    status: str
    scores: Mapping[str, Any]
    seconds: float
    signal: int | None = None


class Event:
    """Something that happened in a run."""


@dataclass(frozen=True)
class Started(Event):
    """The folder is there, and work begins."""

    plan: Plan


@dataclass(frozen=True)
class TeacherReused(Event):
    """The teacher needs no fit. source: "cache", "weights", or "run" for that of an interrupted run."""

    source: str
    folder: Path


@dataclass(frozen=True)
class TeacherFitted(Event):
    """The teacher was trained on its labels. kept: where it lies for the next run, None if it could not be kept."""

    seconds: float
    kept: Path | None


@dataclass(frozen=True)
class ArmStarted(Event):
    """A network begins to train, for this many optimiser steps; resumed_at: the step at which it goes on, or 0."""

    seed: int | None
    arm: str
    steps: int
    resumed_at: int = 0


@dataclass(frozen=True)
class Progress(Event):
    """A network has come to this step; logs: the loss and its terms, as means since the last one."""

    seed: int | None
    arm: str
    step: int
    steps: int
    logs: Mapping[str, float]


@dataclass(frozen=True)
class ArmDone(Event):
    """A network is trained and scored; scores: as in its scores.json. reused: it was so before this session."""

    seed: int | None
    arm: str
    scores: Mapping[str, Any]
    reused: bool = False


@dataclass(frozen=True)
class Note(Event):
    """Something that was set right, and that whoever runs this should know."""

    text: str


@dataclass(frozen=True)
class Stopping(Event):
    """A signal came: the step is being finished and saved."""


@dataclass(frozen=True)
class Interrupted(Event):
    """The run stopped, and can be resumed from its folder."""

    folder: Path


@dataclass(frozen=True)
class Finished(Event):
    """All is done."""

    summary: RunSummary
