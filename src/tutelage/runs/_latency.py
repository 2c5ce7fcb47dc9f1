"""How long the networks of a run take to answer, timed in turn, so that a busy moment of the machine meets them all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from tutelage.records import read_record
from tutelage.run_folder import STUDENT, TEACHER, RunFolder, write_json
from tutelage.runs._subject import Subject

_REPEATS_OF_ONE = 50
_REPEATS_OF_MANY = 15
"""How many answers are timed, of one row and of more; their median is kept."""
_WARM_UP = 3


def write_latency(subject: Subject, folder: RunFolder, teacher: nn.Module | None, device: str) -> None:
    """Write latency.json: the median milliseconds of an answer, by role and batch size, unless it is there.

    Networks that differ in nothing but their weights, as student and baseline of all seeds do, are timed once.
    """
    if folder.latency.exists():
        return
    known = read_record(folder, keys=("seeds", "arms"))
    networks = {STUDENT: subject.load(folder.arm(known["seeds"][0], STUDENT).model).to(device)}
    if teacher is not None and _layers(teacher) != _layers(networks[STUDENT]):
        networks[TEACHER] = teacher.to(device)
    found = latencies({name: subject.timed(network) for name, network in networks.items()}, device)
    told = dict.fromkeys(known["arms"], found[STUDENT])
    if teacher is not None:
        told[TEACHER] = found.get(TEACHER, found[STUDENT])
    write_json(folder.latency, told)


def latencies(
    networks: Mapping[str, Mapping[str, Callable[[], Any]]], device: str = "cpu"
) -> dict[str, dict[str, float]]:
    """Return the median milliseconds of each call. networks: name -> batch size -> a forward pass."""
    found: dict[str, dict[str, float]] = {name: {} for name in networks}
    with torch.inference_mode():
        for size in dict.fromkeys(size for calls in networks.values() for size in calls):
            calls = {name: sizes[size] for name, sizes in networks.items() if size in sizes}
            seconds: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range((_REPEATS_OF_ONE if size == "1" else _REPEATS_OF_MANY) + _WARM_UP):
                for name, call in calls.items():
                    start = time.perf_counter()
                    call()
                    if torch.device(device).type == "cuda":
                        torch.cuda.synchronize(device)
                    seconds[name].append(time.perf_counter() - start)
            for name, values in seconds.items():
                found[name][size] = statistics.median(values[_WARM_UP:]) * 1000
    return found


def _layers(network: nn.Module) -> tuple[str, list[tuple[str, torch.Size, torch.dtype]]]:
    """Return all of a network but its weights."""
    return repr(network), [(name, value.shape, value.dtype) for name, value in network.state_dict().items()]
