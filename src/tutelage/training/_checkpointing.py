"""The Trainer's checkpoints, written whole and read without unpickling.

A checkpoint is staged, with its files on the disk and listed in a manifest before one rename puts it into its place.
Sharded models (FSDP) are written as torch and accelerate do it, into the same folder.
"""

from __future__ import annotations

import contextlib
import logging
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from accelerate.utils import broadcast_object_list  # type: ignore[import-untyped]
from torch import nn
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import SaveStrategy

from tutelage import manifest
from tutelage.errors import DamagedDataError, InputError, RunFolderError
from tutelage.training._checkpoints import (
    OPTIMIZER,
    SCALER,
    SCHEDULER,
    STATE,
    check,
    last_checkpoint,
    newest_whole,
    rng_name,
    rotate,
)
from tutelage.training._states import load_state, save_state
from tutelage.training._window import Window

_log = logging.getLogger(__name__)


class Checkpointing(transformers.Trainer):
    """A Trainer that writes checkpoints whole, and resumes from those that are."""

    _window: Window
    _for_a_checkpoint: bool

    # --- which --------------------------------------------------------------------------------------------------------

    def _checkpoint_to_resume(self, wanted: str | Path | bool | None) -> Path | None:
        """Return the checkpoint to resume from, read through by the first process; all take the same."""
        if self.args.should_save:
            manifest.sweep(str(self.args.output_dir))
        if wanted is None or wanted is False:
            return None
        folder: Path = self._by_the_first(lambda: self._whole_checkpoint(wanted))
        ranks = sum(re.fullmatch(r"rng_state(_\d+)?\.(json|pth)", path.name) is not None for path in folder.iterdir())
        if ranks != self.args.world_size:
            _log.warning(
                "%s was written by %d processes, and this training has %d: it resumes with the same weights, and not "
                "with the same rows and random numbers",
                folder,
                ranks,
                self.args.world_size,
            )
        return folder

    def _whole_checkpoint(self, wanted: str | Path | bool) -> Path:
        if not isinstance(wanted, bool):
            check(Path(wanted))
            return Path(wanted)
        folder = Path(str(self.args.output_dir))
        whole = last_checkpoint(folder)
        if whole is not None:
            return whole
        _, left = newest_whole(folder)
        if left:
            reasons = "\n".join(str(reason) for reason in left)
            raise DamagedDataError(f"no checkpoint in {folder} is whole; train without one:\n{reasons}")
        raise InputError(f"there is no complete checkpoint in {folder}; expected one to resume from: train without it")

    def _by_the_first(self, work: Callable[[], Any]) -> Any:
        """Return what the first process's work returns, or raise what it raises, in all of them."""
        if self.args.world_size == 1:
            return work()
        outcome: list[Any] = [None]
        if self.args.process_index == 0:
            try:
                outcome = [work()]
            except Exception as error:
                outcome = [error]
        broadcast_object_list(outcome)
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]

    # --- writing ------------------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self.hp_search_backend is None and trial is None:
            self.store_flos()
        run_dir = Path(self._get_output_dir(trial=trial))
        folder = run_dir / f"checkpoint-{self.state.global_step}"
        with self._staged(folder) as staging:
            self._window.save(staging, self.args.process_index)
            self._for_a_checkpoint = True
            try:
                manifest.write_by(staging, lambda path: self.save_model(str(path), _internal_call=True))
            finally:
                self._for_a_checkpoint = False
            if not self.args.save_only_model:
                self._save_optimizer_and_scheduler(str(staging))
                self._save_scaler(str(staging))
                self._save_rng_state(str(staging))
            if self.args.should_save:
                self._note_the_best(run_dir, folder)
                self._export_callbacks()
                manifest.write_by(staging / STATE, lambda path: self.state.save_to_json(str(path)))
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(folder))
        if self.args.should_save:
            rotate(run_dir, self.args.save_total_limit, folder, self.state.best_model_checkpoint)

    @contextlib.contextmanager
    def _staged(self, folder: Path) -> Iterator[Path]:
        """Give all processes the folder to write to; what one of them cannot write, none has written."""
        staging = self._by_the_first(lambda: manifest.begin(folder))
        if self.args.process_index > 0:
            # Another machine may have a disk of its own.
            manifest.make_folder(staging)
        try:
            with self._or_none("write its part of"):
                yield staging
            with self._or_none("finish"):
                if self.args.should_save:
                    about = {"step": self.state.global_step, "resumable": not self.args.save_only_model}
                    manifest.commit(staging, folder, about)
        finally:
            manifest.discard(staging)

    @contextlib.contextmanager
    def _or_none(self, what: str) -> Iterator[None]:
        """Wait for all processes, and raise in each of them if one failed."""
        failed = True
        try:
            yield
            failed = False
        finally:
            others = self.args.world_size > 1 and self._failures(failed) > failed
        if others:
            raise RunFolderError(f"another process could not {what} the checkpoint, and says why")

    def _failures(self, failed: bool) -> int:
        count = torch.tensor(float(failed), device=self.args.device)
        return int(self.accelerator.reduce(count, reduction="sum"))

    def _note_the_best(self, run_dir: Path, written: Path) -> None:
        if self.args.save_strategy == SaveStrategy.NO or not self.state.best_global_step:
            return
        best = run_dir / f"checkpoint-{self.state.best_global_step}"
        if best == written or best.exists():
            self.state.best_model_checkpoint = str(best)

    def _export_callbacks(self) -> None:
        """Note in the state what callbacks and the Trainer's control keep, as the Trainer does."""
        kept: dict[str, Any] = self.state.stateful_callbacks  # type: ignore[assignment]
        for holder in [*self.callback_handler.callbacks, self.control]:
            if not isinstance(holder, ExportableState):
                continue
            name = type(holder).__name__
            if isinstance(kept[name], list):
                kept[name].append(holder.state())
            else:
                kept[name] = holder.state()

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_fsdp_enabled:
            write = super()._save_optimizer_and_scheduler
            manifest.write_by(Path(output_dir), lambda path: write(str(path)))
        elif self.args.should_save:
            optimizer: Any = self.optimizer
            scheduler: Any = self.lr_scheduler
            save_state(optimizer.state_dict(), Path(output_dir), OPTIMIZER)
            save_state(scheduler.state_dict(), Path(output_dir), SCHEDULER)

    def _save_scaler(self, output_dir: str) -> None:
        scaler = getattr(self.accelerator, "scaler", None)
        if scaler is not None and self.args.should_save:
            save_state(scaler.state_dict(), Path(output_dir), SCALER)

    def _save_rng_state(self, output_dir: str) -> None:
        states = {
            "python": random.getstate(),
            "numpy": np.random.get_state(),
            "cpu": torch.random.get_rng_state(),
        }
        device = self.args.device
        if device.type != "cpu":
            states[device.type] = torch.get_device_module(device).get_rng_state()
        save_state(states, Path(output_dir), rng_name(self.args.process_index))

    # --- reading ------------------------------------------------------------------------------------------------------

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        if self.is_fsdp_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        holders: dict[str, Any] = {OPTIMIZER: self.optimizer, SCHEDULER: self.lr_scheduler}
        for name, holder in holders.items():
            state = load_state(Path(checkpoint), name)
            needed = _settings(holder)
            try:
                holder.load_state_dict(state)
                # torch takes the settings of the checkpoint, those of another optimizer too, and misses its own later.
                if missing := sorted(needed - _settings(holder)):
                    raise KeyError(f"it has no {', '.join(missing)}")
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"the state of the {name} in {checkpoint} does not fit {type(holder).__name__}: {error}; expected "
                    "the arguments that it was trained with"
                ) from error

    def _load_scaler(self, checkpoint: str | None) -> None:
        scaler = getattr(self.accelerator, "scaler", None)
        if checkpoint is None or scaler is None:
            return
        if any((Path(checkpoint) / f"{SCALER}{ending}").exists() for ending in (".json", ".pt")):
            scaler.load_state_dict(load_state(Path(checkpoint), SCALER))
        else:
            _log.warning("%s was not trained in float16: the scale of its gradients starts anew", checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        folder, rank, device = Path(checkpoint), self.args.process_index, self.args.device
        older = "rng_state.pth" if self.args.world_size == 1 else f"{rng_name(rank)}.pth"
        if not (folder / older).exists() and not (folder / f"{rng_name(rank)}.json").exists():
            # Written by fewer processes, as was said when it was chosen.
            return
        states = load_state(folder, rng_name(rank), older)
        try:
            random.setstate(states["python"])
            np.random.set_state(states["numpy"])
            torch.random.set_rng_state(states["cpu"])
            if device.type == "cpu":
                return
            if device.type not in states:
                _log.warning("%s was not written on %s, and has no random numbers of it", folder, device.type)
                return
            state = states[device.type]
            # Transformers keeps those of all devices where there are several processes.
            own = state[device.index or 0] if isinstance(state, list) else state
            torch.get_device_module(device).set_rng_state(own)
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise DamagedDataError(f"the random numbers in {folder} cannot be restored: {error}") from error

    def _load_best_model(self) -> None:
        folder = Path(str(self.state.best_model_checkpoint))
        if manifest.has_manifest(folder):
            self._by_the_first(lambda: manifest.verify(folder, "the best checkpoint"))
        if self.is_fsdp_enabled:
            super()._load_best_model()
        else:
            self._load_from_checkpoint(str(folder))


def _settings(optimizer: Any) -> set[str]:
    """Return the names of an optimizer's settings; none for a schedule."""
    return {name for group in getattr(optimizer, "param_groups", ()) for name in group}
