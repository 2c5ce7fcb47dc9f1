"""Which columns of a batch a network reads, and which names of columns are meant as labels."""

from __future__ import annotations

import inspect
from typing import Any, get_args

from tutelage.networks._wrappers import config_of, signature_of, unwrapped

LIKE_LABELS = ("label", "label_id", "label_ids", "target", "targets")
"""Names that others give to labels."""


def reads(network: Any, name: str) -> bool:
    """Return whether a network reads a column, or may do so; models of transformers take names that they do not read.

    By position, a network reads what there is, whatever its name; others refuse a name that they do not know.
    """
    signature = signature_of(network)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    if name in signature.parameters or inspect.Parameter.VAR_KEYWORD not in kinds:
        return True
    while (inside := unwrapped(network)) is not None:
        network = inside
    if config_of(network) is None or not type(network).__module__.startswith("transformers."):
        return True  # a module of the user's may read anything
    return any(name in _names(type(part)) for part in network.modules())


def _names(cls: Any) -> set[str]:
    """Return the names that a forward of transformers lists, its keyword arguments among them."""
    found = set()
    for name, parameter in inspect.signature(cls.forward).parameters.items():
        found.add(name)
        for listed in get_args(parameter.annotation) if parameter.kind is parameter.VAR_KEYWORD else ():
            found |= set(getattr(listed, "__annotations__", {}))
    return found
