"""Asking a trained network: its logits on rows, and its scores."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from tutelage.data import Data, Rows
from tutelage.models import parameter_count
from tutelage.run_folder import ArmFolder
from tutelage.runs._measured import Measured
from tutelage.runs._scores import omitted_scores, scores_of

_BATCH = 256
_SMALL = 1_000_000


def threads_for(parameters: Iterable[int], device: str) -> int:
    """Return how many threads networks of these sizes are run with.

    One where all are small: a second gains nothing there, and waits for its core whenever another process has it, which
    makes a run many times as long. It also makes the bytes of a run independent of how many cores there are.
    """
    return 1 if device == "cpu" and max(parameters) < _SMALL else torch.get_num_threads()


@contextlib.contextmanager
def with_threads(count: int) -> Iterator[None]:
    """Run with this many threads, and with as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def predict(network: nn.Module, rows: Rows) -> Tensor:
    """Return the logits (N, C) of all rows, float32 on the CPU."""
    device = _device(network)
    network.eval()
    with torch.inference_mode():
        return torch.cat([network(batch.to(device)).float().cpu() for batch in rows.batches(_BATCH)])


def timed(network: nn.Module, rows: Rows) -> dict[str, Callable[[], Tensor]]:
    """Return forward passes over one row and over a batch, by how many rows they are of."""
    device = _device(network)
    network.eval()
    batches = {str(size): rows.take(torch.arange(size) % len(rows)).inputs.to(device) for size in (1, _BATCH)}
    return {size: functools.partial(network, batch) for size, batch in batches.items()}


def score(network: nn.Module, data: Data, folder: ArmFolder, teacher: Tensor | None) -> Measured:
    """Evaluate a network whose model is in its folder; teacher: its teacher's logits on the held-out rows."""
    logits = predict(network, data.test)
    scores = scores_of(logits, data.test.labels, teacher)
    scores["parameters"] = parameter_count(network)
    scores["bytes"] = (folder.model / "model.safetensors").stat().st_size
    if data.omitted:
        fit = predict(network, data.fit)
        scores["omitted"] = {
            data.classes[omitted]: omitted_scores(logits, data.test.labels, fit, data.fit.labels, omitted)
            for omitted in data.omitted
        }
    return Measured(scores, logits, data.test.labels)


def _device(network: nn.Module) -> torch.device:
    parameter = next(network.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
