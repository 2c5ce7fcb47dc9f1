"""What runs about texts share: models of transformers, saved as transformers saves them, whole or not at all."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

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
        return (folder / "config.json").is_file()

    def copies_teacher(self) -> bool:
        """Return that a teacher stays where it is, unless it was fitted."""
        return False

    def save(self, network: nn.Module, role: Role, folder: Path) -> None:
        """Write a model and its tokenizer, loadable by transformers alone; adapters are merged into their layers."""
        spec = self.recipe.student if role == "student" else self.recipe.teacher
        assert spec is not None, self.recipe
        _save(network, tokenizer_of(spec, self.tokenizer), folder)


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
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        if folder.exists():
            shutil.rmtree(folder)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
