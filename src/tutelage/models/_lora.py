"""Low-rank adapters for a student, through peft, where the head stays the matrix that `HeadStates` reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from tutelage.errors import ModelError, ParameterError
from tutelage.models._heads import find_head, head_name
from tutelage.models._optional import optional
from tutelage.networks import kind_of

# What peft has to know of a task: how to wrap forward, and which new head is trained and saved whole.
_TASKS = {
    "causal_lm": "CAUSAL_LM",
    "sequence_classification": "SEQ_CLS",
    "token_classification": "TOKEN_CLS",
}


def add_lora(
    model: nn.Module,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    targets: str | Sequence[str] = "all-linear",
    dropout: float = 0.0,
) -> Any:
    """Return the model as a PeftModel: its weights frozen, a pair of low-rank matrices trained beside each target.

    rank: their inner width; alpha: their product is scaled by alpha / rank; targets: ends of the paths of layers, such
    as ["q_proj", "v_proj"], or "all-linear" for all matrices but the head; dropout: before the pair, in [0, 1).
    A head as a target is refused: its logits would come from two matrices, and `HeadStates` knows one.
    Errors: `ParameterError`, `ModelError`, `MissingPackageError`.
    """
    if type(rank) is not int or rank < 1:
        raise ParameterError(f"add_lora(rank={rank!r}): expected a whole number >= 1")
    if not 0 <= dropout < 1:
        raise ParameterError(f"add_lora(dropout={dropout!r}): expected a number in [0, 1)")
    if not alpha > 0:
        raise ParameterError(f"add_lora(alpha={alpha!r}): expected a number > 0")
    if hasattr(model, "peft_config"):
        raise ModelError("the model has an adapter already; expected a model without: merge_and_unload() it first")
    peft = optional("peft", "LoRA", "tutelage[peft]")
    chosen = targets if isinstance(targets, str) else list(targets)
    _check_targets(model, chosen)
    had_head = not isinstance(find_head(model), str)
    kind = kind_of(model)
    task = None if kind is None or kind.task is None else _TASKS.get(kind.task)
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=chosen, lora_dropout=dropout, bias="none", task_type=task
    )
    adapted = peft.get_peft_model(model, config)
    reason = find_head(adapted)
    if had_head and isinstance(reason, str):
        raise ModelError(f"add_lora(targets={targets!r}): {reason}; expected the head to be left as it is")
    return adapted


def _check_targets(model: nn.Module, targets: str | list[str]) -> None:
    """Refuse the head, and what names no layer; peft would take the one and leave out the other in silence."""
    if targets == "all-linear":
        return
    if isinstance(targets, str):
        raise ParameterError(f"add_lora(targets={targets!r}): expected 'all-linear', or a list of ends of paths")
    head = head_name(model)
    paths = [path for path, _ in model.named_modules()]
    for target in targets:
        if head is not None and _ends(head, target):
            raise ModelError(
                f"add_lora(targets=[... {target!r} ...]): that is the head, whose logits would then come from two "
                "matrices where HeadStates reads one; leave it out, or train it whole with requires_grad_(True)"
            )
        if not any(_ends(path, target) for path in paths):
            leaves = sorted(
                {path.rpartition(".")[2] for path, part in model.named_modules() if isinstance(part, nn.Linear)}
            )
            raise ModelError(f"add_lora(targets=[... {target!r} ...]): no layer has such a path; there are {leaves}")


def _ends(path: str, target: str) -> bool:
    return path == target or path.endswith(f".{target}")
