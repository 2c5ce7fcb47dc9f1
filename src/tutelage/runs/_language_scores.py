"""What a language model scores on held-out texts, in all and token by token; its logits never exist as a whole."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.config.build import labels_alone
from tutelage.data import UNLABELLED
from tutelage.distributions import Labels
from tutelage.divergences import ForwardKL
from tutelage.execution import divergence
from tutelage.model import DistillationModel
from tutelage.objective import Objective
from tutelage.run_folder import TEACHER
from tutelage.tasks import Task
from tutelage.training import Evaluation
from tutelage.vocabulary import VocabularyMap

Batch = Mapping[str, Any]


def scores_of(
    network: nn.Module,
    teacher: nn.Module | None,
    batches: Iterable[Batch],
    task: Task | None,
    vocabulary: VocabularyMap | None,
) -> dict[str, Any]:
    """Return tokens, nll (nats per token), perplexity and accuracy; with a teacher, kl and agreement to it.

    accuracy: how often the likeliest token is the one that follows; kl: KL(teacher || student) at T = 1, in nats per
    token; agreement: how often both have the same likeliest token.
    """
    teachers = {} if teacher is None else {TEACHER: teacher}
    model = DistillationModel(network, teachers, Objective(labels_alone()), task, vocabulary).eval()
    device = next(network.parameters()).device
    evaluation = Evaluation(model)
    tokens = 0.0
    with torch.no_grad():
        for batch in batches:
            here = {name: value.to(device) for name, value in batch.items()}
            evaluation.add(model(**here), here)
            tokens += float(model.term_counts(here)["hard"])
    found = evaluation.metrics(lambda total: total)
    names = ("nll", "accuracy", *(("kl", "agreement") if teacher is not None else ()))
    return {"tokens": round(tokens), **{name: found[name] for name in names}, "perplexity": math.exp(found["nll"])}


def every_token_hidden(row: Batch, mask_id: int, share: float) -> dict[str, Tensor]:
    """Return a batch of a row as often as it takes to hide each of its tokens once, about a share of them at a time."""
    ids, targets = row["input_ids"], row["target_mask"].bool()
    times = min(len(ids), max(1, round(1 / share)))
    hidden = (torch.arange(len(ids)) % times == torch.arange(times)[:, None]) & targets
    return {
        "input_ids": torch.where(hidden, mask_id, ids),
        "attention_mask": torch.ones(times, len(ids), dtype=torch.int64),
        "labels": torch.where(hidden, ids, UNLABELLED),
        "target_mask": hidden.long(),
    }


def seen_token_by_token(
    networks: Mapping[str, nn.Module],
    batch: Batch,
    task: Task | None,
    vocabulary: VocabularyMap | None,
    device: torch.device,
) -> dict[str, list[float | None]]:
    """Return {"<network>_nll": [...], "<network>_kl": [...]} of a row's tokens, None for what is no target.

    batch: the row, or the row several times, with different targets each time. kl: KL(teacher || network) in nats, of
    all but the teacher.
    """
    assert task is not None, batch
    here = {name: value.to(device) for name, value in batch.items()}
    labels, known = task.targets(here)
    assert isinstance(labels, Labels), labels
    assert known is not None, labels
    length = here["input_ids"].shape[1]
    found: dict[str, list[float | None]] = {}
    sides: dict[str, Any] = {}
    with torch.no_grad():
        for name, network in networks.items():
            network.to(device).eval()
            sides[name] = task.student(network(**task.inputs(here)))
            nll = divergence(sides[name], labels, ForwardKL(), reduction="none")
            found[f"{name}_nll"] = _list(nll, known, length)
            if name != TEACHER and TEACHER in sides:
                apart = divergence(sides[name], sides[TEACHER], ForwardKL(), vocabulary=vocabulary, reduction="none")
                found[f"{name}_kl"] = _list(apart, known, length)
    return found


def timed(network: nn.Module, batch: Batch) -> dict[str, Callable[[], Any]]:
    """Return a forward pass over one row, {"1": ...}."""
    device = next(network.parameters()).device
    inputs = {n: v.to(device) for n, v in batch.items() if n not in ("labels", "target_mask", "index")}
    network.eval()
    return {"1": functools.partial(network, **inputs)}


def _list(values: Tensor, known: Tensor, length: int) -> list[float | None]:
    """Return the values of a row's tokens, each from the row of the batch in which it is a target."""
    there, where = known.max(0)
    found = zip(values.gather(0, where[None])[0].tolist(), there.tolist(), strict=True)
    told = [value if counts else None for value, counts in found]
    # Where the next token is predicted, the first is so by nothing.
    return [*[None] * (length - len(told)), *told]
