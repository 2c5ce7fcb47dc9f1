"""Networks that a recipe can name, and folders of weights that are read without running any code from them."""

from __future__ import annotations

from tutelage.models._build import build_model, parameter_count
from tutelage.models._files import ModelCard, load_model, load_weights, read_card, save_model
from tutelage.models._mlp import ACTIVATIONS, MLP

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "ModelCard",
    "build_model",
    "load_model",
    "load_weights",
    "parameter_count",
    "read_card",
    "save_model",
]
