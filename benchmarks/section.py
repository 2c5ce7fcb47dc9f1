"""What a section of the report is: a table beside the bounds of the issue, and how its cells are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.memory import Peak, peak_of
from benchmarks.timing import Ratio, Timings, measure
from benchmarks.variants import Case, check

Errors = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Bound:
    """One claim of the issue: a figure that must not exceed a limit."""

    what: str
    measured: float
    limit: float
    unit: str

    @property
    def is_met(self) -> bool:
        """Whether the figure is within its limit."""
        return self.measured <= self.limit


@dataclass(frozen=True)
class Section:
    """A table with its bounds, and what it was made of."""

    title: str
    what: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    bounds: list[Bound]
    timings: Timings | None
    """None where nothing but memory is measured."""
    errors: Errors
    peaks: dict[str, Peak] = field(default_factory=dict)


def checked_and_timed(case: Case, rounds: int) -> tuple[Errors, Timings]:
    """Compare every variant with the truth first: what is wrong is never timed."""
    return check(case), measure(case, rounds)


def peaks_of(case: str, names: Iterable[str]) -> dict[str, Peak]:
    """Return the peaks of some variants of a case, each measured in a process of its own."""
    return {name: peak_of(case, name) for name in names}


def milliseconds(timings: Timings, name: str) -> str:
    """Return the median time of a variant."""
    return f"{timings.median(name) * 1e3:.0f}"


def times(ratio: Ratio) -> str:
    """Return a ratio with the least and the largest of its rounds."""
    return f"**{ratio.median:.2f}x** ({ratio.low:.2f}-{ratio.high:.2f})"


def megabytes(peak: Peak | None, *leaves: str) -> str:
    """Return a peak beside the gradients of some leaves, and in brackets that of PyTorch's allocator."""
    if peak is None:
        return ""
    return f"{peak.beside(*leaves):.0f} ({peak.beside(*leaves, allocated=True):.0f})"


def worst_error(errors: Errors, name: str) -> str:
    """Return the error of the worst gradient of a variant."""
    if name not in errors:
        return ""
    return f"{max(error for leaf, error in errors[name].items() if leaf != 'loss'):.0e}"


def all_bounds(sections: Sequence[Section]) -> list[Bound]:
    """Return the bounds of all sections."""
    return [bound for section in sections for bound in section.bounds]
