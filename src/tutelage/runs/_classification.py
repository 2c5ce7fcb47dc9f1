"""Runs about classes: rows with one label each, and networks that give their logits as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tutelage.config import Recipe, SavedModel
from tutelage.config.build import Role, architecture_of, collator_of, data_of, network_of
from tutelage.data import Rows
from tutelage.models import load_model, read_card, save_model
from tutelage.run_folder import ArmFolder, RunFolder, write_arrays
from tutelage.runs._measured import Measured
from tutelage.runs._networks import predict, score, timed
from tutelage.runs._saving import is_whole
from tutelage.tasks import Task
from tutelage.vocabulary import VocabularyMap
from tutelage.wording import counted

_ROWS_TRIED = 8
_MOST_BYTES = 8 * 2**20
"""Test rows that take more are not copied into the folder."""
_MOST_FEATURES = 30


def _listed(names: Sequence[str]) -> str:
    """Return the names of columns, all that fit into a few lines."""
    more = f" and {len(names) - _MOST_FEATURES:,} more" if len(names) > _MOST_FEATURES else ""
    return ", ".join(names[:_MOST_FEATURES]) + more


class Classification:
    """The data of a recipe, read, and its classifiers."""

    task: Task | None = None
    measure = "errors"

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.data = data_of(recipe)
        self.train, self.labelled, self.fit = self.data.train, self.data.labelled, self.data.fit
        self.watched = self.data.test

    @property
    def rows(self) -> dict[str, int]:
        """How many rows each part of the data has."""
        data = self.data
        parts = {"train": data.train, "labelled": data.labelled, "fit": data.fit, "test": data.test}
        return {name: len(part) for name, part in parts.items()}

    def digest(self, *, of_all: bool = False) -> str:
        """Return the sha256 of all rows that a teacher is fitted on; or of all rows."""
        return self.data.digest(of_all=of_all)

    def network(self, role: Role, seed: int) -> nn.Module:
        """Return a network as it is before any training."""
        spec = self.recipe.student if role == "student" else self.recipe.teacher
        assert spec is not None, self.recipe
        return network_of(spec, role, self.data, seed)[0]

    def is_saved(self, folder: Path) -> bool:
        """Return whether a network was saved in a folder."""
        return is_whole(folder, "model.json")

    def copies_teacher(self) -> bool:
        """Return that every teacher is copied."""
        return True

    def save(self, network: nn.Module, role: Role, folder: Path) -> None:
        """Write a network and its card."""
        spec = self.recipe.student if role == "student" else self.recipe.teacher
        assert spec is not None, self.recipe
        architecture = read_card(Path(spec.model)).model if isinstance(spec, SavedModel) else architecture_of(spec)
        save_model(network, architecture, folder, shape=self.data.shape, classes=self.data.classes)

    def load(self, folder: Path) -> nn.Module:
        """Return the network of a folder."""
        return load_model(folder)

    def vocabulary(self, student: nn.Module, teacher: nn.Module | None) -> VocabularyMap | None:
        """Return None: all classes are compared."""
        del student, teacher
        return None

    def collator(self, arm: str, seed: int, *networks: nn.Module | None) -> Any:
        """Return what makes batches for an arm."""
        del networks
        return collator_of(self.recipe, arm, seed)

    def few(self, rows: Rows, collator: Any) -> dict[str, Any]:
        """Return a batch of a few rows."""
        batch: dict[str, Any] = collator([rows[i] for i in range(min(_ROWS_TRIED, len(rows)))])
        return batch

    def answers(self, teacher: nn.Module) -> Tensor:
        """Return the teacher's logits on the held-out rows."""
        return predict(teacher, self.data.test)

    def score(self, network: nn.Module, folder: ArmFolder, answers: Any) -> Measured:
        """Score a network on the held-out rows."""
        return score(network, self.data, folder, answers)

    def timed(self, network: nn.Module) -> dict[str, Callable[[], Any]]:
        """Return forward passes over one row and over a batch."""
        return timed(network, self.data.test)

    def record(self) -> dict[str, Any]:
        """Return what run.json says of the data."""
        data = self.data
        return {
            "classes": list(data.classes),
            "kind": data.kind,
            "shape": list(data.shape),
            "features": None if data.features is None else list(data.features),
            "rows": self.rows,
            "omitted": list(data.omitted),
        }

    def summary(self) -> dict[str, Any]:
        """Return what the JSON of a plan says of the data."""
        data = self.data
        return {
            "data": {
                "rows": self.rows,
                "classes": list(data.classes),
                "shape": list(data.shape),
                **({} if data.features is None else {"features": list(data.features)}),
            },
            "omitted": [data.classes[label] for label in data.omitted],
        }

    def text(self) -> str:
        """Return what a plan says of the data."""
        rows, data = self.rows, self.data
        shape = " x ".join(map(str, data.shape))
        omitted = ", ".join(data.classes[label] for label in data.omitted)
        return (
            f"{counted(rows['train'], 'row')} to train on, {rows['labelled']:,} of them with a label; "
            f"{rows['test']:,} held out; inputs {shape}, {len(data.classes)} classes"
            + (f"; the student sees none of {omitted}" if omitted else "")
            + ("" if data.features is None else f"\nfeatures  {_listed(data.features)}")
        )

    def write_test_rows(self, folder: RunFolder) -> None:
        """Write the held-out rows, so that a report can draw them; not where they are big."""
        test = self.data.test
        if 4 * len(test) * math.prod(self.data.shape) > _MOST_BYTES:
            return
        arrays = {"inputs": test.inputs, "labels": test.labels, "index": test.index}
        write_arrays(folder.test, {name: tensor.contiguous().numpy() for name, tensor in arrays.items()})

    def finish(self, folder: RunFolder, teacher: nn.Module | None) -> None:
        """Write nothing: the evaluations of the arms are enough."""
        del folder, teacher
