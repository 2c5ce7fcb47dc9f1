"""Which columns of a batch are read: by a network, or by the task."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from torch import nn

from tutelage.model import DistillationModel
from tutelage.networks import config_of, signature_of, unwrapped


def unread(model: DistillationModel, batches: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the columns that neither the task nor any network reads, though a network takes them without complaint."""
    networks = [model.student, *(teacher.module for teacher in model.teachers.values())]
    names = {name for batch in batches for name in model.task.inputs(batch)}
    return sorted(name for name in names if not any(_reads(network, name) for network in networks))


def _reads(network: nn.Module, name: str) -> bool:
    signature = signature_of(network)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    if name in signature.parameters or inspect.Parameter.VAR_KEYWORD not in kinds:
        # By position, a network reads what there is, whatever its name; others refuse a name that they do not know.
        return True
    while (inside := unwrapped(network)) is not None:
        network = inside
    if config_of(network) is None or not type(network).__module__.startswith("transformers."):
        return True  # a module of the user's may read anything
    return any(name in _names(type(part)) for part in network.modules())


def _names(cls: type[nn.Module]) -> set[str]:
    """Return the names that a forward of transformers lists, its keyword arguments among them."""
    found = set()
    for name, parameter in inspect.signature(cls.forward).parameters.items():
        found.add(name)
        for listed in get_args(parameter.annotation) if parameter.kind is parameter.VAR_KEYWORD else ():
            found |= set(getattr(listed, "__annotations__", {}))
    return found
