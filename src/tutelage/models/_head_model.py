"""A language model that returns hidden states and its head, so that its logits never exist as a whole."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tutelage.distributions import HeadStates
from tutelage.errors import ModelError, ModuleError
from tutelage.models._heads import HeadParts, find_head, is_sharded, vocabulary_width, without_adapters

_log = logging.getLogger(__name__)

# What trainers and users ask a language model for, and the wrapped one knows.
_ASKED_OF_THE_MODEL = frozenset(
    {
        "_no_split_modules",
        "activation_checkpointing_disable",
        "activation_checkpointing_enable",
        "config",
        "device",
        "dtype",
        "enable_input_require_grads",
        "generate",
        "generation_config",
        "get_input_embeddings",
        "get_output_embeddings",
        "gradient_checkpointing_disable",
        "gradient_checkpointing_enable",
        "hf_device_map",
        "is_activation_checkpointing",
        "is_gradient_checkpointing",
        "main_input_name",
        "save_pretrained",
        "tie_weights",
    }
)
# They change what the model computes from hidden states, or add a loss; neither has a place here.
_NO_INPUTS = ("labels", "logits_to_keep", "num_logits_to_keep", "return_dict", "use_cache", "past_key_values")
_ROUNDINGS = 8.0
"""How many roundings of its dtype a logit may differ: the order of sums, a product by a scale, a tanh."""


class HeadModel(nn.Module):
    """A causal or masked language model whose forward returns `HeadStates` for all positions.

    model: a Hugging Face model that `find_head` knows, or a PeftModel around one. It is trained in place and saved by
    its own `save_pretrained`; in `state_dict` its names have the prefix "model.". The head is read at each call, so
    that weights gathered for the call by FSDP2 are the ones that are used: shard this module or one that contains it.
    Errors: `ModelError`, `ModuleError`.
    """

    passes_on: ClassVar[str] = "model"

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        _parts(model)
        self.model = model

    def __getattr__(self, name: str) -> Any:
        if name in _ASKED_OF_THE_MODEL:
            return getattr(self.model, name)
        return super().__getattr__(name)

    def forward(self, **inputs: Any) -> HeadStates:
        """Return the hidden states (B, L, D) and the head; nothing is shifted."""
        parts = _parts(self.model)
        if is_sharded(parts.weight):
            raise ModelError(
                "the head's weight is sharded while it is read; expected it to be gathered for the call: apply "
                "fully_shard to the HeadModel, or to a module that contains it, and not to the model inside"
            )
        known = inspect.signature(parts.decoder.forward).parameters
        # A configuration may ask for a cache, which nobody reads here.
        if "use_cache" in known:
            inputs = {**inputs, "use_cache": False}
        self._check(inputs)
        hidden = parts.decoder(**inputs)[0]
        return HeadStates(parts.states(hidden), parts.weight, parts.bias, softcap=parts.softcap, scale=parts.scale)

    def _check(self, inputs: Mapping[str, Any]) -> None:
        inner = without_adapters(self.model)
        known = set(inspect.signature(inner.forward).parameters) - set(_NO_INPUTS) | {"use_cache"}
        # The networks below take any name at all, and would leave a misspelt one unused.
        if unknown := sorted(set(inputs) - known):
            raise ModuleError(
                f"{type(inner).__name__} was called with {unknown}; expected names among {sorted(known - {'kwargs'})}: "
                "rename the columns of the data set, or leave them out"
            )


def check_head(model: nn.Module, batch: Mapping[str, Any]) -> str | None:
    """Return None if the head path gives the model's own logits on a batch, or the reason why it is not to be taken.

    batch: what the model is called with; labels are left out, and so are positions that its attention mask leaves out.
    """
    parts = find_head(model)
    if isinstance(parts, str):
        return parts
    inputs = {name: value for name, value in batch.items() if name not in _NO_INPUTS}
    with torch.no_grad(), _evaluating(model):
        own = model(**inputs).logits
        logits = _logits(HeadModel(model)(**inputs))
    if logits.shape != own.shape:
        return f"the head path gives logits of shape {tuple(logits.shape)}, the model {tuple(own.shape)}"
    mask = inputs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.shape == own.shape[:-1]:
        logits, own = logits[mask.bool()], own[mask.bool()]
    largest = own.abs().amax(-1).clamp(min=torch.finfo(own.dtype).tiny)  # a head of zeros gives zeros either way
    error = float(((logits - own).abs().amax(-1) / largest).double().max())
    bound = _ROUNDINGS * torch.finfo(own.dtype).eps
    # Asked this way round, NaN is a reason as well.
    if error <= bound:
        return None
    return (
        f"the head path differs from the model's own logits by {error:.2g} of the largest, more than the {bound:.2g} "
        f"that rounding in {str(own.dtype).removeprefix('torch.')} explains"
    )


def language_model(model: nn.Module, probe: Mapping[str, Any] | None = None) -> nn.Module:
    """Return the model as a `HeadModel`, or as it is where the head path would not give its logits; that is logged.

    probe: a small batch to compare both on; by default 2 rows of 8 ids, spread over the vocabulary.
    """
    reason = check_head(model, _probe(model) if probe is None else probe)
    if reason is None:
        return HeadModel(model)
    _log.warning("%s: its logits are made as a whole, because %s", type(model).__name__, reason)
    return model


def _logits(states: HeadStates) -> Tensor:
    """Return the logits in the model's dtype and its order of steps, so that only a few roundings may differ."""
    logits = nn.functional.linear(states.hidden, states.weight, states.bias)
    logits = logits if states.scale is None else logits * states.scale
    return logits if states.softcap is None else states.softcap * torch.tanh(logits / states.softcap)


def _parts(model: nn.Module) -> HeadParts:
    parts = find_head(model)
    if isinstance(parts, str):
        raise ModelError(f"{parts}; expected a language model whose head is one matrix: use language_model(model)")
    return parts


def _probe(model: nn.Module) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    ids = torch.linspace(0, (vocabulary_width(model) or 1) - 1, 16, device=device).long().reshape(2, 8)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
