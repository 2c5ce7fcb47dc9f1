"""Models of transformers in the folders of a run: saved as transformers saves them, whole or not at all."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path
from typing import Any

from torch import nn

from tutelage.models import HeadModel


def save_transformers(network: nn.Module, tokenizer: Any, folder: Path) -> None:
    """Write a model and its tokenizer, loadable by transformers alone; adapters are merged into their layers."""
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


def saved_bytes(network: nn.Module, folder: Path) -> int:
    """Return how much a model's weights take on the disk, or, for one that was not copied, in memory."""
    files = list(folder.glob("*.safetensors"))
    if files:
        return sum(file.stat().st_size for file in files)
    return sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
