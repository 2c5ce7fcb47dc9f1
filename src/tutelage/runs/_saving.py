"""What runs about texts share: models of transformers, saved as transformers saves them, whole or not at all."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutelage import manifest
from tutelage.config import Recipe
from tutelage.config.build import Role
from tutelage.config.build_transformers import tokenizer_of
from tutelage.models import HeadModel


class OfTransformers:
    """The part of a `Subject` that is about models of transformers. tokenizer: what makes tokens of the data."""

    recipe: Recipe
    tokenizer: Any

    @property
    def device(self) -> torch.device:
        """Where networks are scored."""
        cuda = self.recipe.training.device != "cpu" and torch.cuda.is_available()
        return torch.device("cuda" if cuda else "cpu")

    def is_saved(self, folder: Path) -> bool:
        """Return whether a model was saved in a folder."""
        return is_whole(folder, "config.json")

    def copies_teacher(self) -> bool:
        """Return that a teacher stays where it is, unless it was fitted."""
        return False

    def save(self, network: nn.Module, role: Role, folder: Path) -> None:
        """Write a model and its tokenizer, loadable by transformers alone; adapters are merged into their layers."""
        spec = self.recipe.student if role == "student" else self.recipe.teacher
        assert spec is not None, self.recipe
        _save(network, tokenizer_of(spec, self.tokenizer), folder)


def is_whole(folder: Path, card: str) -> bool:
    """Return whether the folder of a model has all its files, of whatever content. card: which of them says so alone.

    Only folders of earlier versions have no manifest.
    """
    manifest.finish_swap(folder)
    return (folder / card).is_file() and not (manifest.has_manifest(folder) and manifest.missing(folder))


def saved_bytes(network: nn.Module, folder: Path) -> int:
    """Return how much a model's weights take on the disk, or, for one that was not copied, in memory."""
    files = list(folder.glob("*.safetensors"))
    if files:
        return sum(file.stat().st_size for file in files)
    return sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())


def _save(network: nn.Module, tokenizer: Any, folder: Path) -> None:
    model: Any = network.model if isinstance(network, HeadModel) else network
    if hasattr(model, "peft_config"):
        model = copy.deepcopy(model).merge_and_unload()
    with manifest.staged(folder) as staging:
        manifest.write_by(staging, model.save_pretrained)
        manifest.write_by(staging, tokenizer.save_pretrained)
