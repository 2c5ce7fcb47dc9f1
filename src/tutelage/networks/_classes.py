"""The classes of a classifier: their names, their order, and whether they exclude each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tutelage.errors import ModelError
from tutelage.networks._kinds import kind_of
from tutelage.networks._wrappers import config_of, unwrapped

_UNNAMED = re.compile(r"LABEL_\d+")
_OF_CLASSES = ("classification", "sequence_classification", "token_classification")


def are_named(classes: Sequence[str]) -> bool:
    """Return whether classes have names of their own, and not the LABEL_0, LABEL_1, ... of a model without names."""
    return not all(_UNNAMED.fullmatch(name) for name in classes)


def class_names(network: Any) -> tuple[str, ...] | None:
    """Return the names of a classifier's classes in the order of its logits, None for a network that has no names."""
    config = _classifier_config(network)
    if config is None:
        return None
    names = {int(place): name for place, name in (config.id2label or {}).items()}
    if sorted(names) != list(range(len(names))):
        raise ModelError(
            f"{type(network).__name__} has id2label {config.id2label}; expected the names of its classes by their "
            "numbers from 0"
        )
    return tuple(str(names[place]) for place in range(len(names)))


def are_placeholders(names: Sequence[str]) -> bool:
    """Return whether names say nothing of the classes: LABEL_0, LABEL_1, ... or the numbers of the logits."""
    return not are_named(names) or all(name == str(place) for place, name in enumerate(names))


def class_places(student: Sequence[str], teacher: Sequence[str]) -> list[int] | None:
    """Return where a teacher's logits have each of the student's classes; None if its classes are not the same ones.

    Case counts only where names differ in nothing else.

    >>> class_places(["cat", "dog"], ["dog", "cat"]), class_places(["cat", "dog"], ["cat", "bird"])
    ([1, 0], None)
    """
    for same in (str, str.casefold):
        mine, theirs = [same(name) for name in student], [same(name) for name in teacher]
        if mine == theirs:
            return list(range(len(mine)))  # two classes may share a name, as the two cranes of ImageNet do
        if len(set(mine)) == len(mine) == len(theirs) and set(mine) == set(theirs):
            return [theirs.index(name) for name in mine]
    return None


def check_exclusive(role: str, config: Any) -> None:
    """Raise `ModelError` for a configuration of a model whose outputs are no classes that exclude each other."""
    kind = getattr(config, "problem_type", None)
    if kind in (None, "single_label_classification"):
        return
    why = (
        "whose outputs are numbers and no classes"
        if kind == "regression"
        else "where classes do not exclude each other"
    )
    raise ModelError(
        f"{role} is made for {kind!r}, {why}; expected one that gives each row or token one class "
        "(problem_type='single_label_classification'): there is no task for others yet"
    )


def check_outputs(role: str, network: Any) -> None:
    """Raise `ModelError` for a classifier whose outputs are not compared by a softmax over its classes."""
    config = _classifier_config(network)
    if config is None:
        return
    check_exclusive(role, config)
    if config.num_labels == 1:
        raise ModelError(
            f"{role} has one output (num_labels=1), which is a number or one probability and no distribution over "
            "classes; expected two outputs or more, or terms that compare logits alone, such as LogitMSE"
        )


def _classifier_config(network: Any) -> Any:
    """Return the configuration of a classifier of transformers, None for any other network."""
    kind = kind_of(network)
    if kind is not None:
        return config_of(kind.network) if set(kind.tasks) & set(_OF_CLASSES) else None
    while (inside := unwrapped(network)) is not None:
        network = inside
    # A user's subclass with a head of its own; a network around one has its own classes.
    return config_of(network) if hasattr(network, "base_model_prefix") else None
