"""The peak memory of one step, in a fresh process for each variant.

`python -m benchmarks.memory CASE VARIANT [CHUNK_BYTES BLOCK_BYTES]` prints a `Peak` as JSON; `peak_of` calls it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import re
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.catalogue import one
from benchmarks.variants import Variant
from tutelage.execution import byte_budget

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Peak:
    """Bytes of one step beyond what was there before it. Both peaks still hold the gradients."""

    resident: int
    """The most of the process's resident set, minus the resident set right before the step."""
    allocated: int
    """The most that PyTorch's allocator had given out at once within the step."""
    gradients: dict[str, int]
    """Bytes of the gradient of each leaf."""
    kept: int
    """Resident bytes that stay with the process from its first full step on, once gradients are gone."""

    def beside(self, *leaves: str, allocated: bool = False) -> float:
        """Return the resident peak without the gradients of some leaves, in MB (10^6 bytes)."""
        peak = self.allocated if allocated else self.resident
        return (peak - sum(self.gradients[leaf] for leaf in leaves)) / 1e6


def peak_of(case: str, variant: str, *budget: int) -> Peak:
    """Return the peak of one variant, measured in a process of its own; budget: chunk_bytes, block_bytes."""
    command = [sys.executable, "-m", "benchmarks.memory", case, variant, *map(str, budget)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def resident_peak(variant: Variant) -> tuple[int, int]:
    """Return the most resident bytes of a step beyond those right before it, and those."""
    variant.student.clear()
    _give_back()
    _RESET.write_text("5")  # sets the peak, VmHWM, to the present
    before = _status("VmRSS")
    variant.step()
    peak = _status("VmHWM")
    variant.student.clear()
    return peak - before, before


def allocated_peak(variant: Variant) -> int:
    """Return the most bytes that PyTorch's allocator had given out at once in a step, as its profiler records them."""
    variant.student.clear()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        variant.step()
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    variant.student.clear()
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return int(most)


def _give_back() -> None:
    """Return what was freed to the system, so that it cannot serve the next step unseen."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _status(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def main(case: str, name: str, *budget: str) -> None:
    """Measure one variant here and print the result."""
    torch.set_num_threads(2)
    with byte_budget(*map(int, budget)) if budget else nullcontext():
        peak = _measure(case, name)
    print(json.dumps(asdict(peak)))


def _measure(case: str, name: str) -> Peak:
    # At two rows first: libraries start, kernels compile, and no block of the real size is left in the heap.
    small = one(case, name, small=True)
    small.run()
    small.student.clear()
    variant = one(case, name)
    _, before = resident_peak(variant)
    second, after = resident_peak(variant)
    return Peak(
        resident=second,
        allocated=allocated_peak(variant),
        gradients={leaf: tensor.numel() * tensor.element_size() for leaf, tensor in variant.student.leaves.items()},
        kept=after - before,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
