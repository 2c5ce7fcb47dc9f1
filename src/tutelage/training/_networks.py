"""From what the trainer was given to the model it trains: which task a student is for, and how it is run for it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from tutelage.errors import ModuleError, ParameterError, VocabularyError
from tutelage.model import DistillationModel
from tutelage.models import HeadModel, language_model, vocabulary_width
from tutelage.networks import check_own_losses, is_compiled, unwrapped
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
        _trained_here(model.student)
        check_own_losses("the student", model.student)
        _check_widths(model)
        return model
    if objective is None:
        raise ParameterError("objective=None: expected an Objective of terms; it says what is trained")
    model = _trained_here(model)
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


def check_trainable(model: DistillationModel) -> None:
    """Raise `ModuleError` if there is nothing to train; log a warning if there are projectors alone."""
    if any(parameter.requires_grad for parameter in model.student.parameters()):
        return
    if any(parameter.requires_grad for parameter in model.parameters()):
        _log.warning("no parameter of the student requires a gradient: the projectors alone are trained")
        return
    count = sum(parameter.numel() for parameter in model.student.parameters())
    raise ModuleError(
        f"the student {type(model.student).__name__} has {count:,} parameters, and none of them requires a gradient; "
        "expected some to train: student.requires_grad_(True), or is_trainable=True where peft loads an adapter. A "
        "copy of a network that was passed as a teacher is frozen as the teacher is"
    )


def student_to_save(student: nn.Module) -> tuple[Any, str]:
    """Return the network whose weights are saved, as the user had it, and the prefix of its names in the student's."""
    prefix = ""
    while isinstance(student, (HeadModel, nn.DataParallel)) or is_compiled(student):
        inside = unwrapped(student)
        # What torch.compile returned has no part in a name.
        prefix += (
            "" if is_compiled(student) else next(f"{n}." for n, child in student.named_children() if child is inside)
        )
        student = inside
    return student, prefix


def _trained_here(student: Any) -> Any:
    """Return the student as the Trainer can train it, out of a `DataParallel`, which that makes anew.

    Errors: `ModuleError`.
    """
    if isinstance(student, nn.parallel.DistributedDataParallel):
        raise ModuleError(
            "the student is a DistributedDataParallel; expected the network in it, student.module: the trainer brings "
            "it to all ranks itself"
        )
    if isinstance(student, nn.Module) and any(isinstance(part, torch.jit.ScriptModule) for part in student.modules()):
        raise ModuleError(
            f"the student {type(student).__name__} was scripted or traced, which transformers.Trainer cannot train; "
            "expected the module that it was made from: script or trace that when it is trained, or use torch.compile"
        )
    return student.module if isinstance(student, nn.DataParallel) else student


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
