"""From what the trainer was given to the model it trains: which task a student is for, and how it is run for it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from tutelage.errors import ParameterError, VocabularyError
from tutelage.model import DistillationModel
from tutelage.models import HeadModel, language_model, vocabulary_width
from tutelage.networks import check_own_losses
from tutelage.objective import Objective
from tutelage.tasks import CausalLM, MaskedLM, Task, task_of
from tutelage.teachers import LiveTeacher
from tutelage.vocabulary import VocabularyMap

_log = logging.getLogger(__name__)

Teachers = nn.Module | LiveTeacher | Mapping[str, nn.Module | LiveTeacher] | None

_OVER_A_VOCABULARY = (CausalLM, MaskedLM)


def as_model(
    model: nn.Module,
    teacher: Teachers,
    objective: Objective | None,
    task: Task | None,
    vocabulary: VocabularyMap | None,
) -> DistillationModel:
    """Return a model of all that was given; language models in it give hidden states where they can."""
    if isinstance(model, DistillationModel):
        given: Iterable[tuple[str, Any]] = [
            ("teacher", teacher),
            ("objective", objective),
            ("task", task),
            ("vocabulary", vocabulary),
        ]
        twice = [name for name, value in given if value is not None]
        if twice:
            raise ParameterError(f"the model is a DistillationModel, which has its own {twice}; expected them once")
        check_own_losses("the student", model.student)
        _check_widths(model)
        return model
    if objective is None:
        raise ParameterError("objective=None: expected an Objective of terms; it says what is trained")
    check_own_losses("the student", model)
    teachers = {} if teacher is None else dict(teacher) if isinstance(teacher, Mapping) else {"teacher": teacher}
    chosen = task_of(model) if task is None else task
    if task is None and chosen is not None:
        _log.info("%s: the task is %s, by what it is made for", type(model).__name__, type(chosen).__name__)
    if isinstance(chosen, _OVER_A_VOCABULARY):
        # Before its weights are wrapped, so that a student for another task is told of by its own name.
        chosen.check(model)
        model = _by_its_head(model)
        teachers = {name: _by_its_head(network) for name, network in teachers.items()}
    made = DistillationModel(model, teachers, objective, chosen, vocabulary)
    _check_widths(made)
    return made


def _by_its_head(network: Any) -> Any:
    """Return a language model of transformers as one that gives hidden states; any other network as it is."""
    if isinstance(network, (HeadModel, LiveTeacher)) or not callable(getattr(network, "get_output_embeddings", None)):
        return network
    return language_model(network)


def _check_widths(model: DistillationModel) -> None:
    """Raise `VocabularyError` for heads of different widths that nothing aligns; no batch is needed to see it."""
    if not isinstance(model.task, _OVER_A_VOCABULARY) or model.vocabulary is not None:
        return
    mine = vocabulary_width(model.student)
    for name, teacher in model.teachers.items():
        theirs = vocabulary_width(teacher.module)
        if mine is not None and theirs is not None and mine != theirs:
            raise VocabularyError(
                f"the student's head has {mine} outcomes and that of the teacher {name!r} has {theirs}; expected a "
                "VocabularyMap that says which are compared: pass vocabulary=map, where map, sentence = "
                f"tutelage.models.align(student_tokenizer, teacher_tokenizer, {mine}, {theirs})"
            )
