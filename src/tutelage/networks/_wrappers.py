"""Wrappers that give back what the network inside returns: `torch.compile`, parallel training, adapters, heads."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import torch
from torch import nn


def unwrapped(network: Any) -> Any:
    """Return the network in a wrapper that passes its output on unchanged, None if it is no such wrapper.

    A class of this package says by `passes_on` which attribute holds the network.
    """
    if is_compiled(network):
        return network._orig_mod
    if isinstance(network, (nn.DataParallel, nn.parallel.DistributedDataParallel)) or _is_sharded_whole(network):
        return network.module
    if hasattr(network, "peft_config") and hasattr(network, "get_base_model"):
        return network.get_base_model()
    name = getattr(type(network), "passes_on", None)
    return getattr(network, name) if isinstance(name, str) else None


def is_compiled(network: Any) -> bool:
    """Return whether a network is what `torch.compile` returned."""
    # Whoever compiled one has loaded this, which is slow to load.
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return dynamo is not None and isinstance(network, dynamo.OptimizedModule)


def config_of(network: Any) -> Any:
    """Return the configuration of a network, None unless it is one of transformers."""
    transformers = sys.modules.get("transformers.configuration_utils")
    config = getattr(network, "config", None)
    return config if transformers is not None and isinstance(config, transformers.PreTrainedConfig) else None


def signature_of(network: nn.Module) -> inspect.Signature:
    """Return what a network is called with; for a wrapper that takes anything, what the network inside takes."""
    if isinstance(network, torch.jit.ScriptModule):
        return _scripted(network)
    signature = inspect.signature(network.forward)
    anything = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    if {parameter.kind for parameter in signature.parameters.values()} <= anything:
        inside = unwrapped(network)
        return signature if inside is None else signature_of(inside)
    return signature


def _scripted(network: Any) -> inspect.Signature:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    missing = inspect.Parameter.empty
    return inspect.Signature(
        [
            inspect.Parameter(
                # A trace numbers the names of its inputs ("input.1"), and takes them by position.
                argument.name.partition(".")[0],
                kind,
                default=argument.default_value if argument.has_default_value() else missing,
            )
            for argument in network.forward.schema.arguments[1:]
        ]
    )


def _is_sharded_whole(network: Any) -> bool:
    sharded = sys.modules.get("torch.distributed.fsdp.fully_sharded_data_parallel")
    return sharded is not None and isinstance(network, sharded.FullyShardedDataParallel)
