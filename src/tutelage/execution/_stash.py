"""Take the tensors out of an object and put them back, so that autograd can own them and free them after a backward."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class _Slot:
    place: int


def take_out(value: Any, tensors: list[Tensor]) -> Any:
    """Return a copy of nested dataclasses, lists, tuples and dicts without its tensors, which join the list."""
    if not isinstance(value, Tensor):
        return _rebuild(value, partial(take_out, tensors=tensors))
    tensors.append(value)
    return _Slot(len(tensors) - 1)


def put_back(value: Any, tensors: Sequence[Tensor]) -> Any:
    """Return the object that `take_out` was given."""
    return tensors[value.place] if isinstance(value, _Slot) else _rebuild(value, partial(put_back, tensors=tensors))


def _rebuild(value: Any, visit: Callable[[Any], Any]) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(visit(part) for part in value)
    if isinstance(value, dict):
        return {key: visit(part) for key, part in value.items()}
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    # A copy of the fields alone: checks in __post_init__ have passed, and slots are no tensors.
    clone = copy.copy(value)
    for field in dataclasses.fields(value):
        object.__setattr__(clone, field.name, visit(getattr(value, field.name)))
    return clone
