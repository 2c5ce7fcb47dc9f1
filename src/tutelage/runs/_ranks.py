"""Several processes that carry out one run: one of them writes and tells, and the others keep step with it.

A launcher (`torchrun`, `accelerate launch`) starts them and says by the environment how many they are. All of them read
the data and train; where files appear, the others wait until they are there.
"""

from __future__ import annotations

import atexit
from typing import Any

import torch.distributed as dist

from tutelage.config import Recipe
from tutelage.errors import RunFolderError
from tutelage.training import connect_processes


def join(recipe: Recipe | None) -> None:
    """Connect this process with the others, where a launcher started several."""
    if recipe is None or dist.is_initialized():
        return
    connect_processes(recipe.training.device)
    if dist.is_initialized():
        atexit.register(_leave)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def is_first() -> bool:
    """Return whether this process is the one that writes."""
    return not dist.is_initialized() or dist.get_rank() == 0


def count() -> int:
    """Return how many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def agreed(value: Any) -> Any:
    """Return the first process's value, in all of them; so all are as far as the first is."""
    if count() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0)
    return held[0]


def together(work: Any) -> Any:
    """Return what the first process's work returns, in all of them, once it is done.

    What it raises is raised there; the others stop with it, for a message is worth one process's and no more.
    """
    if count() == 1:
        return work()
    outcome: Any = None
    if is_first():
        try:
            outcome = work()
        except BaseException:
            agreed((False, None))
            raise
    done, value = agreed((True, outcome))
    if not done:
        raise RunFolderError("the first process failed, and says why")
    return value
