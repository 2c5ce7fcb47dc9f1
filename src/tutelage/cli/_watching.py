"""The events of a run, in words."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from tutelage.cli._progress import Reporter, duration
from tutelage.runs import (
    ArmDone,
    ArmStarted,
    Event,
    Note,
    Plan,
    Progress,
    Started,
    Stopping,
    TeacherFitted,
    TeacherReused,
)

_SOURCES = {
    "cache": "fitted by an earlier run, and reused",
    "weights": "with the weights that the recipe names",
    "run": "of this run, before it was stopped",
}


class Watcher:
    """Follows a run and tells about it; a context, so that a bar is taken away whatever ends the run."""

    def __init__(self) -> None:
        self.reporter = Reporter()
        self.plan: Plan | None = None
        self.fitted = False

    def __enter__(self) -> Watcher:
        self.reporter.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.reporter.__exit__(kind, error, trace)

    def __call__(self, event: Event) -> None:
        """Tell about one event."""
        reporter = self.reporter
        match event:
            case Started():
                self.plan = event.plan
                reporter.begin(event.plan.total_steps)
            case TeacherReused():
                reporter.say(f"  teacher: {_SOURCES.get(event.source, event.source)}")
            case TeacherFitted():
                kept = "" if event.kept is None else f", kept for the next run in {event.kept}"
                self.fitted = True
                reporter.say(f"  teacher: fitted in {duration(event.seconds)}{kept}")
            case ArmStarted():
                if event.seed is None:
                    reporter.extend(event.steps)
                reporter.start(_name(event), event.resumed_at)
            case Progress():
                reporter.step(_name(event), event.step, event.steps, event.logs)
            case ArmDone():
                steps = self._steps(event)
                told = _scores(event.scores) + (", done before" if event.reused and event.seed is not None else "")
                reporter.finish(_name(event), steps, told, earlier=event.reused)
            case Note():
                reporter.say(f"  {event.text}")
            case Stopping():
                reporter.say("Stopping: the step is being finished and saved. A second signal stops at once.")

    def _steps(self, event: ArmDone) -> int:
        """Return the steps that a network counts for; a teacher that was not fitted here counts for none."""
        if self.plan is None or (event.seed is None and not self.fitted):
            return 0
        return self.plan.steps[event.arm]


def _name(event: ArmStarted | Progress | ArmDone) -> str:
    return event.arm if event.seed is None else f"seed {event.seed} {event.arm}"


def _scores(scores: Mapping[str, Any]) -> str:
    if "perplexity" in scores:
        return f"{scores['nll']:.3f} nats per token, perplexity {scores['perplexity']:.1f}"
    return f"{scores['errors']:,} errors of {scores['rows']:,}, accuracy {scores['accuracy']:.1%}"
