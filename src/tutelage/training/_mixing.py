"""Mixtures of inputs, for which only a teacher knows the answer.

Between two images lies a picture that no one labelled, and a teacher has an opinion on it: a transfer set that grows
with every epoch. (Zhang et al. 2018 mix labels as well; Beyer et al. 2022 mix inputs and ask the teacher.)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tutelage.errors import DtypeError, ParameterError, ShapeError
from tutelage.parameters import real
from tutelage.tasks import UNLABELLED, widened
from tutelage.training._collate import collate as plain_collate


class MixingCollator:
    """Appends to a batch of n rows n mixtures without labels: `s x_i + (1 - s) x_j`, s from Beta(beta, beta).

    The partners j are a permutation of the batch. Shares and partners depend on the seed and on which rows are in the
    batch ("index", a row's number in its data set) and on nothing else: workers, a stop and a resume change nothing.
    Evaluation is left alone: a `DistillationTrainer` uses the inner collator there.

    collate: rows to a batch; beta > 0 and finite: small for mixtures near their parts. Errors: `ParameterError`; on the
    call `DtypeError`, `ShapeError`.

    >>> import torch
    >>> from tutelage.training import MixingCollator
    >>> rows = [{"inputs": torch.full((2,), float(i)), "labels": i, "index": i} for i in range(3)]
    >>> batch = MixingCollator(beta=0.4)(rows)
    >>> batch["inputs"].shape, batch["labels"].tolist()
    (torch.Size([6, 2]), [0, 1, 2, -100, -100, -100])
    """

    def __init__(
        self, collate: Callable[[Sequence[Any]], dict[str, Any]] = plain_collate, beta: float = 0.4, seed: int = 0
    ) -> None:
        number = real(beta)
        if number is None or not math.isfinite(number) or number <= 0:
            raise ParameterError(f"MixingCollator(beta={beta!r}): expected a finite number > 0; do without it for none")
        self.collate, self.beta, self.seed = collate, float(number), int(seed)

    def __call__(self, rows: Sequence[Any]) -> dict[str, Any]:
        batch = self.collate(rows)
        index = batch.get("index")
        if not isinstance(index, Tensor):
            raise ShapeError(
                "the rows have no 'index'; expected each row's number in its data set, so that the same rows are mixed "
                "in the same way in every run"
            )
        numbers, partners = self._draw(index)
        return {name: self._extended(name, value, numbers, partners) for name, value in batch.items()}

    def _draw(self, index: Tensor) -> tuple[Tensor, Tensor]:
        text = f"{self.seed}:{index.tolist()}".encode()
        seed = int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")
        generator = np.random.Generator(np.random.PCG64(seed))
        shares = torch.from_numpy(generator.beta(self.beta, self.beta, len(index)))
        return shares, torch.from_numpy(generator.permutation(len(index)))

    def _extended(self, name: str, value: Any, shares: Tensor, partners: Tensor) -> Any:
        if name in ("labels", "index"):
            nothing = UNLABELLED if name == "labels" else -1
            value = widened(value)
            return torch.cat([value, torch.full_like(value, nothing)])
        if not isinstance(value, Tensor) or not value.is_floating_point():
            came = f"a tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
            raise DtypeError(
                f"{name!r} is {came} and cannot be mixed; expected floating-point inputs, such as pixels: leave mixing "
                "out (training.mix: 0) for others"
            )
        shares = shares.to(value.dtype).reshape(-1, *[1] * (value.dim() - 1))
        return torch.cat([value, shares * value + (1 - shares) * value[partners]])
