"""Networks whose training mode cannot be changed: exported ones, and traces that fixed it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from tutelage.errors import ModuleError

# Where an operation of a graph has its probability, if it has one, and whether it is training.
_MODES = {
    "aten::dropout": (1, 2),
    "aten::dropout_": (1, 2),
    "aten::feature_dropout": (1, 2),
    "aten::alpha_dropout": (1, 2),
    "aten::batch_norm": (None, 5),
}


def check_mode(role: str, network: nn.Module, *, is_trained: bool) -> None:
    """Raise `ModuleError` for a network that cannot be set to the mode that it is called in.

    role: who it is, as the error names it; is_trained: whether it is set to training mode, too, and not only to
    evaluation mode. Scripted networks keep both modes; a trace has one, which matters if it has dropout or batch norm.
    """
    scripts: set[int] = set()
    for part in network.modules():
        if isinstance(part, torch.fx.GraphModule) and "train" in vars(part):
            raise ModuleError(
                f"{role} is a network that torch.export made, which has no training and evaluation mode; expected the "
                "module that it was exported from"
            )
        if isinstance(part, torch.jit.ScriptModule) and id(part) not in scripts:
            scripts.update(map(id, part.modules()))
            fixed = set(_fixed(part))
            if True in fixed or (is_trained and fixed):
                mode = "training" if True in fixed else "evaluation"
                raise ModuleError(
                    f"{role} is a trace whose dropout or batch norm stays in {mode} mode; expected a network that can "
                    "be set to the mode it is called in: pass the module that it was traced from"
                    f"{'' if is_trained else ', or trace module.eval()'}"
                )


def _fixed(script: Any) -> Iterator[bool]:
    """Yield the modes that are constants in a graph, without dropout that never does anything."""
    graph = getattr(script, "inlined_graph", None)
    for name, (probability, training) in _MODES.items():
        for node in () if graph is None else graph.findAllNodes(name):
            inputs = list(node.inputs())
            mode = inputs[training].toIValue()
            if isinstance(mode, bool) and (probability is None or inputs[probability].toIValue() != 0):
                yield mode
