"""What listens to a training run: the log on disk, and the signals that ask it to stop."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tutelage import manifest, signals

# Numbers of the clock, which no second run has, and the summary of the last session.
_OF_THE_CLOCK = ("_runtime", "_per_second", "_preparation_time", "_timestamp")


class MetricsLog(TrainerCallback):
    """Writes what is logged to a file, one JSON object a line: {"step", "epoch", "loss", ...} or {"step", "eval_..."}.

    Each line is there as soon as it is written. When a run resumes, the file becomes what had been logged by the
    checkpoint, so the lines of a resumed run are those of one that was never stopped; a run that starts anew starts the
    file anew. Wall-clock numbers are left out; a number that is not finite (the gradient norm of a step that float16
    skipped) is null.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Bring the file to where the run starts."""
        if not state.is_world_process_zero:
            return
        lines = [_line(int(entry["step"]), entry) for entry in state.log_history]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: a second crash must not cost the lines of the first run.
        manifest.sweep(self.path.parent)
        beside = manifest.private(self.path, "part")
        manifest.write_bytes(beside, "".join(line for line in lines if line is not None).encode())
        manifest.rename(beside, self.path)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append one line."""
        line = _line(state.global_step, logs or {})
        if line is None or not state.is_world_process_zero:
            return
        with manifest.naming(self.path), self.path.open("a") as file:
            file.write(line)


def _line(step: int, logs: Mapping[str, Any]) -> str | None:
    """Return a line of the log; None for what belongs to a session and not to the run."""
    kept = {name: value for name, value in logs.items() if not name.endswith(_OF_THE_CLOCK) and name != "step"}
    if "loss" not in kept and not any(name.startswith("eval_") for name in kept):
        return None
    # In an order of its own: what comes back from a checkpoint is sorted.
    names = ["epoch", *(["loss"] if "loss" in kept else []), *sorted(set(kept) - {"epoch", "loss"})]
    values = {"step": step, **{name: kept.get(name) for name in names}}
    finite = {n: None if isinstance(v, float) and not math.isfinite(v) else v for n, v in values.items()}
    return json.dumps(finite) + "\n"


class Interruptible(TrainerCallback):
    """Makes Ctrl-C, SIGTERM and SIGHUP harmless: the step is finished, a checkpoint is written, training stops.

    It can be resumed from there. A second signal stops at once. The handlers that were there before are put back at the
    end of training, whatever ends it. notify: called at the first signal. `signal` is its number, None before;
    `interrupted` tells whether it ended training before its last step. Outside the main thread, which alone gets
    signals, it does nothing.
    """

    def __init__(self, notify: Callable[[], None] | None = None) -> None:
        self.notify = notify
        self.signal: int | None = None
        self.interrupted = False
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self.signal is not None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start to listen."""
        if not self._before:
            self._before = signals.listen(self._on_signal)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save and stop, if that was asked for."""
        if self.requested and state.global_step < state.max_steps:
            self.interrupted = True
            control.should_save = control.should_training_stop = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the Trainer from taking the middle of an epoch for its end, and logging what no other run would log."""
        if self.interrupted and not float(state.epoch or 0).is_integer():
            control.should_log = control.should_evaluate = control.should_save = False

    def restore(self) -> None:
        """Put back the handlers that were there before; the trainer calls it however training ends."""
        signals.restore(self._before)
        self._before = {}

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.requested:
            before = self._before
            self.restore()
            signals.pass_on(signum, frame, before)
            return
        self.signal = signum
        if self.notify is not None:
            self.notify()
