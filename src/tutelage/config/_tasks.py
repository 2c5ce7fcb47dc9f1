"""What the tasks of recipes are, and which data and models each has a use for."""

from __future__ import annotations

from typing import Literal

from tutelage.config._data import ClassesSpec, DataSpec
from tutelage.config._models import BertModel, LlamaModel, ModelSpec, SavedModel
from tutelage.config._spec import refusal, refuse
from tutelage.config._texts import HIDDEN, PythonData, TextData, TextsSpec

TaskName = Literal["classification", "causal_lm", "masked_lm"]
AnyTexts = PythonData | TextData
TASKS_OF_TEXTS = ("causal_lm", "masked_lm")

_CHOICE = "`task: causal_lm` or `task: masked_lm`"
_MADE: dict[str, tuple[type[ModelSpec], str]] = {
    "causal_lm": (LlamaModel, "causal language models"),
    "masked_lm": (BertModel, "encoders"),
}
"""Task -> the model that is made for it here, and what such models are."""
_SHAPE = "{hidden: 64, layers: 2, heads: 4, intermediate: 176}"


def data_for(task: str, data: DataSpec) -> DataSpec:
    """Return the data with what the task decides filled in, or raise the error of data that it has no use for."""
    if not isinstance(data, TextsSpec):
        if task in TASKS_OF_TEXTS:
            assert isinstance(data, ClassesSpec), data
            raise refusal(
                f"these are classes, and the task is {task}; expected {{source: pystdlib}} or {{text: <files>}}"
            )
        return data
    if task not in TASKS_OF_TEXTS:
        raise refusal(f"these are texts, and the task is {task}; add {_CHOICE}")
    return _to_be_masked(data) if task == "masked_lm" else _to_be_continued(data)


def _to_be_continued(data: AnyTexts) -> AnyTexts:
    if data.mask is not None:
        refuse([(("mask",), "hides tokens, and the task is causal_lm; remove it, or write `task: masked_lm`")])
    return data.model_copy(update={"packing": data.packing is not False})


def _to_be_masked(data: AnyTexts) -> AnyTexts:
    problems: list[tuple[tuple[str, ...], str]] = []
    if data.packing:
        message = "texts that share a row would see each other, as an encoder looks both ways; remove it"
        problems.append((("packing",), message))
    if isinstance(data, TextData) and data.long_completions != "refuse":
        problems.append((("long_completions",), "masked_lm reads texts, and no completions; remove it"))
    refuse(problems)
    return data.model_copy(update={"packing": False, "mask": HIDDEN if data.mask is None else data.mask})


def check_model(task: str, model: ModelSpec) -> None:
    """Raise the error of a model that the task has no use for."""
    if task in TASKS_OF_TEXTS:
        made, what = _MADE[task]
        if not isinstance(model, (made, SavedModel)):
            example = f"{{{made.kind}: {_SHAPE}}}"
            raise refusal(f"{model.kind} makes no {what}; expected {example}, or {{model: <folder or id>}}")
        return
    if isinstance(model, (LlamaModel, BertModel)):
        raise refusal(f"a model of texts, and the task is {task}; add {_CHOICE}, or use an mlp")
    if isinstance(model, SavedModel):
        changed = [*(["fit"] if model.fit is not None else []), *model.changed]
        refuse([((name,), f"a `model` is used as it was saved; remove `{name}`") for name in changed])
