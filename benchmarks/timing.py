"""Paired timing: all variants of a case in every round, so that what disturbs the machine disturbs them alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.machine import Foreign
from benchmarks.variants import Case, Variant

WARM_UPS = 2
FOREIGN = 0.05
"""The share of the CPU time that other processes may take within a step; where they took more, it is run again."""
PATIENCE = 1800.0
"""Seconds of waiting for a quiet machine, for one case; then its remaining rounds count as they are."""


@dataclass(frozen=True)
class Ratio:
    """One variant's time over another's: the median of the ratios of all rounds, the least and the largest."""

    median: float
    low: float
    high: float


@dataclass
class Timings:
    """Seconds of every variant in every round."""

    seconds: dict[str, list[float]]
    disturbed: int = 0
    """How many steps count although other processes took more than `FOREIGN`."""

    def median(self, name: str) -> float:
        """Return the median seconds of a variant."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, other: str, factor: float = 1.0) -> Ratio:
        """Return the time of a variant over that of another, paired by rounds, times a factor."""
        ratios = [factor * a / b for a, b in zip(self.seconds[name], self.seconds[other], strict=True)]
        return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def measure(case: Case, rounds: int, warm_ups: int = WARM_UPS) -> Timings:
    """Return the timings of a case; the order rotates from round to round."""
    foreign, deadline = Foreign(), time.monotonic() + PATIENCE
    _wait_for_quiet(foreign, deadline)
    for variant in case.values():
        for _ in range(warm_ups):
            variant.run()
        variant.student.clear()
    timings = Timings({name: [] for name in case})
    for number in range(rounds):
        for name in _rotated(list(case), number):
            timings.seconds[name].append(_undisturbed(case[name], foreign, deadline, timings))
    return timings


def _undisturbed(variant: Variant, foreign: Foreign, deadline: float, timings: Timings) -> float:
    """Return the time of a step, run again until other processes leave it alone, or the deadline has passed."""
    while True:
        foreign.share()
        seconds, share = _seconds(variant), foreign.share()
        if share <= FOREIGN:
            return seconds
        if time.monotonic() > deadline:
            timings.disturbed += 1
            return seconds
        _wait_for_quiet(foreign, deadline)


def _wait_for_quiet(foreign: Foreign, deadline: float) -> None:
    """Wait until others leave the machine alone for a second, or the deadline has passed."""
    while True:
        foreign.share()
        time.sleep(1)
        if foreign.share() <= FOREIGN or time.monotonic() > deadline:
            break
    foreign.share()


def _rotated(names: Sequence[str], number: int) -> list[str]:
    start = number % len(names)
    return [*names[start:], *names[:start]]


def _seconds(variant: Variant) -> float:
    """Return the time of one step; cleared gradients and collected garbage are not part of it."""
    variant.student.clear()
    gc.collect()
    gc.disable()
    start = time.perf_counter()
    variant.step()
    seconds = time.perf_counter() - start
    gc.enable()
    variant.student.clear()
    return seconds
