"""From the words of a recipe or a model folder to a network with random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from tutelage.errors import ModelError, ParameterError
from tutelage.models._mlp import MLP, Standardised
from tutelage.models._timm import TimmClassifier


def build_model(spec: Mapping[str, Any], shape: Sequence[int], classes: int) -> Standardised:
    """Return a network with random weights (timm: pretrained ones, where the spec says so).

    spec: {"mlp": {"hidden": [16], "dropout": 0.1, "activation": "relu"}} or {"timm": "resnet18", "pretrained": False};
    shape: of one input; classes: how many logits. Errors: `ModelError`, `MissingPackageError`.

    >>> parameter_count(build_model({"mlp": {"hidden": [16]}}, shape=(1, 8, 8), classes=10))
    1210
    """
    match dict(spec):
        case {"mlp": dict(parameters), **rest} if not rest:
            make: Callable[..., Standardised] = MLP
        case {"timm": str(name), **rest} if set(rest) <= {"pretrained"}:
            make, parameters = TimmClassifier, {"name": name, **rest}
        case _:
            raise ModelError(f"the architecture is {dict(spec)!r}; expected {{'mlp': {{...}}}} or {{'timm': name}}")
    try:
        return make(shape, classes, **parameters)
    except (TypeError, ParameterError) as error:
        raise ModelError(f"the architecture {dict(spec)!r} cannot be made: {error}") from error


def parameter_count(module: nn.Module) -> int:
    """Return how many numbers the network learned."""
    return sum(parameter.numel() for parameter in module.parameters())
