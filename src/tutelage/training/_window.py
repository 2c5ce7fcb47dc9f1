"""What has been summed since the last line of the log, kept with each checkpoint.

A run that is stopped between two lines must log the same numbers as one that was not: the sums go on where they were.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tutelage.errors import InputError
from tutelage.execution import exact_dtype


class Window:
    """Sums of the loss and its parts over the optimiser steps since the last line of the log.

    They stay on the device, in float64 where there is one, so that nothing waits for them until a line is due.
    """

    def __init__(self, names: Sequence[str], device: torch.device, since: int = 0) -> None:
        self.names = list(names)
        self.since = since
        self.sums = torch.zeros(len(self.names), dtype=exact_dtype(device), device=device)

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one micro-batch's share."""
        self.sums += torch.stack([values[name].detach().to(self.sums) for name in self.names])

    def restart(self, since: int) -> None:
        """Forget the sums: a line was written at this step."""
        self.sums.zero_()
        self.since = since

    def save(self, folder: Path, rank: int) -> None:
        """Write the sums of this process to a checkpoint."""
        folder.mkdir(parents=True, exist_ok=True)
        # A double has the same digits after it was written and read.
        sums = dict(zip(self.names, self.sums.tolist(), strict=True))
        _file(folder, rank).write_text(json.dumps({"since": self.since, "sums": sums}))

    def load(self, folder: Path, rank: int, at_step: int) -> None:
        """Take up the sums from a checkpoint; one that was written by another trainer has none."""
        file = _file(folder, rank)
        if not file.is_file():
            self.restart(at_step)
            return
        kept = json.loads(file.read_text())
        if sorted(kept["sums"]) != sorted(self.names):
            raise InputError(
                f"the checkpoint {folder} was written by an objective with {sorted(kept['sums'])}, and this one has "
                f"{sorted(self.names)}; expected the same terms: resume with the objective that it was trained by"
            )
        self.since = kept["since"]
        self.sums.copy_(torch.tensor([kept["sums"][name] for name in self.names], dtype=torch.float64))


def _file(folder: Path, rank: int) -> Path:
    return folder / f"log_window_{rank}.json"
