"""What one evaluation measures: every term over all rows, and how the student stands to its teachers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tutelage.distributions import HeadStates, Logits
from tutelage.execution import divergence, exact_dtype, likeliest
from tutelage.model import DistillationModel


class Evaluation:
    """Sums over batches: value times count, and count, by name. A mean of batch means would weigh rows unequally."""

    def __init__(self, model: DistillationModel) -> None:
        self.model = model
        self.sums: dict[str, Tensor] = {}

    def add(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
        """Add one batch."""
        for name, count in self.model.term_counts(batch).items():
            self._add(name, outputs["parts"][name].to(count) * count, count)
        side, labels, known = outputs["student"], *self.model.task.targets(batch)
        guess = likeliest(side)
        if labels is not None and known is not None:
            self._add("accuracy", ((guess == labels.targets) * known).sum(), known.sum())
            if not self.model.task.compares_rows:
                self._add("nll", divergence(side, labels, token_weights=known, reduction="sum"), known.sum())
        counts = self.model.task.weights(batch)
        weights = torch.ones_like(guess, dtype=torch.float32) if counts is None else counts
        vocabulary, teachers = self.model.vocabulary, outputs["teachers"]
        for name, teacher in teachers.items():
            if not isinstance(teacher, (Tensor, Logits, HeadStates)):
                continue
            suffix = _suffix(name, len(teachers))
            distance = divergence(side, teacher, token_weights=weights, vocabulary=vocabulary, reduction="sum")
            self._add("kl" + suffix, distance, weights.sum())
            if vocabulary is None or vocabulary.is_prefix:
                columns = None if vocabulary is None else vocabulary.length
                same = likeliest(side, columns) == likeliest(teacher, columns)
                self._add("agreement" + suffix, (same * weights).sum(), weights.sum())

    def metrics(self, sum_over_ranks: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Return the means over all rows of all ranks. What no row had (no labels, say) is left out."""
        names = sorted(self.sums)
        if not names:
            return {}
        total = sum_over_ranks(torch.stack([self.sums[name] for name in names]))
        means = {name: value / count for name, (value, count) in zip(names, total.tolist(), strict=True) if count}
        terms = {name: means.pop(name) for name in self.model.objective.terms if name in means}
        return {"loss": self.model.combine(terms), **terms, **means}

    def _add(self, name: str, value: Tensor, count: Tensor) -> None:
        pair = torch.stack([value.detach().to(exact_dtype(value.device)), count.to(exact_dtype(value.device))])
        self.sums[name] = self.sums[name] + pair if name in self.sums else pair


def reserved_names(model: DistillationModel) -> set[str]:
    """Return the names in a log that no term may have."""
    suffixes = [_suffix(name, len(model.teachers)) for name in model.teachers]
    measured = {what + suffix for what in ("agreement", "kl") for suffix in ["", *suffixes]}
    return {"accuracy", "epoch", "grad_norm", "learning_rate", "loss", "nll", "step", *measured}


def _suffix(teacher: str, teachers: int) -> str:
    return "" if teachers == 1 else f"_{teacher}"
