"""The whole recipe, and what its parts have to agree on."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from tutelage.config._data import ClassesSpec, DataSpec
from tutelage.config._models import AnyModel, LlamaModel, ModelSpec, SavedModel, has_weights
from tutelage.config._spec import Spec, refusal, refuse
from tutelage.config._terms import AnyTerm
from tutelage.config._texts import TextsSpec
from tutelage.config._training import TrainingSpec

_LOGGED = ("accuracy", "agreement", "epoch", "grad_norm", "kl", "learning_rate", "loss", "nll", "step")
"""What stands beside the terms in the lines of a run's metrics."""


class Recipe(Spec):
    """Everything a run is made of: data, teacher, student, objective and training."""

    description: Annotated[str, Field(description="What the recipe shows, in a sentence or two.")] = ""
    task: Annotated[Literal["classification", "causal_lm"], Field(description="What the models do.")] = "classification"
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
        task = info.data.get("task")
        if task == "classification" and isinstance(data, TextsSpec):
            raise refusal("these are texts, and the task is classification; add `task: causal_lm`")
        if task == "causal_lm" and isinstance(data, ClassesSpec):
            raise refusal(
                "these are classes, and the task is causal_lm; expected {source: pystdlib} or {text: <files>}"
            )
        return data

    @field_validator("teacher", "student")
    @classmethod
    def _for_the_task(cls, model: AnyModel | None, info: ValidationInfo) -> AnyModel | None:
        if model is not None and "task" in info.data:
            _check_model(model, info.data["task"])
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
        if isinstance(data, TextsSpec) and data.tokenizer is None and isinstance(student, LlamaModel):
            raise refusal("the student brings no tokenizer; give one, such as `tokenizer: {train: 2048}` in `data`")
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
        if training.mix > 0 and info.data.get("task") == "causal_lm":
            refuse([(("mix",), "tokens cannot be mixed as numbers are; remove it")])
        return training

    @field_validator("baseline")
    @classmethod
    def _differs(cls, baseline: bool, info: ValidationInfo) -> bool:
        if baseline and "teacher" in info.data and info.data["teacher"] is None:
            raise refusal("the baseline is the student without its teacher, and the recipe has none; remove `baseline`")
        return baseline


def _check_model(model: ModelSpec, task: str) -> None:
    """Raise the error of a model that the task has no use for."""
    if task == "classification":
        if isinstance(model, LlamaModel):
            raise refusal("a language model, and the task is classification; add `task: causal_lm`, or use an mlp")
        if isinstance(model, SavedModel):
            changed = [*(["fit"] if model.fit is not None else []), *model.changed]
            refuse([((name,), f"a `model` is used as it was saved; remove `{name}`") for name in changed])
    elif not isinstance(model, (LlamaModel, SavedModel)):
        raise refusal(
            f"{model.kind} makes no language models; expected {{llama: {{hidden: 64, layers: 2, heads: 4, "
            "intermediate: 176}}, or {model: <folder or id>}"
        )


def _wrong_name(name: str) -> str | None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,39}", name):
        return "expected a name of at most 40 letters, digits, _ and -, that starts with a letter"
    if name in _LOGGED or name.startswith("eval_"):
        return f"{name!r} is the name of another number in the log; choose another name"
    return None
