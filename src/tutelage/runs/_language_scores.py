"""What a language model scores on held-out texts, in all and token by token; its logits never exist as a whole."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.config.build import labels_alone
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

_REPEATS = 15


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


def seen_token_by_token(
    networks: Mapping[str, nn.Module],
    batch: Batch,
    task: Task | None,
    vocabulary: VocabularyMap | None,
    device: torch.device,
) -> dict[str, list[float | None]]:
    """Return {"<network>_nll": [...], "<network>_kl": [...]} of the one row of a batch, None for what is no target.

    kl: KL(teacher || network) in nats, of all but the teacher.
    """
    assert task is not None, batch
    here = {name: value.to(device) for name, value in batch.items()}
    labels, known = task.targets(here)
    assert isinstance(labels, Labels), labels
    assert known is not None, labels
    found: dict[str, list[float | None]] = {}
    sides: dict[str, Any] = {}
    with torch.no_grad():
        for name, network in networks.items():
            network.to(device).eval()
            sides[name] = task.student(network(**task.inputs(here)))
            found[f"{name}_nll"] = _list(divergence(sides[name], labels, ForwardKL(), reduction="none"), known)
            if name != TEACHER and TEACHER in sides:
                apart = divergence(sides[name], sides[TEACHER], ForwardKL(), vocabulary=vocabulary, reduction="none")
                found[f"{name}_kl"] = _list(apart, known)
    return found


def latency(network: nn.Module, batch: Batch) -> dict[str, float]:
    """Return the median milliseconds of a forward pass over one row, {"1": ...}."""
    parameter = next(network.parameters())
    inputs = {n: v.to(parameter.device) for n, v in batch.items() if n not in ("labels", "target_mask", "index")}
    network.eval()
    seconds = []
    with torch.no_grad():
        for _ in range(_REPEATS + 3):
            start = time.perf_counter()
            network(**inputs)
            if parameter.device.type == "cuda":
                torch.cuda.synchronize(parameter.device)
            seconds.append(time.perf_counter() - start)
    # The first answers warm caches up.
    return {"1": statistics.median(seconds[3:]) * 1000}


def _list(values: Tensor, known: Tensor) -> list[float | None]:
    """Return the values of the row's tokens; the first is predicted by nothing."""
    there = zip(values[0].tolist(), known[0].tolist(), strict=True)
    return [None, *(value if counts else None for value, counts in there)]
