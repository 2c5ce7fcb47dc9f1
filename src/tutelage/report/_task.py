"""What a kind of task has of its own: what is read of its runs, which scores count, the words, pictures of its own.

Everything else about a report is written once, and asks the run's task for these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tutelage.report._contents import Answers, Arm, Passage, Run
from tutelage.report._files import Reader
from tutelage.report._measures import Spread
from tutelage.report._style import Picture
from tutelage.report._words import Headline, Metric
from tutelage.run_folder import RunFolder


@dataclass(frozen=True)
class Watched:
    """A score that evaluations log over steps; reading: how its panel is read, without the full stop."""

    key: str
    title: str
    reading: str
    percent: bool = False


@dataclass(frozen=True)
class Section:
    """What a task shows beside what every report has: values for its template, and pictures by name."""

    values: Mapping[str, Any]
    pictures: Mapping[str, Sequence[Picture]]


class Task(ABC):
    """A kind of task. gap: the score in which the way from the baseline to the teacher is measured."""

    scores: ClassVar[tuple[str, ...]]
    """What the scores of every arm have."""
    metrics: ClassVar[tuple[Metric, ...]]
    """The lines of the table."""
    gap: ClassVar[Metric]
    small: ClassVar[tuple[Metric, ...]]
    """The scores that are drawn below the table."""
    watched: ClassVar[tuple[Watched, ...]]
    rows: ClassVar[Mapping[str, str]]
    """The parts of the data that are told, and the words for each."""
    template: ClassVar[str]
    styles: ClassVar[tuple[str, ...]]
    verb: ClassVar[str]
    """A network ... so many of what the gap is measured in."""
    better: ClassVar[str]
    """The title where the student is ahead of its teacher."""
    answered: ClassVar[str]
    """What a share of agreement is a share of: "of the ... as the teacher does"."""

    def answers(self, folder: RunFolder, record: Reader, arms: Sequence[Arm]) -> Answers | None:
        """Read what is kept of the answers on the test rows."""
        del folder, record, arms
        return None

    def passage(self, folder: RunFolder) -> Passage | None:
        """Read the piece of text that is kept."""
        del folder
        return None

    @abstractmethod
    def tested(self, run: Run) -> str:
        """Return what a finished run was scored on, as "597 test rows"."""

    @abstractmethod
    def amount(self, spread: Spread) -> str:
        """Return what the student is said to make or need, as "12.3 errors"."""

    @abstractmethod
    def alone(self, run: Run) -> str:
        """Return the title where there is nothing to compare the student with."""

    @abstractmethod
    def labels(self, run: Run) -> str:
        """Return what the baseline is trained on, as "100 labels"."""

    @abstractmethod
    def hero(self, run: Run) -> Picture | None:
        """Return the picture beside the headline."""

    @abstractmethod
    def section(self, run: Run, folder: Path) -> Section:
        """Return what the task's own template shows; folder: where pictures without a figure are written."""

    def colours(self, palette: Mapping[str, str]) -> dict[str, str]:
        """Return the colours that the task's own style needs, made of a palette."""
        del palette
        return {}

    def remark(self, run: Run) -> Headline | None:
        """Return what comes before everything else, where there is such a thing."""
        del run
        return None

    def gain(self, run: Run) -> tuple[str, str] | None:
        """Return a number of the task's own to be shown large, and what it is."""
        del run
        return None

    def facts(self, run: Run) -> list[tuple[str, str]]:
        """Return what the data was."""
        del run
        return []
