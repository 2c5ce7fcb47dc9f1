"""What the tasks of recipes are, and which data and models each has a use for."""

from __future__ import annotations

from typing import Literal

from tutelage.config._data import ClassesSpec, DataSpec
from tutelage.config._models import BertModel, LlamaModel, ModelSpec, SavedModel
from tutelage.config._spec import refusal, refuse
from tutelage.config._texts import HIDDEN, TARGET, PythonData, TextsSpec

TaskName = Literal["classification", "causal_lm", "masked_lm", "sequence_classification"]
TASKS_OF_TEXTS = ("causal_lm", "masked_lm", "sequence_classification")

_CHOICE = "`task: causal_lm`, `task: masked_lm` or `task: sequence_classification`"
_MADE: dict[str, tuple[type[ModelSpec], str]] = {
    "causal_lm": (LlamaModel, "causal language models"),
    "masked_lm": (BertModel, "encoders"),
    "sequence_classification": (BertModel, "classifiers of texts"),
}
"""Task -> the model that is made for it here, and what such models are."""
_SHAPE = "{hidden: 64, layers: 2, heads: 4, intermediate: 176}"
_OF_CLASSES = "is for `task: sequence_classification`; remove it"
_STRANGERS: dict[str, dict[str, str]] = {
    "causal_lm": {
        "mask": "hides tokens, and the task is causal_lm; remove it, or write `task: masked_lm`",
        "target": _OF_CLASSES,
        "labeled": _OF_CLASSES,
        "missing": _OF_CLASSES,
    },
    "masked_lm": {
        "packing": "texts that share a row would see each other, as an encoder looks both ways; remove it",
        "long_completions": "masked_lm reads texts, and no completions; remove it",
        "target": _OF_CLASSES,
        "labeled": _OF_CLASSES,
        "missing": _OF_CLASSES,
    },
    "sequence_classification": {
        "mask": "hides tokens, and the task is sequence_classification; remove it, or write `task: masked_lm`",
        "packing": "texts that share a row would see each other, and each has a class of its own; remove it",
        "long_completions": "sequence_classification reads texts, and no completions; remove it",
        "limit_tokens": "counts tokens, and here texts are learned from; remove it, or `labeled` limits the labels",
    },
}
"""Task -> settings of texts that it has no use for, and what is said of them."""
_FILLED: dict[str, dict[str, object]] = {
    "causal_lm": {"packing": True},
    "masked_lm": {"packing": False, "mask": HIDDEN},
    "sequence_classification": {"packing": False, "target": TARGET},
}
"""Task -> what stands where nothing is given."""


def data_for(task: str, data: DataSpec) -> DataSpec:
    """Return the data with what the task decides filled in, or raise the error of data that it has no use for."""
    if not isinstance(data, TextsSpec):
        if task in TASKS_OF_TEXTS:
            assert isinstance(data, ClassesSpec), data
            source = "" if task == "sequence_classification" else "{source: pystdlib} or "
            raise refusal(f"these are no texts, and the task is {task}; expected {source}{{text: <files>}}")
        return data
    if task not in TASKS_OF_TEXTS:
        raise refusal(f"these are texts, and the task is {task}; add {_CHOICE}")
    if task == "sequence_classification" and isinstance(data, PythonData):
        raise refusal("these texts have no classes, and the task is sequence_classification; expected {text: <files>}")
    fields = type(data).model_fields
    given = [name for name in fields if getattr(data, name) not in (fields[name].default, False)]
    refuse([((name,), message) for name, message in _STRANGERS[task].items() if name in given])
    filled = {name: value for name, value in _FILLED[task].items() if getattr(data, name) is None}
    return data.model_copy(update=filled)


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
