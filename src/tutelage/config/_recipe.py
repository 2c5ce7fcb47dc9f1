"""The whole recipe, and what its parts have to agree on."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from tutelage.config._data import DataSpec
from tutelage.config._models import AnyModel, BertModel, LlamaModel, SavedModel, has_weights
from tutelage.config._spec import Spec, refusal, refuse
from tutelage.config._tasks import TASKS_OF_TEXTS, TaskName, check_model, data_for
from tutelage.config._terms import AnyTerm
from tutelage.config._texts import TextsSpec
from tutelage.config._training import TrainingSpec

_LOGGED = ("accuracy", "agreement", "epoch", "grad_norm", "kl", "learning_rate", "loss", "nll", "step")
"""What stands beside the terms in the lines of a run's metrics."""


class Recipe(Spec):
    """Everything a run is made of: data, teacher, student, objective and training."""

    description: Annotated[str, Field(description="What the recipe shows, in a sentence or two.")] = ""
    task: Annotated[TaskName, Field(description="What the models do.")] = "classification"
    data: Annotated[DataSpec, Field(description="What is learned from.")]
    teacher: Annotated[AnyModel | None, Field(description="The model whose outputs the student imitates.")] = None
    student: Annotated[AnyModel, Field(description="The model that is trained.")]
    objective: Annotated[
        dict[str, AnyTerm], Field(description="The terms of the loss, by names of your own: each is logged under its.")
    ]
    training: Annotated[TrainingSpec, Field(description="How long, how fast, how often, and where.")] = TrainingSpec()
    baseline: Annotated[
        bool, Field(description="Whether the same student is also trained on the labels alone, at equal steps.")
    ] = False

    @field_validator("data")
    @classmethod
    def _of_the_task(cls, data: DataSpec, info: ValidationInfo) -> DataSpec:
        return data_for(info.data["task"], data) if "task" in info.data else data

    @field_validator("teacher", "student")
    @classmethod
    def _for_the_task(cls, model: AnyModel | None, info: ValidationInfo) -> AnyModel | None:
        if model is not None and "task" in info.data:
            check_model(info.data["task"], model)
        return model

    @field_validator("teacher")
    @classmethod
    def _knows_something(cls, teacher: AnyModel | None) -> AnyModel | None:
        if teacher is not None and not has_weights(teacher):
            pretrained = " `pretrained: true`," if teacher.kind == "timm" else ""
            raise refusal(
                f"the teacher's weights would be random; give{pretrained} `weights: <saved model>`, or `fit: {{}}` to "
                "train it on the labels first"
            )
        return teacher

    @field_validator("student")
    @classmethod
    def _not_fitted(cls, student: AnyModel) -> AnyModel:
        if student.fit is not None:
            refuse([(("fit",), "`fit` is for the teacher; the student is trained as `training` says")])
        return student

    @field_validator("student")
    @classmethod
    def _knows_its_tokens(cls, student: AnyModel, info: ValidationInfo) -> AnyModel:
        data = info.data.get("data")
        if isinstance(data, TextsSpec) and data.tokenizer is None and isinstance(student, (LlamaModel, BertModel)):
            raise refusal(f"the student brings no tokenizer; give one: {_tokenizer_for(info.data.get('teacher'))}")
        return student

    @field_validator("objective")
    @classmethod
    def _trains_something(cls, objective: dict[str, AnyTerm], info: ValidationInfo) -> dict[str, AnyTerm]:
        if not objective:
            raise refusal("expected at least one term, such as soft: {forward_kl: {}, temperature: 4}")
        refuse([((name,), problem) for name in objective if (problem := _wrong_name(name))])
        if all(term.weight == 0 for term in objective.values()):
            raise refusal("every term has weight 0, so nothing would be trained; give one a weight > 0")
        if "teacher" not in info.data:
            return objective
        wanting = [name for name, term in objective.items() if term.teacher == "teacher"]
        if info.data["teacher"] is None:
            message = "compares with the teacher, and the recipe has none; add `teacher:`, or `teacher: labels` here"
            refuse([((name,), message) for name in wanting])
        elif not wanting:
            raise refusal("no term compares with the teacher; add one, or remove `teacher:` from the recipe")
        return objective

    @field_validator("training")
    @classmethod
    def _mixes_numbers(cls, training: TrainingSpec, info: ValidationInfo) -> TrainingSpec:
        if training.mix > 0 and info.data.get("task") in TASKS_OF_TEXTS:
            refuse([(("mix",), "tokens cannot be mixed as numbers are; remove it")])
        return training

    @field_validator("baseline")
    @classmethod
    def _differs(cls, baseline: bool, info: ValidationInfo) -> bool:
        if baseline and "teacher" in info.data and info.data["teacher"] is None:
            raise refusal("the baseline is the student without its teacher, and the recipe has none; remove `baseline`")
        return baseline


def _tokenizer_for(teacher: AnyModel | None) -> str:
    """Return the setting of the data that gives a student without a tokenizer one that its teacher shares."""
    if not isinstance(teacher, SavedModel):
        return "`tokenizer: {train: 2048}` in `data`"
    revision = "" if teacher.revision is None else f", revision: {teacher.revision}"
    return f"`tokenizer: {{model: {teacher.model}{revision}}}` in `data`, that of the teacher"


def _wrong_name(name: str) -> str | None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,39}", name):
        return "expected a name of at most 40 letters, digits, _ and -, that starts with a letter"
    if name in _LOGGED or name.startswith("eval_"):
        return f"{name!r} is the name of another number in the log; choose another name"
    return None
