"""What is measured of a trained network, before any of it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from tutelage.run_folder import ArmFolder, write_arrays, write_json


@dataclass(frozen=True, eq=False)
class Measured:
    """Scores of a network on the held-out rows, and, of a classifier, its answers."""

    scores: dict[str, Any]
    logits: Tensor | None = None
    labels: Tensor | None = None

    def write(self, folder: ArmFolder, train_seconds: float) -> None:
        """Write everything but the scores, which say that the network is done."""
        self.write_answers(folder)
        write_json(folder.timing, {"train_seconds": train_seconds})

    def write_answers(self, folder: ArmFolder) -> None:
        """Write what a classifier said of the held-out rows."""
        if self.logits is not None and self.labels is not None:
            labels = self.labels.numpy().astype(np.int64)
            write_arrays(folder.evaluation, {"logits": self.logits.numpy(), "labels": labels})

    def agrees_with(self, scores: Mapping[str, Any], measure: str) -> bool:
        """Return whether recorded scores are the same, as far as they are so on every machine."""
        mine, theirs = self.scores[measure], scores[measure]
        return bool(mine == theirs if measure == "errors" else round(mine, 3) == round(theirs, 3))
