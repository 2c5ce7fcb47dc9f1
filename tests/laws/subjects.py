"""Who is under the laws: every divergence, with what it needs beside two sides, and the laws it is exempt from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import tutelage as tl
from reference.cases import build
from tutelage.divergences import Divergence, Pointwise

Law = Callable[["Subject"], None]
LAWS: dict[str, Law] = {}

EXEMPT: dict[str, dict[str, str]] = {
    "logit_mse": {
        "shifting_a_row_changes_nothing": "it compares the logits themselves",
        "a_large_shift_costs_float32_no_digits": "it compares the logits themselves",
        "temperature_divides_the_logits": "it compares the logits before any temperature",
    },
    "logit_cosine": {
        "shifting_a_row_changes_nothing": "it compares the logits themselves",
        "a_large_shift_costs_float32_no_digits": "it compares the logits themselves",
    },
    "standardized_kl": {
        "temperature_divides_the_logits": "standardising undoes a division of the logits",
    },
    "normalized_kd": {
        "equal_sides_are_at_zero": "it is a cross-entropy, whose least value is the teacher's own",
        "the_gradient_at_equal_sides_is_zero": "its target part pulls the label's probability on to 1",
        "temperature_divides_the_logits": "its target part stays at temperature 1",
        "a_term_multiplies_by_the_power_it_declares": "T² belongs to its second part alone",
    },
    "dist": {
        "a_batch_is_the_weighted_mean_of_its_rows": "it relates the rows of a batch to each other",
        "a_column_of_weights_scales_each_row": "it has no value of a single row",
        "the_scaled_gradient_stays_as_large_when_t_grows": "a correlation has no scale; its authors multiply by T² too",
    },
}
"""For each divergence, the laws that do not hold for it, and why. The suite shows that they indeed do not."""

for _kind in ("adaptive_kl", "decoupled_kd", "normalized_kd", "dist"):
    EXEMPT.setdefault(_kind, {})["a_large_shift_costs_float32_no_digits"] = "it divides by T first, as eager code does"
TAKES_NO_TOP_K = (
    "adaptive_kl",
    "logit_mse",
    "logit_cosine",
    "decoupled_kd",
    "normalized_kd",
    "dist",
    "standardized_kl",
)
for _kind in TAKES_NO_TOP_K:
    for _law in ("top_k_of_all_ids_is_dense", "coarsening_never_increases"):
        EXEMPT.setdefault(_kind, {})[_law] = "it needs all of the teacher's logits"


@dataclass(frozen=True)
class Subject:
    """A divergence under the laws."""

    kind: str
    divergence: Divergence

    @property
    def is_pointwise(self) -> bool:
        return isinstance(self.divergence, Pointwise)

    def value(self, student, teacher, labels: Tensor | None = None, **options) -> Tensor:
        """Return the divergence; labels are 0 unless they are given, and only looked at where they are needed."""
        if labels is None and self.divergence.needs_labels:
            shape = tl.execution.as_student(student).batch_shape
            labels = torch.zeros(shape, dtype=torch.int64)
        return tl.divergence(student, teacher, self.divergence, labels=labels, **options)


def law(function: Law) -> Law:
    """Enter a law into the contract."""
    LAWS[function.__name__] = function
    return function


def subjects() -> list[Subject]:
    return [Subject(kind, build(kind)) for kind in tl.divergences.ALL]


def normal(seed: int, *shape: int, spread: float = 2.0, dtype=torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype)


def gradient_of(value: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value, inputs)
