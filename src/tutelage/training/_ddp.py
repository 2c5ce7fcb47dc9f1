"""What torch's DistributedDataParallel has to be told of a student, and what it says that a user cannot act on."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import TrainingArguments

from tutelage.errors import ModuleError

_log = logging.getLogger(__name__)


def with_ddp_settings(args: TrainingArguments, model: nn.Module | None) -> TrainingArguments:
    """Return arguments (given as a copy) with which a model that recomputes its activations trains by DDP."""
    if args.ddp_find_unused_parameters is None and _reenters(args, model):
        # A backward within the backward looks to the search like a second one. transformers leaves it out as well.
        args.ddp_find_unused_parameters = False
    return args


def _reenters(args: TrainingArguments, model: nn.Module | None) -> bool:
    """Return whether activations are recomputed by a backward within the backward (use_reentrant=True)."""
    for kind in ("activation", "gradient"):
        if getattr(args, f"{kind}_checkpointing", False):
            return bool((getattr(args, f"{kind}_checkpointing_kwargs", None) or {}).get("use_reentrant"))
    functions = (getattr(module, "_gradient_checkpointing_func", None) for module in model.modules()) if model else ()
    return any(getattr(function, "keywords", {}).get("use_reentrant") for function in functions)


def warn_of_batch_statistics(student: nn.Module) -> None:
    """Say that layers which normalise over a batch see a share of it in each of several processes."""
    layers = [name for name, layer in student.named_modules() if isinstance(layer, _BatchNorm)]
    layers = [name for name in layers if not isinstance(student.get_submodule(name), nn.SyncBatchNorm)]
    if layers:
        _log.warning(
            "layers of the student, %s among them, normalise over the rows of a batch, and each process has a share of "
            "them, so the numbers are not those of one process; on GPUs torch.nn.SyncBatchNorm.convert_sync_batchnorm "
            "makes them see all rows",
            layers[0] or type(student).__name__,
        )


@contextlib.contextmanager
def explained_by_ddp() -> Iterator[None]:
    """Say what to do where DDP meets a parameter twice or not at all. Errors: `ModuleError`."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if "mark a variable ready only once" in text:
            raise ModuleError(
                "several processes cannot train this student: a parameter got its gradient twice in one backward, as "
                "by checkpointing with use_reentrant=True; expected use_reentrant=False, or "
                "TrainingArguments.ddp_find_unused_parameters=False"
            ) from error
        if "finished reduction in the prior iteration" in text:
            raise ModuleError(
                "several processes cannot train this student: a parameter that requires a gradient got none; expected "
                "requires_grad=False for parameters that are not used, or "
                "TrainingArguments.ddp_find_unused_parameters=True"
            ) from error
        raise
