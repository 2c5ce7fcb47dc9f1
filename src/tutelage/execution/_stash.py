"""Take the tensors out of an object and put them back, so that autograd can own them and free them after a backward."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import is_
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
    """Return a copy with all parts visited, or the value itself where no part has changed: most hold no tensors."""
    if isinstance(value, (list, tuple)):
        parts = [visit(part) for part in value]
        return value if all(map(is_, parts, value)) else type(value)(parts)
    if isinstance(value, dict):
        items = {key: visit(part) for key, part in value.items()}
        return value if all(map(is_, items.values(), value.values())) else items
    fields = getattr(type(value), "__dataclass_fields__", None)
    if fields is None:
        return value
    changed = {name: part for name in fields if (part := visit(old := getattr(value, name))) is not old}
    if not changed:
        return value
    # A copy of the fields alone: checks in __post_init__ have passed, and slots are no tensors.
    clone = copy.copy(value)
    for name, part in changed.items():
        object.__setattr__(clone, name, part)
    return clone
