"""What a report tells of, as values: a run, its networks, and what is kept of their answers, by the kind of task.

Legend: n rows, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tutelage.run_folder import BASELINE, STUDENT, TEACHER, RunFolder

if TYPE_CHECKING:
    from tutelage.report._task import Task

Log = Mapping[str, float]


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
    logs: tuple[Log, ...]
    latency: Mapping[str, float]
    """Milliseconds, by batch size."""
    train_seconds: float | None


@dataclass(frozen=True, eq=False)
class Answers:
    """What classifiers answer on the test rows."""

    kind: str
    classes: tuple[str, ...]
    features: tuple[str, ...]
    labels: np.ndarray
    """(n,); empty where no arm is finished."""
    inputs: np.ndarray | None
    """(n, ...), float64; None where the folder does not keep them."""
    logits: Mapping[Arm, np.ndarray]
    """(n, C), float64, of each finished arm."""
    texts: tuple[str, ...] | None = None
    """(n): the texts, where rows are texts and the folder keeps them."""


@dataclass(frozen=True)
class Passage:
    """A held-out piece of text as language models read it, in nats; None where nothing predicts the token.

    seed: of the students.
    """

    seed: int
    tokens: tuple[str, ...]
    nll: Mapping[str, tuple[float | None, ...]]
    """By role: -log of the probability of each token."""
    kl: Mapping[str, tuple[float | None, ...]]
    """By role: how far the distribution that predicts each token is from the teacher's. Empty without a teacher."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run as its folder tells it. answers: of classifiers; passage: of language models."""

    folder: RunFolder
    task: Task
    name: str
    status: str
    rows: Mapping[str, int]
    tokens: Mapping[str, int]
    """Like `rows`; empty where there are none."""
    vocabulary: float | None
    seeds: tuple[int, ...]
    seconds: float | None
    environment: Mapping[str, str]
    recipe: str
    teacher: Arm | None
    arms: tuple[Arm, ...]
    partial: Mapping[str, tuple[tuple[Log, ...], ...]]
    """The logs of arms that are not finished, by name."""
    missing: tuple[str, ...]
    answers: Answers | None
    passage: Passage | None

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
