"""A teacher that runs beside the student, at every step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.errors import ModuleError, TeacherError
from tutelage.networks import check_mode


class LiveTeacher:
    """A network that is only ever asked: frozen, in eval mode at every call, no graph, no part of the student.

    Not an `nn.Module` on purpose: whoever holds one does not save it, train it, or set its mode. The network is frozen
    (`requires_grad_(False)`) and moved to where its inputs are; one that accelerate has dispatched or offloaded stays
    where it is, and brings its inputs there itself. Errors: `ModuleError`, `TeacherError`.

    >>> import torch
    >>> from tutelage.teachers import LiveTeacher
    >>> teacher = LiveTeacher(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout()))
    >>> with teacher.asked({"inputs": torch.ones(2, 4)}) as network:
    ...     logits = network(torch.ones(2, 4))
    >>> logits.requires_grad, network.training
    (False, False)
    """

    def __init__(self, module: nn.Module) -> None:
        if not isinstance(module, nn.Module):
            raise ModuleError(f"a teacher is {type(module).__name__}; expected a torch.nn.Module")
        check_mode("the teacher", module, is_trained=False)
        # One by one: what torch.jit made has no requires_grad_ of its own.
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        self.module = module.eval()

    def check_apart_from(self, name: str, student: nn.Module) -> None:
        """Raise `TeacherError` if student and teacher hold the same weights: training one would change the other."""
        mine = {_place(p) for p in self.module.parameters()} - {None}
        shared = [path for path, p in student.named_parameters() if _place(p) in mine]
        if shared:
            raise TeacherError(
                f"the teacher {name!r} and the student share {len(shared)} parameters, {shared[0]!r} among them; "
                "expected two networks: pass copy.deepcopy(teacher)"
            )

    @contextmanager
    def asked(self, inputs: Mapping[str, Any]) -> Iterator[nn.Module]:
        """Give the network, ready to be called with these inputs."""
        device = next((value.device for value in inputs.values() if isinstance(value, Tensor)), None)
        parameter = next(self.module.parameters(), None)
        if device is not None and parameter is not None and parameter.device != device:
            self._move(device)
        # At every call: the mode of a module is anybody's to change.
        self.module.eval()
        with torch.no_grad():
            yield self.module

    def _move(self, device: torch.device) -> None:
        # How accelerate marks a module whose weights it brings to where they are needed.
        if any(hasattr(module, "_hf_hook") for module in self.module.modules()):
            return
        missing = next((path for path, p in self.module.named_parameters() if p.device.type == "meta"), None)
        if missing is not None and device.type != "meta":
            raise TeacherError(
                f"the teacher {type(self.module).__name__} has no weights: {missing!r} lies on the device 'meta'; "
                "expected a network whose weights were loaded"
            )
        self.module.to(device)


def _place(parameter: Tensor) -> tuple[str, int] | None:
    """Return where a tensor lies, so that views of one memory are told to be one; None for one without elements."""
    # What is sharded lies on each rank where that rank's part of it does, which may be empty.
    mine: Tensor = parameter.to_local() if hasattr(parameter, "to_local") else parameter
    if not mine.numel():
        return None
    if mine.device.type == "meta":
        return "meta", id(parameter)
    return str(mine.device), mine.untyped_storage().data_ptr()
