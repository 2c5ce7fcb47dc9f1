"""What a run is about, as far as it differs between tasks: rows, networks, and how a network is scored.

The life of a run (seeds, arms, the teacher's cache, checkpoints, resuming, events) is written once, for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from tutelage.config import Recipe, TextsSpec
from tutelage.config.build import Role
from tutelage.models import named_panics
from tutelage.run_folder import ArmFolder, RunFolder
from tutelage.runs._measured import Measured
from tutelage.tasks import Task
from tutelage.vocabulary import VocabularyMap


class Subject(Protocol):
    """The data of a recipe, read, and the networks that it can make, train and score."""

    train: Any
    """What the student sees."""
    labelled: Any
    """What its baseline learns from."""
    fit: Any
    """What a teacher is fitted on."""
    watched: Any
    """The held-out rows on which a network is evaluated while it trains."""
    task: Task | None
    """What the trainer is told; None for its own choice."""
    measure: str
    """The score by which a gap between networks is told; less is better."""

    @property
    def rows(self) -> dict[str, int]:
        """How many rows each part of the data has."""

    def digest(self, *, of_all: bool = False) -> str:
        """Return the sha256 of all that a fitted teacher learns from; or of all data."""

    def network(self, role: Role, seed: int) -> nn.Module:
        """Return a network as it is before any training. Errors: `RecipeError`, `DamagedDataError`, and others."""

    def is_saved(self, folder: Path) -> bool:
        """Return whether a network was saved in a folder."""

    def copies_teacher(self) -> bool:
        """Return whether the folder of a run gets a teacher that was not fitted: others are too big, and lie safe."""

    def save(self, network: nn.Module, role: Role, folder: Path) -> None:
        """Write a network; the folder appears whole, and takes the place of one that is there."""

    def load(self, folder: Path) -> nn.Module:
        """Return the network of a folder. Errors: `ModelError`, `DamagedDataError`."""

    def vocabulary(self, student: nn.Module, teacher: nn.Module | None) -> VocabularyMap | None:
        """Return which outcomes the two sides share; None for all."""

    def collator(self, arm: str, seed: int, *networks: nn.Module | None) -> Any:
        """Return what makes batches for an arm, by which these networks are asked."""

    def few(self, rows: Any, collator: Any) -> dict[str, Any]:
        """Return a batch of a few rows, to try with."""

    def answers(self, teacher: nn.Module) -> Any:
        """Return what a teacher says of the held-out rows, in whatever form `score` takes it."""

    def score(self, network: nn.Module, folder: ArmFolder, answers: Any) -> Measured:
        """Score a network whose model is in its folder; nothing is written."""

    def timed(self, network: nn.Module) -> dict[str, Callable[[], Any]]:
        """Return forward passes of which a report tells how long they take, by how many rows they are of."""

    def record(self) -> dict[str, Any]:
        """Return what run.json says of the data."""

    def summary(self) -> dict[str, Any]:
        """Return what the JSON of a plan says of the data."""

    def text(self) -> str:
        """Return what a plan says of the data, in a line."""

    def write_test_rows(self, folder: RunFolder) -> None:
        """Write the held-out rows, so that a report can show them; not where they are big."""

    def finish(self, folder: RunFolder, teacher: nn.Module | None) -> None:
        """Write what compares the networks of a run, once all are there."""


@named_panics()
def subject_of(recipe: Recipe) -> Subject:
    """Return what a recipe is about, its data read. Errors: those of `tutelage.data`, `RecipeError`."""
    if recipe.task == "sequence_classification":
        from tutelage.runs._labelled_texts import LabelledTexts

        return LabelledTexts(recipe)
    if isinstance(recipe.data, TextsSpec):
        from tutelage.runs._language import Language

        return Language(recipe)
    from tutelage.runs._classification import Classification

    return Classification(recipe)
