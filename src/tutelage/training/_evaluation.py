"""What one evaluation measures: every term over all rows, and how the student stands to its teachers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tutelage.distributions import HeadStates, Logits
from tutelage.errors import DataError
from tutelage.execution import as_student, divergence, exact_dtype, likeliest
from tutelage.model import DistillationModel
from tutelage.tasks import right_padded


class Evaluation:
    """Sums over batches: value times count, and count, by name. A mean of batch means would weigh rows unequally."""

    def __init__(self, model: DistillationModel) -> None:
        self.model = model
        self.sums: dict[str, Tensor] = {}
        self._labelled: bool | None = None

    def add(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
        """Add one batch."""
        for name, count in self.model.term_counts(batch).items():
            self._add(name, outputs["parts"][name].to(count) * count, count)
        if not self.model.task.compares_rows:
            # As the model read it.
            batch = right_padded(batch)
        side, labels, known = outputs["student"], *self.model.task.targets(batch)
        if not self.model.compares_classes or as_student(side).vocabulary_size < 2:
            return  # numbers and no classes, which the terms alone measure
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
        names = measured_names(self.model)
        assert not set(self.sums) - set(names), (self.sums.keys(), names)
        # A rank may have no row of its own, or none with a label; all have to sum the same numbers.
        device = next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))
        nothing = torch.zeros(2, dtype=exact_dtype(device), device=device)
        total = sum_over_ranks(torch.stack([self.sums.get(name, nothing) for name in names]))
        means = {name: value / count for name, (value, count) in zip(names, total.tolist(), strict=True) if count}
        if not means:
            return {}
        terms = {name: means.pop(name) for name in self.model.objective.terms if name in means}
        return {"loss": self.model.combine(terms), **terms, **means}

    def predictions(
        self, logits: Tensor, labels: Tensor | None, rows: int, sum_over_ranks: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Return logits and labels of as many rows on each rank, as they are gathered; the repeats among them are cut.

        Where other ranks or earlier batches have labels, and this one has none, they are -100. Errors: `DataError`.
        """
        have_labels = sum_over_ranks(torch.tensor(float(labels is not None), device=logits.device)) > 0
        if self._labelled is False and have_labels:
            raise DataError(
                "the first batches of the evaluation rows have no 'labels', and a later one has them, so they would be "
                "compared with the predictions for other rows; expected them in all rows: give a row without a label "
                "'labels': None, or -100"
            )
        self._labelled = self._labelled or bool(have_labels)
        if labels is None and self._labelled:
            labels = logits.new_full(logits.shape[:-1], -100, dtype=torch.int64)
        return _lengthened(logits, rows), None if labels is None else _lengthened(labels, rows)

    def _add(self, name: str, value: Tensor, count: Tensor) -> None:
        pair = torch.stack([value.detach().to(exact_dtype(value.device)), count.to(exact_dtype(value.device))])
        self.sums[name] = self.sums[name] + pair if name in self.sums else pair


def measured_names(model: DistillationModel) -> list[str]:
    """Return the names of all that an evaluation of this model may measure, in one order on all ranks."""
    suffixes = [_suffix(name, len(model.teachers)) for name in model.teachers]
    compared = [what + suffix for what in ("agreement", "kl") for suffix in suffixes]
    return sorted({*model.objective.terms, "accuracy", "nll", *compared})


def reserved_names(model: DistillationModel) -> set[str]:
    """Return the names in a log that no term may have."""
    measured = set(measured_names(model)) - set(model.objective.terms)
    return {"accuracy", "agreement", "epoch", "grad_norm", "kl", "learning_rate", "loss", "nll", "step", *measured}


def _lengthened(values: Tensor, rows: int) -> Tensor:
    """Return values whose last row is repeated until there are so many."""
    missing = rows - len(values)
    return torch.cat([values, values[-1:].expand(missing, *values.shape[1:])]) if missing else values


def _suffix(teacher: str, teachers: int) -> str:
    return "" if teachers == 1 else f"_{teacher}"
