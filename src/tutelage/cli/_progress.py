"""How far a run is: a bar on a terminal, plain lines in a log. Both say the same of every network that is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO, cast

from tutelage.cli._console import Talk, is_terminal, printable, say

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

EVERY_SECONDS = 10.0
PARTS = 10
"""A log gets a line for every tenth of the steps, and where these are slow, every so many seconds."""


class Reporter:
    """Says how far a run is, by the steps of all networks together."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.total = 0
        self.before = 0
        """The steps of the networks that are done."""
        self.skipped = 0
        """The steps that an earlier session did: they took no time in this one."""
        self.started = self.spoken = clock()
        self.spoken_at = 0
        self.bar: Bar | None = None
        self.task: TaskID | None = None

    def __enter__(self) -> Reporter:
        if is_terminal():
            self.bar = _bar()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def say(self, text: str) -> None:
        """Write a line, above the bar if there is one."""
        if self.bar is not None and self.task is not None:
            self.bar.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
        else:
            say(text)

    def begin(self, total: int) -> None:
        """Start counting; total: the steps that are known so far."""
        self.total = total
        self.started = self.spoken = self.clock()
        if self.bar is not None:
            self.task = self.bar.add_task("", total=total, numbers="")
            self.bar.start()

    def extend(self, steps: int) -> None:
        """Add steps to the total: only at its start is it known whether a teacher has to be fitted."""
        self.total += steps
        self._move(total=self.total)

    def start(self, name: str, resumed_at: int) -> None:
        """Take note that a network begins to train, at a step that an earlier session came to."""
        if resumed_at:
            self._skip(resumed_at, self.before + resumed_at)
            self.say(f"  {name}: goes on at step {resumed_at:,}")
        self._move(completed=self.before + resumed_at, description=name, numbers="")

    def step(self, name: str, step: int, steps: int, numbers: Mapping[str, float]) -> None:
        """Take note of a step of a network."""
        done, told = self.before + step, ", ".join(f"{key} {value:.3g}" for key, value in numbers.items())
        self._move(completed=done, description=name, numbers=told)
        now, tenth = self.clock(), PARTS * done // max(1, self.total)
        if self.bar is not None or (now - self.spoken < EVERY_SECONDS and tenth <= self.spoken_at):
            return
        left = (now - self.started) * (self.total - done) / max(1, done - self.skipped)
        rest = f"; about {duration(left)} left" if done < self.total else ""
        say(f"  {done / max(1, self.total):4.0%}  {name}, step {step:,} of {steps:,}: {told}{rest}")
        self.spoken, self.spoken_at = now, tenth

    def finish(self, name: str, steps: int, text: str, *, earlier: bool) -> None:
        """Say that a network is done; earlier: it was so before this session."""
        self.before += steps
        if earlier:
            self._skip(steps, self.before)
        self._move(completed=self.before, description=name, numbers="")
        self.say(f"  {name}: {text}")

    def _skip(self, steps: int, done: int) -> None:
        """Leave steps of an earlier session out of what is told: the first step of this one says little on the rest."""
        self.skipped += steps
        self.spoken_at = PARTS * done // max(1, self.total)

    def _move(self, **changes: Any) -> None:
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, **changes)


def duration(seconds: float) -> str:
    """Return a time as people say it.

    >>> duration(41.2), duration(80), duration(7300)
    ('41 s', '1 min 20 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _bar() -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns: list[Any] = [
        TextColumn("  {task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}", markup=False),
    ]
    # NO_COLOR and TERM=dumb are honoured by the console.
    return Progress(*columns, console=Console(file=cast(TextIO, Talk())), transient=True)
