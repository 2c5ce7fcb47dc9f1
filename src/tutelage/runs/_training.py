"""One network trained to its end, or to where a signal stops it, and resumed from there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tutelage.objective import Objective
from tutelage.run_folder import TEACHER, ArmFolder, read_json, write_json
from tutelage.runs import _ranks
from tutelage.runs._events import ArmStarted, Event, Progress, Stopping
from tutelage.tasks import Task
from tutelage.training import DistillationTrainer, Interruptible, MetricsLog, last_checkpoint
from tutelage.vocabulary import VocabularyMap

OnEvent = Callable[[Event], None]

WATCHING = 0
"""The seed of what makes batches of held-out rows: what it hides is the same for every network, whatever its seed."""


class Stopped(Exception):  # noqa: N818 - no error: a signal came, and all is saved
    """Training was stopped, and its checkpoint is there. signal: which stopped it."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signal = signum


@dataclass(frozen=True, eq=False)
class Lesson:
    """Everything that one training takes.

    seed: None for the teacher; held_out: what it is evaluated on, or None; watching: what makes batches of that.
    """

    seed: int | None
    arm: str
    network: nn.Module
    teacher: nn.Module | None
    objective: Objective
    rows: Any
    held_out: Any
    collator: Any
    watching: Any
    arguments: TrainingArguments
    folder: ArmFolder
    task: Task | None
    vocabulary: VocabularyMap | None


def train(lesson: Lesson, on_event: OnEvent) -> tuple[float, int | None]:
    """Train, from the last checkpoint if there is one; return seconds, and the signal that came too late to stop it.

    Errors: `Stopped` after a signal, and those of `DistillationTrainer`.
    """
    folder, steps = lesson.folder, lesson.arguments.max_steps
    checkpoint = _ranks.together(lambda: last_checkpoint(folder.checkpoints))
    before = _seconds_before(folder) if checkpoint is not None else 0.0
    resumed_at = 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])
    on_event(ArmStarted(lesson.seed, lesson.arm, steps, resumed_at))
    stop = Interruptible(lambda: on_event(Stopping()))
    clock = _Clock(folder, before)
    callbacks = [stop, clock, _Told(lesson, on_event)]
    # The teacher's fit has no log: a teacher that comes from the cache has none either.
    log = MetricsLog(folder.metrics)
    callbacks += [] if lesson.arm == TEACHER else [_AtTheEnd(), log]
    trainer = _Trainer(
        lesson.watching,
        model=lesson.network,
        teacher=lesson.teacher,
        objective=lesson.objective,
        args=lesson.arguments,
        data_collator=lesson.collator,
        train_dataset=lesson.rows,
        eval_dataset=lesson.held_out,
        callbacks=callbacks,
        task=lesson.task,
        vocabulary=lesson.vocabulary,
    )
    # It prints what is logged to stdout, which is for data.
    trainer.remove_callback(PrinterCallback)
    trainer.train(checkpoint)
    if lesson.arm != TEACHER and not folder.metrics.exists():
        # There was no step left to take, and so nothing to log.
        log.on_train_begin(lesson.arguments, trainer.state, trainer.control)
    if trainer.interrupted:
        assert stop.signal is not None, stop
        raise Stopped(stop.signal)
    return clock.seconds, stop.signal


def _seconds_before(folder: ArmFolder) -> float:
    """Return how long it took to come to the last checkpoint."""
    return float(read_json(folder.timing).get("train_seconds", 0.0)) if folder.timing.is_file() else 0.0


class _Trainer(DistillationTrainer):
    """Makes batches of held-out rows in a way of their own, and resumes from a checkpoint that was read through."""

    def __init__(self, watching: Any, **settings: Any) -> None:
        super().__init__(**settings)
        self._watching = watching

    def _whole_checkpoint(self, wanted: str | Path | bool) -> Path:
        assert isinstance(wanted, Path), wanted
        return wanted

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Return the loader of the held-out rows."""
        training, self.data_collator = self.data_collator, self._watching
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = training


class _Clock(TrainerCallback):
    """Counts the seconds of all sessions, and writes them with every checkpoint: a killed session tells nothing."""

    def __init__(self, folder: ArmFolder, before: float) -> None:
        self.folder, self.before, self.start = folder, before, time.perf_counter()

    @property
    def seconds(self) -> float:
        """How long it has trained, here and before."""
        return self.before + time.perf_counter() - self.start

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            write_json(self.folder.timing, {"train_seconds": self.seconds})


class _AtTheEnd(TrainerCallback):
    """Evaluates after the last step, whether or not it is a multiple of the interval."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_evaluate = True


class _Told(TrainerCallback):
    """Passes on what is logged while training."""

    def __init__(self, lesson: Lesson, on_event: OnEvent) -> None:
        self.lesson, self.on_event = lesson, on_event

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        told = {
            name: float((logs or {})[name]) for name in ("loss", *self.lesson.objective.terms) if name in (logs or {})
        }
        if "loss" in told:
            self.on_event(Progress(self.lesson.seed, self.lesson.arm, state.global_step, state.max_steps, told))
