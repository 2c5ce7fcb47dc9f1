"""The order of the training rows: the same in all processes and after a resume, by the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import Sampler


class EpochSampler(Sampler[int]):
    """Gives the rows of another sampler, in an order that only the seed and the epoch decide.

    On its own such a sampler draws from torch's global generator. Dropout moves that on, in each process by as much as
    its rows are long: after the first epoch the processes would no longer agree on which rows are whose.
    """

    def __init__(self, sampler: Any, seed: int, epoch: Callable[[], int]) -> None:
        self.sampler, self.seed, self.epoch = sampler, seed, epoch
        sampler.generator = torch.Generator()

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        self.sampler.generator.manual_seed(self.seed + self.epoch())
        return iter(self.sampler)
