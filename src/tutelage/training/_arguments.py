"""Which of the Trainer's arguments are set right, and which are refused because they would change what is trained."""

from __future__ import annotations

import copy
from typing import Any

from transformers import TrainingArguments

from tutelage.errors import ParameterError
from tutelage.training._sharding import check_asked_for
from tutelage.training._world import connected


def check_given(model: Any, model_init: Any, compute_loss_func: Any) -> None:
    """Raise `ParameterError` unless there is one student, and one loss."""
    if (model is None) == (model_init is None):
        came = "neither" if model is None else "both"
        raise ParameterError(
            f"{came} of model and model_init came; expected one: the student, or a function that returns a new one"
        )
    if compute_loss_func is not None:
        raise ParameterError(
            "compute_loss_func was given, and the objective is the loss; expected one of them: write it as a "
            "divergence of a Term, or use transformers.Trainer"
        )


def checked_arguments(args: TrainingArguments | None) -> TrainingArguments:
    """Return a copy of the arguments that trains the objective as it is written. Errors: `ParameterError`."""
    if args is None:
        raise ParameterError("args=None: expected transformers.TrainingArguments(output_dir=...)")
    refused = [
        (args.label_smoothing_factor != 0, "label_smoothing_factor", "use Labels(smoothing=...) in a task of your own"),
        (args.use_liger_kernel, "use_liger_kernel", "it replaces the loss; leave it out"),
        (args.auto_find_batch_size, "auto_find_batch_size", "the batch size is part of what is trained; choose one"),
        (
            args.neftune_noise_alpha is not None,
            "neftune_noise_alpha",
            "the student would not read what the teacher read",
        ),
        (args.n_gpu > 1, "n_gpu > 1", "start one process per GPU with torchrun, or show one with CUDA_VISIBLE_DEVICES"),
        (getattr(args, "parallelism_config", None) is not None, "parallelism_config", "train by data parallelism"),
        (
            args.fp16_full_eval,
            "fp16_full_eval",
            "it rounds the weights for good; evaluate in the precision of training",
        ),
        (
            args.bf16_full_eval,
            "bf16_full_eval",
            "it rounds the weights for good; evaluate in the precision of training",
        ),
    ]
    for given, name, remedy in refused:
        if given:
            raise ParameterError(f"TrainingArguments.{name} cannot be used for distillation: {remedy}")
    args = connected(args)
    if args.mixed_precision == "fp16" and args.device.type == "cpu":
        raise ParameterError(
            "float16 was asked for (TrainingArguments.fp16, or a launcher's --mixed_precision fp16) on a CPU, where "
            "accelerate trains in float32 without a word; expected a GPU, bf16=True, or neither"
        )
    check_asked_for(args)
    args = copy.copy(args)
    # The task knows which columns are inputs; the signature of a wrapper does not.
    args.remove_unused_columns = False
    # It writes the mean of the steps before in place of a loss that is not finite.
    args.logging_nan_inf_filter = False
    # Otherwise the order of the rows depends on what was drawn before.
    args.data_seed = args.seed if args.data_seed is None else args.data_seed
    args.dataloader_pin_memory = args.dataloader_pin_memory and args.device.type == "cuda"
    return args
