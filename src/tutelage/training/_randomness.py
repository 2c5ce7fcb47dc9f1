"""Looking at a run changes nothing: evaluation, logging and saving leave every random state as it was.

Even an evaluation that needs no random number draws one: each pass over a `DataLoader` takes the seed of its workers
from torch's global generator. Dropout would then hide other units after more evaluations.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_DEPTH = 3
_MOST_ITEMS = 16


@contextlib.contextmanager
def unchanged_randomness(device: torch.device, *owners: Any) -> Iterator[None]:
    """Restore the random states of Python, NumPy, torch and the device at the end, and those of the owners.

    Args:
        device: Where the student is; the state of its default generator is kept too.
        owners: Collators and data sets that may hold generators of their own, as attributes or a few levels deeper.
            A generator that is made inside the context, on first use, is forgotten: the next use makes it again.
    """
    restore: list[Callable[[], object]] = [
        partial(random.setstate, random.getstate()),
        partial(np.random.set_state, np.random.get_state()),
        partial(torch.set_rng_state, torch.get_rng_state()),
    ]
    if device.type != "cpu":
        module = torch.get_device_module(device)
        restore.append(partial(module.set_rng_state, module.get_rng_state()))
    for owner in owners:
        restore += [_kept(namespace) for namespace in _namespaces(owner, _DEPTH)]
    try:
        yield
    finally:
        for put_back in restore:
            put_back()


def _namespaces(thing: Any, depth: int) -> Iterator[dict[Any, Any]]:
    """Yield the dictionaries whose values may be generators: an object's attributes, and those of what it wraps."""
    # A bound method belongs to an object.
    thing = getattr(thing, "__self__", thing)
    if isinstance(thing, (type, nn.Module, Tensor, *_GENERATORS)):
        return
    if isinstance(thing, (list, tuple, dict)):
        # Pipelines of transforms and named data sets are short; rows are not looked through.
        if len(thing) > _MOST_ITEMS:
            return
        found: Any = thing if isinstance(thing, dict) else dict(enumerate(thing))
    else:
        found = getattr(thing, "__dict__", None)
    if not isinstance(found, dict):
        return
    yield found
    for value in list(found.values()) if depth else ():
        yield from _namespaces(value, depth - 1)


def _kept(namespace: dict[Any, Any]) -> Callable[[], None]:
    """Return what puts the generators among these values back, in the states that they have now."""
    before = dict(namespace)
    restore = [_state_kept(value) for value in before.values() if isinstance(value, _GENERATORS)]

    def put_back() -> None:
        for name in [name for name, value in namespace.items() if isinstance(value, _GENERATORS)]:
            if name in before:
                namespace[name] = before[name]
            else:
                del namespace[name]
        for put_state_back in restore:
            put_state_back()

    return put_back


def _state_kept(generator: Any) -> Callable[[], object]:
    if isinstance(generator, torch.Generator):
        return partial(generator.set_state, generator.get_state())
    if isinstance(generator, np.random.Generator):
        return partial(setattr, generator.bit_generator, "state", generator.bit_generator.state)
    if isinstance(generator, np.random.RandomState):
        return partial(generator.set_state, generator.get_state())
    return partial(generator.setstate, generator.getstate())
