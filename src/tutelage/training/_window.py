"""What has been summed since the last line of the log, kept with each checkpoint.

A run that is stopped between two lines must log the same numbers as one that was not: the sums go on where they were.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage import manifest
from tutelage.errors import DamagedDataError, InputError
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
        # A double has the same digits after it was written and read.
        sums = dict(zip(self.names, self.sums.tolist(), strict=True))
        manifest.write_bytes(_file(folder, rank), json.dumps({"since": self.since, "sums": sums}).encode())

    def load(self, folder: Path, rank: int, ranks: int, at_step: int) -> None:
        """Take up the sums from a checkpoint; one that was written by another trainer has none."""
        written = len(list(folder.glob("log_window_*.json")))
        if written == 0:
            self.restart(at_step)
            return
        # Where the number of processes is another one, the first takes up the sums of all.
        mine = [rank] if written == ranks else list(range(written)) if rank == 0 else []
        first = _read(_file(folder, 0))
        kept = [_read(_file(folder, number)) for number in mine]
        if sorted(first["sums"]) != sorted(self.names):
            raise InputError(
                f"the checkpoint {folder} was written by an objective with {sorted(first['sums'])}, and this one has "
                f"{sorted(self.names)}; expected the same terms: resume with the objective that it was trained by"
            )
        self.restart(first["since"])
        for one in kept:
            self.sums += torch.tensor([one["sums"][name] for name in self.names], dtype=torch.float64).to(self.sums)


def _file(folder: Path, rank: int) -> Path:
    return folder / f"log_window_{rank}.json"


def _read(file: Path) -> dict[str, Any]:
    try:
        kept = json.loads(file.read_bytes())
        return {"since": int(kept["since"]), "sums": {str(name): float(sum_) for name, sum_ in kept["sums"].items()}}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedDataError(f"{file} cannot be read ({error}); resume from an earlier checkpoint") from error
