"""How many bytes of logits exist at once: the one place where block sizes come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache

import torch

from tutelage.errors import ParameterError
from tutelage.parameters import whole

_MIB = 2**20


@dataclass(frozen=True)
class Budget:
    """Bytes for the logits of a chunk, over all heads, and for one float matrix of a block."""

    chunk_bytes: int
    block_bytes: int
    head_block_bytes: int = 0
    """The same where heads make the logits, if larger: a little faster, and still small beside the chunk."""

    def chunk_rows(self, widths: Sequence[int], count: int, at_least: int) -> int:
        """Return how many rows the heads turn into logits at once; `widths` are bytes per row."""
        return max(at_least, min(count, self.chunk_bytes // sum(widths)))

    def block_rows(self, width: int, count: int, has_heads: bool) -> int:
        """Return how many rows one call of the block function sees."""
        budget = max(self.block_bytes, self.head_block_bytes) if has_heads else self.block_bytes
        return max(1, min(count, budget // width))


# Chosen by benchmarks/sweep.py on 2 cores with 1 MiB of L2 each and 32 MiB of L3. Blocks of 1 MiB are within a tenth of
# the fastest, and the eight matrices or so that live at once stay under 16 MB; chunks of 96 MiB make the products as
# fast as unchunked ones.
_CPU = Budget(chunk_bytes=96 * _MIB, block_bytes=1 * _MIB, head_block_bytes=2 * _MIB)
# A GPU wants few, large launches: a block is a whole chunk.
_GPU = Budget(chunk_bytes=512 * _MIB, block_bytes=512 * _MIB, head_block_bytes=512 * _MIB)

_override: ContextVar[Budget | None] = ContextVar("tutelage_budget", default=None)


def budget_for(device: torch.device) -> Budget:
    """Return the budget in force on a device."""
    return _override.get() or (_CPU if device.type == "cpu" else _GPU)


def exact_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype for sums of weights and what they divide: float64, but where a device has none."""
    return torch.float32 if device.type == "mps" else torch.float64


@lru_cache(maxsize=1)
def keep_blocks_in_the_heap() -> None:
    """Teach glibc's allocator, once, to keep freed blocks for the next ones instead of returning their pages.

    Its thresholds follow the largest mapped chunk that was freed, up to 32 MiB. At their low start every block would
    be mapped and zeroed anew, which takes longer than most operations on it: blocks of 1 MiB and more run up to twice
    as fast with this line. The memory is never touched; other allocators do not mind.
    """
    torch.empty(31 * _MIB, dtype=torch.uint8)


def _bytes(name: str, value: object) -> int:
    count = whole(value)
    if count is None or count < 1:
        raise ParameterError(f"byte_budget({name}={value!r}): expected a number of bytes >= 1")
    return count


@contextmanager
def byte_budget(chunk_bytes: int, block_bytes: int | None = None) -> Iterator[None]:
    """Set the bytes of logits that may exist at once, for the calls inside the `with` block.

    chunk_bytes: for the logits that heads make at once, of all models together; block_bytes: for each of the matrices
    the terms work on, chunk_bytes unless given. The result does not depend on them but for rounding.

    >>> import torch, tutelage as tl
    >>> with tl.execution.byte_budget(64 * 2**20, block_bytes=2**20):
    ...     tl.divergence(torch.zeros(2, 3), torch.zeros(2, 3)).item()
    0.0
    """
    block_bytes = chunk_bytes if block_bytes is None else block_bytes
    token = _override.set(Budget(_bytes("chunk_bytes", chunk_bytes), _bytes("block_bytes", block_bytes)))
    try:
        yield
    finally:
        _override.reset(token)
