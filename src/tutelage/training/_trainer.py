"""Door 3: a `transformers.Trainer` that trains an objective, the same one however a step is split.

The Trainer's own are the loop, accumulation, precision, schedules, callbacks and loggers. Set right here are the
normalisers (its count of labels serves one term at most), the log (each term apart, and whole across a resume), the
evaluation (means over rows and not over batches), and what would be silently wrong.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import safetensors.torch
import torch
import transformers
from accelerate.data_loader import DataLoaderDispatcher  # type: ignore[import-untyped]
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction, PredictionOutput, TrainOutput

from tutelage.errors import (
    CompatibilityError,
    DamagedDataError,
    InfiniteDivergenceError,
    InputError,
    NonFiniteError,
    ParameterError,
)
from tutelage.features import bare_name
from tutelage.model import DistillationModel
from tutelage.networks import bare_state
from tutelage.objective import Objective
from tutelage.tasks import Task, batch_length, in_order_of, widened
from tutelage.training._arguments import check_given, checked_arguments
from tutelage.training._callbacks import Interruptible
from tutelage.training._checkpointing import Checkpointing
from tutelage.training._checkpoints import STATE, WEIGHTS
from tutelage.training._collate import collate
from tutelage.training._ddp import explained_by_ddp, warn_of_batch_statistics, with_ddp_settings
from tutelage.training._evaluation import Evaluation, reserved_names
from tutelage.training._label_watch import LabelWatch, RowsOf
from tutelage.training._mixing import MixingCollator
from tutelage.training._networks import Teachers, as_model, check_trainable, student_to_save
from tutelage.training._randomness import unchanged_randomness
from tutelage.training._repeats import (
    EMPTY,
    check_some,
    epoch_of,
    first_rows,
    own_rows,
    warn_of_repeats,
    without_repeats,
)
from tutelage.training._sampling import EpochSampler
from tutelage.training._sharding import check_sharded, check_sharding
from tutelage.training._tokens import TokenCollator
from tutelage.training._window import Window
from tutelage.training._world import check_world
from tutelage.vocabulary import VocabularyMap


class DistillationTrainer(Checkpointing):
    """Trains a student by an objective, with everything that `transformers.Trainer` does.

    model: the student, any `nn.Module`, or a `DistillationModel` that has everything; model_init: a function that
    returns one of these, called anew for each training, in place of model; teacher: a module, or {name: module}, or
    None; objective, task, vocabulary: as for `DistillationModel`; everything else: as for the Trainer, but
    compute_loss_func, which the objective takes the place of.
    Rows are mappings ("labels" missing or -100 where there is none) or pairs (input, label); with a tokenizer as
    processing_class, mappings with "input_ids", padded to the longest of a batch.

    Without a task it is chosen by what the student is made for, looking through wrappers: `Classification` for a
    network that does not say, while a model that no task is for is refused. Classes are compared by name where both
    sides have names (`id2label`). Language models, students and teachers, are run as `HeadModel` where that gives
    their own logits.

    Each term is divided by its own count over all micro-batches and ranks of a step: labelled rows, or all rows. The
    log has "loss" and each term in its own unit (nats, before weight and T²), as means over the steps since the last
    line; an evaluation has them over its rows, with "eval_accuracy", "eval_agreement" and "eval_kl" (nats at T = 1)
    to the teacher. A run that is stopped and resumed logs the same numbers and ends at the same weights. `save_model`
    saves the student alone; a checkpoint has the projectors too. With several processes the rows that accelerate
    repeats to fill the last batches of an epoch do not count, in training or evaluation.

    Errors: `ParameterError` for arguments that would change the objective, `NonFiniteError` for a loss that is not
    finite, and those of `DistillationModel`.

    >>> import tempfile, torch, transformers, tutelage as tl
    >>> from tutelage.training import DistillationTrainer
    >>> rows = [{"inputs": torch.randn(8), "labels": i % 3 if i < 4 else -100} for i in range(16)]
    >>> objective = tl.Objective({
    ...     "soft": tl.Term(tl.ForwardKL(), temperature=2.0),
    ...     "hard": tl.Term(tl.ForwardKL(), teacher="labels", weight=0.1),
    ... })
    >>> student, teacher = torch.nn.Linear(8, 3), torch.nn.Linear(8, 3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     args = transformers.TrainingArguments(folder, max_steps=4, use_cpu=True, disable_tqdm=True)
    ...     trainer = DistillationTrainer(student, teacher, objective, args, train_dataset=rows)
    ...     trainer.train().global_step
    {...
    4
    """

    # The loss is normalised over the whole step, so the Trainer must not divide it by the number of micro-batches.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: nn.Module | None = None,
        teacher: Teachers = None,
        objective: Objective | None = None,
        args: TrainingArguments | None = None,
        data_collator: Callable[[Sequence[Any]], dict[str, Any]] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, Any]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        task: Task | None = None,
        vocabulary: VocabularyMap | None = None,
        model_init: Callable[..., Any] | None = None,
        compute_loss_func: None = None,
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        check_given(model, model_init, compute_loss_func)
        # What a student is made into a model with, again where model_init gives another one.
        self._made_with = teacher, objective, task, vocabulary
        if model is not None:
            model = self._take(model, objective)
        super().__init__(
            model=model,
            args=with_ddp_settings(checked_arguments(args), model),
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            model_init=model_init,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
        )
        if data_collator is None and (collator := self._collator_for(processing_class)) is not None:
            self.data_collator = collator
        self.label_names = ["labels"]
        self._window = self._new_window()
        self._labels = LabelWatch(self.distillation)
        self._evaluation = Evaluation(self.distillation)
        self._step_seen = -1
        self._for_a_checkpoint = False

    def _take(self, model: nn.Module, objective: Objective | None) -> DistillationModel:
        teacher, _, task, vocabulary = self._made_with
        self.distillation = as_model(model, teacher, objective, task, vocabulary)
        clash = sorted(reserved_names(self.distillation) & set(self.distillation.objective.terms))
        if clash:
            raise ParameterError(f"the terms {clash} have names that the log has another use for; expected other names")
        return self.distillation

    def call_model_init(self, trial: Any = None) -> DistillationModel:
        """Return a new student, with projectors as they were before any training, as the model to train."""
        return self._take(super().call_model_init(trial), copy.deepcopy(self._made_with[1]))

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the last run before its last step (see `Interruptible`)."""
        return any(isinstance(c, Interruptible) and c.interrupted for c in self.callback_handler.callbacks)

    # --- the run ------------------------------------------------------------------------------------------------------

    def train(
        self,
        resume_from_checkpoint: str | Path | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train; resume_from_checkpoint is a folder, or True for the newest whole one in `args.output_dir`."""
        folder = self._checkpoint_to_resume(resume_from_checkpoint)
        check_world(self.accelerator)
        check_trainable(self.distillation)
        check_sharding(self.accelerator)
        if self.accelerator.num_processes > 1:
            warn_of_batch_statistics(self.distillation.student)
        # The run is a function of the seed, whatever was drawn since the trainer was made.
        set_seed(self.args.seed)
        self._window, self._step_seen = self._new_window(), -1
        self._labels = LabelWatch(self.distillation)
        if folder is not None:
            state = transformers.TrainerState.load_from_json(str(folder / STATE))
            if self._is_over(state):
                # The Trainer would take one more step.
                self._load_from_checkpoint(str(folder))
                self.state = state
                losses = [line["loss"] for line in state.log_history if "loss" in line]
                return TrainOutput(state.global_step, losses[-1] if losses else math.nan, {})
            self._window.load(folder, self.args.process_index, self.args.world_size, state.global_step)
        try:
            output = super().train(None if folder is None else str(folder), trial, ignore_keys_for_eval)
            self._labels.end(self.state.epoch or 0.0)
            return output
        finally:
            for callback in self.callback_handler.callbacks:
                if isinstance(callback, Interruptible):
                    callback.restore()

    def _is_over(self, state: transformers.TrainerState) -> bool:
        if self.args.max_steps > 0:
            return bool(state.global_step >= self.args.max_steps)
        return (state.epoch or 0.0) >= self.args.num_train_epochs

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        prepared = super()._prepare_for_training(*args, **kwargs)
        if self.is_fsdp_enabled:
            check_sharded(self.distillation)
        return prepared

    def _collator_for(self, processing_class: Any) -> Callable[[Sequence[Any]], dict[str, Any]] | None:
        """Return what makes batches unless the caller says; None leaves it to the Trainer."""
        if processing_class is None:
            return collate
        if not isinstance(processing_class, transformers.PreTrainedTokenizerBase):
            return None
        return TokenCollator(processing_class, of_rows=self.distillation.task.compares_rows)

    # --- the objective ------------------------------------------------------------------------------------------------

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Return the micro-batches of a step, and what each term's sum is divided by: its count in all of them."""
        batches: list[Any] = []
        while len(batches) < num_batches and (batch := next(epoch_iterator, None)) is not None:
            batches.append(batch)
        if batches:
            batches[-1] = self._without_repeats(batches[-1])
        names = list(self.distillation.objective.terms)
        total = torch.zeros_like(self._window.sums[1:])
        for batch in (batch for batch in batches if EMPTY not in batch):
            counts = self.distillation.term_counts(batch)
            total += torch.stack([counts[name].to(total) for name in names])
        in_all = dict(zip(names, self._sum_over_ranks(total).unbind(), strict=True))
        if batches:
            self._labels.see(in_all, batches, self.state.epoch or 0.0, self._rows())
        # Sharding in mixed precision rounds the numbers in every dict on their way to the model, and 1,001 would be
        # 1,000 there. It does not look into this mapping.
        return batches, MappingProxyType(in_all)

    def _rows(self) -> RowsOf:
        size = max(1, self.args.per_device_train_batch_size)
        return RowsOf(self.train_dataset, self.data_collator, size, lambda: self._unchanged_randomness(None))

    def _without_repeats(self, batch: Any) -> Any:
        """Return a batch without rows that were there before in the epoch, with which its last one is filled up."""
        state, ranks = self.accelerator.gradient_state, self.accelerator.num_processes
        fills = self.accelerator.even_batches and not self.args.dataloader_drop_last
        if ranks == 1 or not state.end_of_dataloader or not fills:
            return batch
        epoch, rank = epoch_of(state.active_dataloader, ranks), self.args.process_index
        mixes = isinstance(self.data_collator, MixingCollator)
        rows = batch_length(batch) // (2 if mixes else 1)
        if epoch is not None and rows == epoch[1]:
            return without_repeats(batch, rows, epoch[0], rank, ranks)
        if isinstance(state.active_dataloader, DataLoaderDispatcher) and state.remainder > 0 and not mixes:
            # The first process reads an iterable data set for all, and has counted its last rows.
            check_some(rows, ranks)
            return first_rows(batch, own_rows(rows, int(state.remainder), rank), rows)
        warn_of_repeats(rows)
        return batch

    def _sum_over_ranks(self, values: Tensor) -> Tensor:
        summed: Tensor = self.accelerator.reduce(values, reduction="sum")
        return summed

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Return the sampler of the training rows; those that draw from the global generator get one of their own."""
        sampler = super()._get_train_sampler(train_dataset)
        if not isinstance(sampler, LengthGroupedSampler):
            return sampler
        # Rows of like length go into one batch, of which each process has a share.
        sampler.batch_size *= self.accelerator.num_processes
        assert self.args.data_seed is not None, self.args
        return EpochSampler(sampler, self.args.data_seed, lambda: int(self.state.epoch or 0))

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Do the forward and the backward of a micro-batch."""
        with explained_by_ddp():
            return super().training_step(*args, **kwargs)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return this micro-batch's share of the loss of the step, as its normalisers give it."""
        is_empty = bool(inputs.get(EMPTY))
        inputs = {name: value for name, value in inputs.items() if name != EMPTY}
        try:
            # The row of an empty batch is in no count, and may be the only one with a label.
            outputs = model(normalizer=None if is_empty else num_items_in_batch, **inputs)
        except (NonFiniteError, InfiniteDivergenceError) as error:
            raise type(error)(f"in training step {self.state.global_step + 1}: {error}") from error
        loss: Tensor = outputs["loss"]
        if is_empty:
            return (loss * 0, outputs) if return_outputs else loss * 0
        if model.training:
            self._window.add({"loss": loss, **outputs["parts"]})
            if loss.device.type == "cpu":
                # Elsewhere looking would wait for the device; there the next line of the log and checkpoint look.
                self._check_finite({"loss": loss, **outputs["parts"]}, f"in training step {self.state.global_step + 1}")
        if num_items_in_batch is not None:
            # Gradients are averaged over ranks, and the shares of the ranks have to be summed.
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    # --- the log ------------------------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the terms apart, and with sums that know of no resume."""
        steps = self.state.global_step - self._window.since
        if "loss" in logs and steps > 0:
            sums = self._sum_over_ranks(self._window.sums.clone())
            means = dict(zip(self._window.names, (sums / steps).tolist(), strict=True))
            self._check_finite(means, f"between training steps {self._window.since + 1} and {self.state.global_step}")
            self._window.restart(self.state.global_step)
            logs = {**means, **{name: value for name, value in logs.items() if name != "loss"}}
        with unchanged_randomness(self.args.device):
            super().log(logs, start_time)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        last = self.state.global_step >= self.state.max_steps
        if last and self.args.logging_strategy != "no":
            # The steps after the last full interval would be in no line.
            self.control.should_log = True
        # At the last step of an epoch this is called twice, and the end of the epoch may log and evaluate. A checkpoint
        # between the two would lack what was logged, and a run that resumes there would never log it.
        first = self.state.global_step != self._step_seen
        self._step_seen = self.state.global_step
        postponed = first and float(self.state.epoch or 0).is_integer() and self.control.should_save
        if postponed:
            self.control.should_save = False
        due = self.control.should_log or self.control.should_evaluate or self.control.should_save
        # Callbacks listen to all three, and may draw.
        with unchanged_randomness(self.args.device) if due else contextlib.nullcontext():
            super()._maybe_log_save_evaluate(*args, **kwargs)
        if postponed:
            self.control.should_save = True

    def _check_finite(self, values: Mapping[str, Tensor | float], where: str) -> None:
        numbers = {name: float(v.detach() if isinstance(v, Tensor) else v) for name, v in values.items()}
        wrong = {name: number for name, number in numbers.items() if not math.isfinite(number)}
        if wrong:
            raise NonFiniteError(
                f"{where} these were not finite: {wrong}; expected finite losses: lower the learning rate, look for "
                "NaN in the data, or train in float32 or bfloat16"
            )

    def _new_window(self) -> Window:
        return Window(["loss", *self.distillation.objective.terms], self.args.device)

    # --- evaluation ---------------------------------------------------------------------------------------------------

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Evaluate, as `transformers.Trainer` does; every random state is as before afterwards."""
        with self._unchanged_randomness(eval_dataset):
            measured: dict[str, float] = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        return measured

    def predict(
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """Predict, as `transformers.Trainer` does; every random state is as before afterwards."""
        with self._unchanged_randomness(test_dataset):
            return super().predict(test_dataset, ignore_keys, metric_key_prefix)

    def _unchanged_randomness(self, rows: Any) -> contextlib.AbstractContextManager[None]:
        own = (self.data_collator, self.train_dataset, self.eval_dataset)
        return unchanged_randomness(self.args.device, *own, rows)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Return the loader of the evaluation rows, which are never mixed."""
        with self._without_mixing():
            return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """Return the loader of the test rows, which are never mixed."""
        with self._without_mixing():
            return super().get_test_dataloader(test_dataset)

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate, and add what was measured over all rows."""
        self._evaluation = Evaluation(self.distillation)
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        measured = self._evaluation.metrics(self._sum_over_ranks)
        measured = {f"{metric_key_prefix}_{name}": value for name, value in measured.items()}
        loss = f"{metric_key_prefix}_loss"
        own = {name: value for name, value in (output.metrics or {}).items() if name != loss}
        return output._replace(metrics={**measured, **own})

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return loss, the student's logits, and labels of one batch, and note what it adds to the evaluation."""
        inputs = self._prepare_inputs(inputs)
        rows = batch_length(inputs)
        own = self._own_rows(rows)
        inputs = {name: value for name, value in first_rows(inputs, own, rows).items() if name != EMPTY}
        with torch.no_grad(), self.compute_loss_context_manager():
            # A rank without a row of its own asks the model too: sharded ones answer together.
            outputs = model(**inputs)
            if own:
                self._evaluation.add(outputs, inputs)
        loss = outputs["loss"].detach()
        if prediction_loss_only:
            return loss, None, None
        if "logits" not in outputs:
            raise CompatibilityError(
                "predictions were asked for, by compute_metrics or predict, and the student gives hidden states, so "
                "that its logits never exist as a whole; expected neither: read eval_nll, eval_accuracy, eval_kl and "
                "eval_agreement, or call trainer.distillation.student yourself"
            )
        logits, labels = outputs["logits"], inputs.get("labels")
        if not self.distillation.task.compares_rows:
            logits = in_order_of(inputs, logits)
        labels = None if labels is None else widened(labels)
        return loss, *self._evaluation.predictions(logits, labels, rows, self._sum_over_ranks)

    def _own_rows(self, rows: int) -> int:
        """Return how many rows of a batch are no repeats, with which the last batches of several ranks are filled."""
        state, ranks = self.accelerator.gradient_state, self.accelerator.num_processes
        if ranks == 1 or not state.end_of_dataloader:
            return rows
        check_some(rows, ranks)
        in_all = int(state.remainder)
        if in_all < 0 and self.accelerator.even_batches and not self.args.dataloader_drop_last:
            warn_of_repeats(rows)
        return own_rows(rows, in_all, int(self.args.process_index))

    @contextlib.contextmanager
    def _without_mixing(self) -> Iterator[None]:
        collator = self.data_collator
        if isinstance(collator, MixingCollator):
            self.data_collator = collator.collate
        try:
            yield
        finally:
            self.data_collator = collator

    # --- saving and loading -------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._check_finite(
            dict(zip(self._window.names, self._window.sums, strict=True)),
            f"between training steps {self._window.since + 1} and {self.state.global_step}",
        )
        super()._save_checkpoint(model, trial)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write the student alone; in a checkpoint, all that is trained. No pickles."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        module: Any = self.distillation
        if state_dict is not None:
            state_dict = {bare_name(name): value for name, value in state_dict.items()}
        if not self._for_a_checkpoint:
            module, prefix = student_to_save(self.distillation.student)
            if state_dict is None:
                state_dict = bare_state(module)
            else:
                prefix = f"student.{prefix}"
                state_dict = {n.removeprefix(prefix): v for n, v in state_dict.items() if n.startswith(prefix)}
        state_dict = None if state_dict is None else _each_once(module, state_dict)
        if hasattr(module, "save_pretrained"):
            module.save_pretrained(folder, state_dict=state_dict)
        elif state_dict is not None:
            safetensors.torch.save_file(state_dict, folder / WEIGHTS, metadata={"format": "pt"})
        else:
            # Tied weights are written once.
            safetensors.torch.save_model(module, str(folder / WEIGHTS), metadata={"format": "pt"})
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        file = Path(resume_from_checkpoint) / WEIGHTS
        try:
            safetensors.torch.load_model(model or self.distillation, file, strict=True, device="cpu")
        except FileNotFoundError:
            raise DamagedDataError(f"{file} is missing; expected the weights of the checkpoint") from None
        except SafetensorError as error:
            raise DamagedDataError(f"{file} is damaged ({error}); resume from an earlier checkpoint") from error
        except RuntimeError as error:
            raise InputError(
                f"the weights in {file} do not fit the model: {error}; expected the model that wrote them"
            ) from error


def _each_once(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state that was gathered from all ranks, without the further names of weights that are tied."""
    first: dict[int, str] = {}
    named = [(bare_name(name), parameter) for name, parameter in module.named_parameters(remove_duplicate=False)]
    for name, parameter in named:
        first.setdefault(id(parameter), name)
    tied = {name for name, parameter in named if first[id(parameter)] != name}
    return {name: value.contiguous() for name, value in state.items() if name not in tied}
