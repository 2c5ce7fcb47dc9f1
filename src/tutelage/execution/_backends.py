"""WHO runs a block: `torch`, or `torch.compile` of the same function. `choose` is the one place that decides.

A further backend is a subclass with its line in `BACKENDS`, and a word in `choose` for when `auto` prefers it.
"""

from __future__ import annotations

import logging
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from itertools import count
from types import FunctionType
from typing import ClassVar

import torch
from torch import Tensor

from tutelage.divergences import WholeBatch
from tutelage.errors import BackendError
from tutelage.execution._block import BlockInputs, BlockSpec, run_block
from tutelage.execution._plan import Plan
from tutelage.execution._readers import Scalar

BlockFunction = Callable[[BlockInputs], tuple[Tensor, Tensor | None]]

_log = logging.getLogger("tutelage.execution")


class Backend(ABC):
    """A way to run the block function. It never changes what is computed."""

    name: ClassVar[str]

    @abstractmethod
    def refusal(self, plan: Plan) -> str | None:
        """Return why this backend cannot run the plan here, or None if it can."""

    @abstractmethod
    def block_function(self, spec: BlockSpec) -> BlockFunction:
        """Return the function from a block's tensors to values and gradient."""

    @abstractmethod
    def temperatures(self, values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Sequence[Scalar]:
        """Return the temperatures in the form that the block function takes."""


class Torch(Backend):
    """Plain PyTorch operations on every device."""

    name = "torch"

    def refusal(self, plan: Plan) -> str | None:
        return None

    def block_function(self, spec: BlockSpec) -> BlockFunction:
        return partial(run_block, spec)

    def temperatures(self, values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Sequence[Scalar]:
        return values


class Compile(Backend):
    """`torch.compile` of the block function: one kernel for many operations, after some seconds of compiling.

    It compiles once for each set of terms and kinds of teacher, not for each number of rows or each temperature.
    """

    name = "compile"

    def refusal(self, plan: Plan) -> str | None:
        if any(isinstance(job.divergence, WholeBatch) for job in plan.jobs):
            return "a divergence over the whole batch does not run in blocks"
        if plan.device.type == "cpu" and not _has_cpp_compiler():
            return "torch.compile needs a C++ compiler on a CPU, and found none (set CXX, or install g++ or clang++)"
        return None

    def block_function(self, spec: BlockSpec) -> BlockFunction:
        return partial(_run_compiled, spec)

    def temperatures(self, values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Sequence[Scalar]:
        return [torch.full((), value, dtype=dtype, device=device) for value in values]


def _has_cpp_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++") if name)


@lru_cache(maxsize=64)
def _compiled(spec: BlockSpec) -> BlockFunction:
    def block(inputs: BlockInputs) -> tuple[Tensor, Tensor | None]:
        return run_block(spec, inputs)

    # The compiler counts recompilations by code object, and gives up at a limit: each spec gets a code of its own.
    code = block.__code__.replace(co_name=f"block_{next(_numbers)}")
    return torch.compile(FunctionType(code, block.__globals__, code.co_name, None, block.__closure__), fullgraph=True)


_numbers = count()


def _run_compiled(spec: BlockSpec, inputs: BlockInputs) -> tuple[Tensor, Tensor | None]:
    if inputs.student.shape[0] == 1:
        # The compiler would make a kernel of its own for a single row: two equal ones go through the general one.
        values, gradient = _run_compiled(spec, inputs.map_rows(lambda tensor, dim: tensor.repeat_interleave(2, dim)))
        return values[:, :1], None if gradient is None else gradient[:1]

    def mark(tensor: Tensor, dim: int) -> Tensor:
        torch._dynamo.maybe_mark_dynamic(tensor, dim)
        return tensor

    return _compiled(spec)(inputs.map_rows(mark))


BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (Torch(), Compile())}


def choose(requested: str, plan: Plan) -> Backend:
    """Return the backend for a plan: the requested one, or for `auto` the best that needs no warm-up."""
    if requested != "auto":
        if requested not in BACKENDS:
            raise BackendError(f"backend {requested!r} does not exist; expected 'auto' or one of {sorted(BACKENDS)}")
        backend = BACKENDS[requested]
        if (reason := backend.refusal(plan)) is not None:
            raise BackendError(f"backend {requested!r} cannot run this: {reason}; use backend='auto'")
        return backend
    _log_once(f"auto chose 'torch' on {plan.device.type}: 'compile' is faster once compiled, and is opt-in")
    return BACKENDS["torch"]


@cache
def _log_once(message: str) -> None:
    _log.info(message)
