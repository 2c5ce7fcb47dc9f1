"""How far a run is: a bar on a terminal, plain lines in a log. Both say the same of every network that is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tutelage.cli._console import is_terminal, say

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

EVERY_SECONDS = 10.0
EVERY_SHARE = 0.1


class Reporter:
    """Says how far training is. steps: of all networks together."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.steps = 0
        self.done_before = 0
        self.started = self.spoken = clock()
        self.spoken_at = 0.0
        self.bar: Bar | None = None

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
        """Write a line above the bar, if there is one."""
        if self.bar is None or not self.bar.live.is_started:
            say(text)
        else:
            self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def begin(self, steps: int) -> None:
        """Start counting: this many steps for all networks together."""
        self.steps = steps
        self.started = self.spoken = self.clock()
        if self.bar is not None:
            self.bar.add_task("", total=max(1, steps), numbers="")
            self.bar.start()

    def step(self, name: str, step: int, steps: int, numbers: Mapping[str, float]) -> None:
        """Take note of a step of one network."""
        done = self.done_before + step
        told = ", ".join(f"{key} {value:.3g}" for key, value in numbers.items())
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=done, description=name, numbers=told)
            return
        now, share = self.clock(), done / max(1, self.steps)
        if now - self.spoken < EVERY_SECONDS and share - self.spoken_at < EVERY_SHARE:
            return
        left = (now - self.started) * (1 - share) / share if share else 0.0
        rest = f", about {duration(left)} left" if share < 1 else ""
        say(f"  {share:4.0%}  {name}, step {step:,} of {steps:,}: {told}{rest}")
        self.spoken, self.spoken_at = now, share

    def finish(self, name: str, steps: int, text: str) -> None:
        """Say that one network is done."""
        self.done_before += steps
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=self.done_before, description=name)
        self.say(f"  {name}: {text}")


def duration(seconds: float) -> str:
    """Return a time as people say it.

    >>> duration(41.2), duration(80), duration(7300)
    ('41 s', '1 min 20 s', '2 h 2 min')
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
        TextColumn("{task.fields[numbers]}"),
    ]
    # NO_COLOR and TERM=dumb are honoured by the console.
    return Progress(*columns, console=Console(stderr=True), transient=True)
