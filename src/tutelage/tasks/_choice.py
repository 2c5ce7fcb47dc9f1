"""Which task a network is for."""

from __future__ import annotations

from typing import Any

from tutelage.tasks._causal_lm import CausalLM
from tutelage.tasks._classification import Classification
from tutelage.tasks._masked_lm import MaskedLM
from tutelage.tasks._sequence_classification import SequenceClassification
from tutelage.tasks._suits import task_name
from tutelage.tasks._task import Task
from tutelage.tasks._token_classification import TokenClassification

_BY_NAME: dict[str, type] = {
    "classification": Classification,
    **{task.name: task for task in (SequenceClassification, TokenClassification, CausalLM, MaskedLM)},
}


def task_of(student: Any) -> Task | None:
    """Return the task that a student is for, None for a network that does not say, such as plain PyTorch.

    Errors: `ModuleError` for a model of transformers that no task is for, or more than one.
    """
    name = task_name(student)
    made: Task | None = None if name is None else _BY_NAME[name]()
    return made
