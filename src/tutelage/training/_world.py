"""Which processes train together: as many as a launcher started, or none at all.

accelerate looks for a GPU first: without one, and without being told to use the CPU, it takes each process of a
launcher for the only one, and each would train a network of its own on a share of the batch.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState, PartialState  # type: ignore[import-untyped]
from transformers import TrainingArguments

from tutelage.errors import ParameterError
from tutelage.training._sharding import is_set

_log = logging.getLogger(__name__)

# As accelerate reads them: those of torchrun and accelerate launch, Intel MPI and MPICH, Open MPI, MVAPICH2.
_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_LOCAL_SIZES = ("LOCAL_WORLD_SIZE", "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE")
_SLURM_SIZE = "SLURM_STEP_NUM_TASKS"
_USE_CPU = "ACCELERATE_USE_CPU"


def world_size() -> int:
    """Return how many processes train together: those that are connected, or that a launcher started."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return _launched()[0]


def uses_cpu(device: str = "auto") -> bool:
    """Return whether networks are trained on the CPU: where it was asked for, or where there is nothing else.

    Several processes on a Mac share the CPU too, as its GPU has no way to sum gradients over them.
    """
    if device == "cpu" or is_set(_USE_CPU):
        return True
    found = torch.accelerator.current_accelerator(check_available=True)
    return found is None or (found.type == "mps" and world_size() > 1)


def connect_processes(device: str) -> None:
    """Connect this process with the others, where a launcher started several; see `uses_cpu` for the device.

    Errors: `ParameterError` where they cannot be connected.
    """
    size, variable = _launched()
    if size == 1 or dist.is_initialized():
        return
    on_cpu = uses_cpu(device)
    with _connecting(size, variable):
        # As TrainingArguments does it: a state from before the launcher's variables knows of one process.
        AcceleratorState._reset_state(reset_partial_state=True)
        # The others wait while the first scores a network or writes a file, however long that takes.
        state = PartialState(cpu=on_cpu, timeout=timedelta(days=1), **({"backend": "gloo"} if on_cpu else {}))
    _check(state.num_processes, "accelerate sees", variable)


def connected(args: TrainingArguments) -> TrainingArguments:
    """Return arguments by which the processes of a launcher train together, without a GPU too.

    Errors: `ParameterError` where these arguments know of fewer or more processes than there are.
    """
    size, variable = _launched()
    if size > 1 and args.world_size == 1 and uses_cpu():
        args = copy.copy(args)
        args.use_cpu = True
        # The device, and the connection with it, is found once and kept; now it is found again.
        vars(args).pop("_setup_devices", None)
        with _connecting(size, variable):
            assert args.device.type == "cpu", args.device
    _check(args.world_size, "TrainingArguments sees", variable)
    tasks = int(os.environ.get(_SLURM_SIZE) or 1)
    if world_size() == 1 and tasks > 1:
        _log.warning(
            "SLURM started %d tasks (%s), and none of them knows of the others, so each trains alone; to let them "
            "train together, start torchrun in one task per node, or set WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR "
            "and MASTER_PORT",
            tasks,
            _SLURM_SIZE,
        )
    return args


def check_world(accelerator: Any) -> None:
    """Raise `ParameterError` unless the accelerator of a trainer knows of all processes there are."""
    _check(int(accelerator.num_processes), "the trainer's accelerator sees", _launched()[1])


def _check(seen: int, where: str, variable: str) -> None:
    there = world_size()
    if seen != there:
        by_torch = dist.is_available() and dist.is_initialized()
        said = "torch.distributed has connected" if by_torch else f"a launcher started ({variable}={there})"
        raise ParameterError(
            f"{said} {there} process{'es' if there > 1 else ''}, and {where} {seen}: each would train alone; expected "
            "the same number: start with torchrun or accelerate launch, and make TrainingArguments and trainer in the "
            "processes that they start"
        )


def _launched() -> tuple[int, str]:
    """Return how many processes a launcher started, and the environment variable that says so."""
    for variable in _SIZES:
        text = os.environ.get(variable)
        if text is None:
            continue
        if not text.strip().isdecimal():
            raise ParameterError(f"{variable}={text!r}: expected a number of processes, as a launcher sets it")
        return int(text), variable
    return 1, _SIZES[0]


@contextlib.contextmanager
def _connecting(size: int, variable: str) -> Iterator[None]:
    """Say which launcher was believed where its processes cannot be connected."""
    local = next((os.environ[name] for name in _LOCAL_SIZES if name in os.environ), None)
    if local == str(size):
        # MPI tells its processes their numbers and no address; on one machine there is only one.
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    try:
        yield
    except (ValueError, RuntimeError) as error:
        # What was begun would be taken for a state that is ready.
        AcceleratorState._reset_state(reset_partial_state=True)
        raise ParameterError(
            f"a launcher started {size} processes ({variable}={size}), and they cannot be connected: {error}; expected "
            f"them to be started by torchrun or accelerate launch; for one process, unset {variable}"
        ) from error
