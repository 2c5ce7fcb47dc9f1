"""Networks for images from timm, behind the same standardised inputs as every other network here."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from tutelage.errors import ModelError
from tutelage.models._mlp import Standardised
from tutelage.models._optional import optional


class TimmClassifier(Standardised):
    """A network that timm knows by name, with one logit per class; pretrained weights are timm's to fetch."""

    def __init__(self, shape: Sequence[int], classes: int, name: str, pretrained: bool = False) -> None:
        super().__init__(shape)
        if len(self.shape) != 3:
            raise ModelError(f"timm: {name} takes images; the inputs have shape {self.shape}: use an mlp")
        timm = _timm()
        try:
            self.net = timm.create_model(name, pretrained=pretrained, num_classes=classes, in_chans=self.shape[0])
        except RuntimeError as error:
            near = get_close_matches(name, timm.list_models(), n=1)
            hint = f"did you mean {near[0]!r}?" if near else "timm.list_models() lists what there is"
            raise ModelError(f"timm: {name} cannot be made ({error}); {hint}") from error
        self.pretrained = pretrained

    def standardise(self, inputs: Tensor) -> None:
        """Set mean and spread from rows, or from what pretrained weights were trained with."""
        config: dict[str, Any] = getattr(self.net, "pretrained_cfg", {}) if self.pretrained else {}
        if self.shape[0] != len(config.get("mean", ())):
            super().standardise(inputs)
            return
        self.mean.copy_(torch.tensor(config["mean"]).reshape(self.mean.shape))
        self.std.copy_(torch.tensor(config["std"]).reshape(self.std.shape))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, channels, height, width)."""
        logits: Tensor = self.net(self.standardised(inputs))
        return logits


def _timm() -> Any:
    return optional("timm", "a network from timm", "tutelage[vision]")
