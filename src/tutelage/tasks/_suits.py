"""Which networks a task is for, and which task a network is for."""

from __future__ import annotations

from typing import Any

from tutelage.errors import ModuleError
from tutelage.networks import Kind, kind_of

TASKS = {
    "classification": "Classification",
    "sequence_classification": "SequenceClassification",
    "token_classification": "TokenClassification",
    "causal_lm": "CausalLM",
    "masked_lm": "MaskedLM",
}
"""The classes of the tasks, by name."""
_OF_ROWS = ("classification", "sequence_classification")


def check_kind(task: str, network: Any, reason: str, expected: str, role: str = "the student") -> None:
    """Raise `ModuleError` if the network is made for something else than the task.

    reason: why it cannot be trained by this task; expected: the network or the task that would do; role: who it is.
    A user's module around a network may make one class for each row of what that says; the shape tells then.
    """
    kind = kind_of(network)
    if kind is None or task in kind.tasks or (task in _OF_ROWS and not kind.is_output):
        return
    if not kind.tasks:
        raise _no_task(role, kind)
    raise ModuleError(
        f"{role} is {type(kind.network).__name__}, and the task is {task!r}: {reason}; it is a model for {kind.what}. "
        f"Expected {expected}"
    )


def check_teacher(task: Any, name: str, teacher: Any) -> None:
    """Raise `ModuleError` for a teacher of tokens whose positions mean something else than the task's."""
    kind, own = kind_of(teacher), getattr(task, "name", None)
    if kind is None or own not in TASKS or own in _OF_ROWS or own in kind.tasks:
        return
    raise ModuleError(
        f"the teacher {name!r} is {type(kind.network).__name__}, a model for {kind.what}, and the task is {own!r}; "
        "expected a teacher for the same task: what the two say at a position has to answer the same question"
    )


def task_name(student: Any) -> str | None:
    """Return the name of the task that a student is for, None for one that does not say.

    Errors: `ModuleError` for a model of transformers that no task is for, or more than one.
    """
    kind = kind_of(student)
    if kind is None or kind.task is not None:
        return None if kind is None else kind.task
    if not kind.tasks:
        raise _no_task("the student", kind)
    possible = " or ".join(f"task={TASKS[task]}()" for task in kind.tasks)
    raise ModuleError(
        f"the student is {type(kind.network).__name__}, a model for {kind.what}, and no task was given; expected "
        f"{possible}, if that is what it is trained for"
    )


def _no_task(role: str, kind: Kind) -> ModuleError:
    listed = ", ".join(f"{name}()" for name in TASKS.values())
    return ModuleError(
        f"{role} is {type(kind.network).__name__}, a model for {kind.what}, for which there is no task; expected a "
        f"model for one of {listed}: to train it by one of them all the same, wrap it in a torch.nn.Module whose "
        "forward returns (rows, classes) or (rows, positions, classes), and pass task="
    )
