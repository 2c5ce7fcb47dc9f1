"""A multilayer perceptron that standardises its inputs itself, so that its weights are all there is to keep."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from tutelage.errors import EmptyInputError, ParameterError, ShapeError

Activation = Literal["relu", "gelu", "tanh"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


class Standardised(nn.Module):
    """A network that subtracts the mean of its inputs and divides by their spread, both saved with its weights.

    Per column of a table; per channel of an image, whose pixels are one kind of number.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        per = (self.shape[0], *(1 for _ in self.shape[1:]))
        self.register_buffer("mean", torch.zeros(per))
        self.register_buffer("std", torch.ones(per))

    def standardise(self, inputs: Tensor) -> None:
        """Set mean and spread from rows (N, *shape). What is the same in all rows is not divided by 0, but kept."""
        if len(inputs) == 0:
            raise EmptyInputError("standardise got no rows; expected the training rows")
        self._check(inputs)
        others = [d for d in range(inputs.dim()) if d != 1]
        precise = inputs.to(torch.float64)
        std = precise.std(others, correction=0)
        self.mean.copy_(precise.mean(others).reshape(self.mean.shape))
        self.std.copy_(torch.where(std > 0, std, 1.0).reshape(self.std.shape))

    def standardised(self, inputs: Tensor) -> Tensor:
        """Return the inputs as the layers want them."""
        self._check(inputs)
        return (inputs - self.mean) / self.std

    def _check(self, inputs: Tensor) -> None:
        if tuple(inputs.shape[1:]) != self.shape:
            raise ShapeError(f"the inputs have shape {tuple(inputs.shape)}; expected (rows, {str(self.shape)[1:-1]})")


class MLP(Standardised):
    """Linear layers with an activation and dropout between them, on flattened inputs.

    shape: of one input; classes: how many logits; hidden: widths of the layers between, none for a linear model;
    dropout: in [0, 1), after each activation; activation: "relu", "gelu" or "tanh".

    >>> MLP((1, 8, 8), 10, hidden=[16])(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        hidden: Sequence[int] = (),
        dropout: float = 0.0,
        activation: Activation = "relu",
    ) -> None:
        if not all(isinstance(width, int) and width > 0 for width in hidden):
            raise ParameterError(f"MLP(hidden={list(hidden)}): expected whole numbers > 0")
        if not 0 <= dropout < 1:
            raise ParameterError(f"MLP(dropout={dropout!r}): expected a number in [0, 1)")
        if activation not in ACTIVATIONS:
            raise ParameterError(f"MLP(activation={activation!r}): expected one of {sorted(ACTIVATIONS)}")
        super().__init__(shape)
        widths = [math.prod(self.shape), *hidden, classes]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), ACTIVATIONS[activation](), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers[:-2])  # logits are neither cut off nor dropped

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits (N, classes) of inputs (N, *shape)."""
        logits: Tensor = self.layers(self.standardised(inputs).flatten(1))
        return logits
