"""What a run will do, found out before anything is written: all that can be wrong with a recipe shows here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutelage.config import Recipe
from tutelage.config.build import fit_arguments, labels_alone, objective_of, steps_of, steps_to_fit, training_arguments
from tutelage.errors import InputError, Problem, RecipeError
from tutelage.model import DistillationModel
from tutelage.models import parameter_count
from tutelage.objective import Objective
from tutelage.run_folder import BASELINE, STUDENT, TEACHER
from tutelage.runs._networks import threads_for
from tutelage.runs._notes import without_bars
from tutelage.runs._subject import Subject, subject_of
from tutelage.wording import counted


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
    subject: Subject = field(repr=False)
    seeds: tuple[int, ...]
    arms: tuple[str, ...]
    steps: dict[str, int]
    parameters: dict[str, int]
    device: str
    threads: int

    @property
    def rows(self) -> dict[str, int]:
        """How many rows each part of the data has."""
        return self.subject.rows

    @property
    def total_steps(self) -> int:
        """Optimiser steps of students and baselines together, all seeds, without the fit of a teacher."""
        return len(self.seeds) * sum(self.steps[arm] for arm in self.arms)

    def summary(self) -> dict[str, Any]:
        """Return the plan as JSON."""
        return {
            "recipe": self.name,
            "folder": str(self.folder),
            **self.subject.summary(),
            "parameters": self.parameters,
            "steps": self.steps,
            "seeds": list(self.seeds),
            "arms": list(self.arms),
            "device": self.device,
            "threads": self.threads,
        }

    def __str__(self) -> str:
        rows = self.rows
        lines = [f"data      {self.subject.text()}"]
        if TEACHER in self.parameters:
            how = "with its own weights"
            if TEACHER in self.steps:
                length = counted(self.steps[TEACHER], "step")
                how = f"fitted for {length} on {counted(rows['fit'], 'row')}, unless it is kept from before"
            lines.append(f"teacher   {counted(self.parameters[TEACHER], 'parameter')}, {how}")
        for arm in self.arms:
            text = f"{counted(self.parameters[arm], 'parameter')}, {counted(self.steps[arm], 'step')}"
            lines.append(f"{arm:10}{text}" + (" on the labels alone" if arm == BASELINE else ""))
        lines += [
            f"seeds     {', '.join(map(str, self.seeds))}",
            f"device    {self.device}",
            f"folder    {self.folder}",
        ]
        return "\n".join(lines)


@without_bars()
def prepare(recipe: Recipe, folder: str | Path, name: str = "recipe") -> Plan:
    """Return what a run of the recipe will do. Nothing is written, the data are read, every network is made once.

    Errors: `RecipeError` for what only shows now, `DataError`, `DamagedDataError`, `MissingPackageError`.
    """
    place = Path(folder)
    subject = subject_of(recipe)
    seeds = tuple(recipe.training.seed_list)
    arms = (STUDENT, BASELINE) if recipe.baseline else (STUDENT,)
    steps = dict.fromkeys(arms, steps_of(recipe, len(subject.train)))
    networks = {STUDENT: subject.network("student", seeds[0])}
    teacher = recipe.teacher
    if teacher is not None:
        networks[TEACHER] = subject.network("teacher", 0 if teacher.fit is None else teacher.fit.seed)
    tried = _Trial(subject, networks[STUDENT], networks.get(TEACHER))
    if teacher is not None and teacher.fit is not None:
        steps[TEACHER] = steps_to_fit(teacher.fit, len(subject.fit))
        fit_arguments(recipe, teacher.fit, steps[TEACHER], place)
        tried.fit(subject.collator(TEACHER, teacher.fit.seed, *networks.values()))
    arguments = training_arguments(recipe, steps[STUDENT], place, seeds[0])
    for arm in arms:
        rows = subject.labelled if arm == BASELINE else subject.train
        tried.train(objective_of(recipe, arm), rows, subject.collator(arm, seeds[0], *networks.values()))
    parameters = {name: parameter_count(network) for name, network in networks.items()}
    if recipe.baseline:
        parameters[BASELINE] = parameters[STUDENT]
    device = arguments.device.type
    threads = threads_for(parameters.values(), device)
    return Plan(recipe, name, place, subject, seeds, arms, steps, parameters, device, threads)


class _Trial:
    """Asks for one loss on a few rows: what does not go together is found here, and not in step 1."""

    def __init__(self, subject: Subject, student: nn.Module, teacher: nn.Module | None) -> None:
        self.subject, self.student, self.teacher = subject, student, teacher
        self.vocabulary = subject.vocabulary(student, teacher)

    def fit(self, collator: Any) -> None:
        """Try the fit of the teacher."""
        assert self.teacher is not None, self.subject
        self._ask(self.teacher, {}, Objective(labels_alone()), self.subject.fit, collator, "teacher.fit")

    def train(self, objective: Objective, rows: Any, collator: Any) -> None:
        """Try the training of an arm."""
        teachers = {} if self.teacher is None else {"teacher": self.teacher}
        self._ask(self.student, teachers, objective, rows, collator, "objective")

    def _ask(
        self,
        student: nn.Module,
        teachers: Mapping[str, nn.Module],
        objective: Objective,
        rows: Any,
        collator: Any,
        place: str,
    ) -> None:
        few = self.subject.few(rows, collator)
        vocabulary = self.vocabulary if teachers else None
        try:
            model = DistillationModel(student, teachers, objective, self.subject.task, vocabulary).eval()
            with torch.no_grad():
                model(**few)
        except InputError as error:
            raise RecipeError([Problem("", None, place, str(error))]) from error
