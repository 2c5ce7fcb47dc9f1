"""What a run will do, found out before anything is written: all that can be wrong with a recipe shows here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tutelage.config import Recipe
from tutelage.config.build import (
    collator_of,
    data_of,
    fit_arguments,
    labels_alone,
    network_of,
    objective_of,
    steps_of,
    steps_to_fit,
    training_arguments,
)
from tutelage.data import Data, Rows
from tutelage.errors import InputError, Problem, RecipeError
from tutelage.model import DistillationModel
from tutelage.models import Standardised, parameter_count
from tutelage.objective import Objective
from tutelage.run_folder import BASELINE, STUDENT, TEACHER
from tutelage.runs._networks import threads_for
from tutelage.training import collate

_ROWS_TRIED = 8


@dataclass(frozen=True, eq=False)
class Plan:
    """A recipe that was looked through: what is trained on what, for how long, and where it goes.

    seeds: of student and baseline; arms: "student", and "baseline" where there is one; steps: optimiser steps by arm,
    the teacher's fit among them; parameters: by arm; rows: of each part of the data; device, threads: what networks are
    trained on. `str` is the text that a dry run prints, `summary` the same as JSON.
    """

    recipe: Recipe
    name: str
    folder: Path
    data: Data = field(repr=False)
    seeds: tuple[int, ...]
    arms: tuple[str, ...]
    steps: dict[str, int]
    parameters: dict[str, int]
    device: str
    threads: int

    @property
    def rows(self) -> dict[str, int]:
        """How many rows each part of the data has."""
        data = self.data
        return {
            "train": len(data.train),
            "labelled": len(data.labelled),
            "fit": len(data.fit),
            "test": len(data.test),
        }

    @property
    def total_steps(self) -> int:
        """Optimiser steps of students and baselines together, all seeds, without the fit of a teacher."""
        return len(self.seeds) * sum(self.steps[arm] for arm in self.arms)

    def summary(self) -> dict[str, Any]:
        """Return the plan as JSON."""
        return {
            "recipe": self.name,
            "folder": str(self.folder),
            "data": {"rows": self.rows, "classes": list(self.data.classes), "shape": list(self.data.shape)},
            "omitted": [self.data.classes[label] for label in self.data.omitted],
            "parameters": self.parameters,
            "steps": self.steps,
            "seeds": list(self.seeds),
            "arms": list(self.arms),
            "device": self.device,
            "threads": self.threads,
        }

    def __str__(self) -> str:
        rows = self.rows
        shape = " x ".join(map(str, self.data.shape))
        omitted = ", ".join(self.data.classes[label] for label in self.data.omitted)
        lines = [
            f"data      {rows['train']:,} rows to train on, {rows['labelled']:,} of them with a label; "
            f"{rows['test']:,} held out; inputs {shape}, {len(self.data.classes)} classes"
            + (f"; the student sees none of {omitted}" if omitted else "")
        ]
        if TEACHER in self.parameters:
            how = f"fitted for {self.steps[TEACHER]:,} steps on {rows['fit']:,} rows, unless it is kept from before"
            how = how if TEACHER in self.steps else "with its own weights"
            lines.append(f"teacher   {self.parameters[TEACHER]:,} parameters, {how}")
        for arm in self.arms:
            text = f"{self.parameters[arm]:,} parameters, {self.steps[arm]:,} steps"
            lines.append(f"{arm:10}{text}" + (" on the labels alone" if arm == BASELINE else ""))
        lines += [
            f"seeds     {', '.join(map(str, self.seeds))}",
            f"device    {self.device}",
            f"folder    {self.folder}",
        ]
        return "\n".join(lines)


def prepare(recipe: Recipe, folder: str | Path, name: str = "recipe") -> Plan:
    """Return what a run of the recipe will do. Nothing is written, the data are read, every network is made once.

    Errors: `RecipeError` for what only shows now, `DataError`, `DamagedDataError`, `MissingPackageError`.
    """
    place = Path(folder)
    data = data_of(recipe)
    seeds = tuple(recipe.training.seed_list)
    arms = (STUDENT, BASELINE) if recipe.baseline else (STUDENT,)
    steps = dict.fromkeys(arms, steps_of(recipe, len(data.train)))
    networks = {STUDENT: network_of(recipe.student, "student", data, seeds[0])[0]}
    teacher = recipe.teacher
    if teacher is not None:
        networks[TEACHER] = network_of(teacher, "teacher", data, 0 if teacher.fit is None else teacher.fit.seed)[0]
        if teacher.fit is not None:
            steps[TEACHER] = steps_to_fit(teacher.fit, len(data.fit))
            fit_arguments(recipe, teacher.fit, steps[TEACHER], place)
            _try(Objective(labels_alone()), networks[TEACHER], None, data.fit, collate, "teacher.fit")
    arguments = training_arguments(recipe, steps[STUDENT], place, seeds[0])
    for arm in arms:
        rows = data.labelled if arm == BASELINE else data.train
        collator = collator_of(recipe, arm, seeds[0])
        _try(objective_of(recipe, arm), networks[STUDENT], networks.get(TEACHER), rows, collator, "objective")
    parameters = {name: parameter_count(network) for name, network in networks.items()}
    if recipe.baseline:
        parameters[BASELINE] = parameters[STUDENT]
    device = arguments.device.type
    threads = threads_for(parameters.values(), device)
    return Plan(recipe, name, place, data, seeds, arms, steps, parameters, device, threads)


def _try(
    objective: Objective, student: Standardised, teacher: Standardised | None, rows: Rows, collator: Any, place: str
) -> None:
    """Ask for one loss on a few rows: what does not go together is found here, and not in step 1."""
    few = collator([rows[i] for i in range(min(_ROWS_TRIED, len(rows)))])
    try:
        model = DistillationModel(student, {} if teacher is None else {"teacher": teacher}, objective).eval()
        with torch.no_grad():
            model(**few)
    except InputError as error:
        raise RecipeError([Problem("", None, place, str(error))]) from error
