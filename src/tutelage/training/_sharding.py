"""Sharding that was asked for and is not there: every rank would hold, and step, the whole model in silence."""

from __future__ import annotations

import os
from typing import Any

from torch import nn
from transformers import TrainingArguments
from transformers.training_args import ParallelMode

from tutelage.errors import ParameterError
from tutelage.models import is_sharded

# Set by `accelerate launch`, and by accelerate itself for the rest of the process.
_FSDP, _DEEPSPEED = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"


def check_asked_for(args: TrainingArguments) -> None:
    """Raise `ParameterError` for sharding that cannot come about, before anything is set up for it."""
    if getattr(args, "deepspeed", None) or is_set(_DEEPSPEED):
        raise ParameterError(
            "DeepSpeed was asked for, and its way of scaling gradients is not known to train the objective here; "
            "expected FSDP2: TrainingArguments(fsdp=True), or accelerate launch --use_fsdp"
        )
    if not args.fsdp:
        return
    config = args.fsdp_config if isinstance(args.fsdp_config, dict) else {}
    version = int(config.get("version", 2))
    if version != 2:
        raise ParameterError(f"fsdp_config has version {version}; expected 2: leave it out")
    if args.device.type == "cpu":
        raise ParameterError(
            "TrainingArguments.fsdp was asked for on a CPU, where accelerate leaves it off; expected a GPU for each "
            "process: leave fsdp out, or apply torch's fully_shard to the model in a loop of your own"
        )
    if args.parallel_mode != ParallelMode.DISTRIBUTED:
        raise ParameterError(
            "TrainingArguments.fsdp was asked for in one process; expected several: start with torchrun "
            "--nproc-per-node N, or leave fsdp out"
        )


def check_sharding(accelerator: Any) -> None:
    """Raise `ParameterError` if FSDP was asked for, by arguments or a launcher, and the accelerator leaves it off."""
    kind = str(getattr(accelerator.distributed_type, "value", accelerator.distributed_type))
    if is_set(_FSDP) and kind != "FSDP":
        raise ParameterError(
            f"FSDP was asked for ({_FSDP}={os.environ[_FSDP]}, set by a launcher or by an earlier trainer of this "
            f"process), and accelerate runs {kind!r} on {accelerator.device}; expected a GPU for each process: leave "
            f"it out, or unset {_FSDP}"
        )


def check_sharded(model: nn.Module) -> None:
    """Raise `ParameterError` if FSDP is active and no weight was sharded."""
    if not any(is_sharded(parameter) for parameter in model.parameters()):
        raise ParameterError(
            f"FSDP is active, and no weight of {type(model).__name__} was sharded; expected some on each rank: look "
            "at fsdp_config"
        )


def is_set(variable: str) -> bool:
    """Return whether an environment variable stands for true, as accelerate reads it."""
    return os.environ.get(variable, "").lower() in {"1", "true", "yes", "on", "y", "t"}
