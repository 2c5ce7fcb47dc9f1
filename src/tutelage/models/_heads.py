"""Where a language model's logits are made: the network below the head, the head's matrix, and what follows it.

Written by family, not guessed: a family that is not in the table, or a head that is not a plain matrix, gets a reason
instead, and its logits are then made as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tutelage.networks import config_of, is_compiled, unwrapped

Step = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class HeadParts:
    """The parts of `logits = softcap * tanh(scale * (transform(decoder(...)) @ weight.T + bias) / softcap)`."""

    decoder: nn.Module
    """The network that returns the hidden states first."""
    weight: Tensor
    bias: Tensor | None
    softcap: float | None
    scale: float | None
    transform: Sequence[Step] = ()
    """What the prediction head of an encoder does to hidden states before its matrix."""

    def states(self, hidden: Tensor) -> Tensor:
        """Return what the matrix is multiplied with, where the matrix lies."""
        for step in self.transform:
            hidden = step(hidden)
        return hidden.to(self.weight.device)


@dataclass(frozen=True)
class _Family:
    """What a family does around its matrix."""

    transform: Callable[[Any], Sequence[Step]] = lambda model: ()
    scale: Callable[[Any], float | None] = lambda model: None
    softcap: Callable[[Any], float | None] = lambda model: None


def _bert(model: Any) -> Sequence[Step]:
    return (model.cls.predictions.transform,)


def _roberta(model: Any) -> Sequence[Step]:
    return (model.lm_head.dense, nn.functional.gelu, model.lm_head.layer_norm)


def _distilbert(model: Any) -> Sequence[Step]:
    return (model.vocab_transform, model.activation, model.vocab_layer_norm)


_PLAIN = _Family()
_CAPPED = _Family(softcap=lambda model: model.config.final_logit_softcapping)
_MULTIPLIED = _Family(scale=lambda model: model.logit_scale)
_DIVIDED = _Family(scale=lambda model: 1.0 / model.config.logits_scaling)

_PLAIN_NAMES = """
apertus arcee bloom codegen ernie4_5 exaone4 falcon gemma glm glm4 gpt2 gpt_bigcode gpt_neo gpt_oss gptj gpt_neox helium
llama ministral mistral mixtral nemotron olmo olmo2 olmo3 olmoe opt persimmon phi phi3 phimoe qwen2 qwen2_moe qwen3
qwen3_moe seed_oss smollm3 stablelm starcoder2
"""
# By the model type in a configuration. tests/models/test_heads.py holds each of them to its own logits.
FAMILIES: dict[str, _Family] = {
    **dict.fromkeys(_PLAIN_NAMES.split(), _PLAIN),
    **dict.fromkeys(("gemma2", "gemma3_text", "nanochat"), _CAPPED),
    **dict.fromkeys(("cohere", "cohere2"), _MULTIPLIED),
    **dict.fromkeys(("granite", "granitemoe"), _DIVIDED),
    **dict.fromkeys(("camembert", "roberta", "xlm-roberta"), _Family(transform=_roberta)),
    "bert": _Family(transform=_bert),
    "distilbert": _Family(transform=_distilbert),
    "electra": _Family(transform=lambda model: (model.generator_predictions,)),
    "modernbert": _Family(transform=lambda model: (model.head,)),
    "modernbert-decoder": _Family(transform=lambda model: (model.lm_head,)),
}


def find_head(model: nn.Module) -> HeadParts | str:
    """Return the parts of a causal or masked language model, or the reason why its logits have to be made as a whole.

    model: a Hugging Face model, or a PeftModel around one. The parts are the model's own: ask again after it was moved
    or sharded.
    """
    if is_compiled(model):
        return f"{type(model._orig_mod).__name__} was compiled as a whole"
    inner = without_adapters(model)
    if isinstance(inner, str):
        return inner
    head = _matrix(inner)
    if isinstance(head, str):
        return head
    config = config_of(inner)
    kind = getattr(config, "model_type", None)
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        wrapper = any(hasattr(config, part) for part in ("vision_config", "audio_config", "text_config"))
        what = "wraps a language model for other media" if wrapper else "is of a family that is not known here"
        return f"{type(inner).__name__} (model type {kind!r}) {what}: what follows its head's matrix is not known"
    if not type(inner).forward.__module__.startswith("transformers.models."):
        return f"{type(inner).__name__} has a forward of its own ({type(inner).forward.__module__})"
    decoder = inner.base_model
    if decoder is inner:
        return f"{type(inner).__name__} has no network apart from its head"
    return HeadParts(
        decoder, head.weight, head.bias, family.softcap(inner), family.scale(inner), family.transform(inner)
    )


def vocabulary_width(model: nn.Module) -> int | None:
    """Return how many logits a language model gives, padded ones included; None for a model without a vocabulary."""
    while (inside := unwrapped(model)) is not None:
        model = inside
    head = _output_embeddings(model)
    if head is None:
        return None
    # A quantised matrix is packed: its shape is not that of the layer.
    width = getattr(head, "out_features", None)
    return int(head.weight.shape[0] if width is None else width)


def head_name(model: nn.Module) -> str | None:
    """Return the path of the head's matrix in a model, or None where it has none."""
    head = _output_embeddings(model)
    return next((path for path, module in model.named_modules() if module is head), None) if head is not None else None


def without_adapters(model: Any) -> Any:
    """Return the model in a PeftModel, which has the adapters in its layers, or the reason why it is not enough."""
    if not (hasattr(model, "peft_config") and hasattr(model, "get_base_model")):
        return model
    if any(getattr(config, "is_prompt_learning", False) for config in model.peft_config.values()):
        return "its adapter puts learned tokens before the text, which only the adapter's own forward does"
    return model.get_base_model()


def _output_embeddings(model: Any) -> Any:
    ask = getattr(model, "get_output_embeddings", None)
    return ask() if callable(ask) else None


def _matrix(model: Any) -> nn.Linear | str:
    """Return the head if it is a matrix that can be read as it is, or what it is instead."""
    name = type(model).__name__
    head = _output_embeddings(model)
    if head is None:
        return f"{name} has no head over a vocabulary"
    if type(head) is not nn.Linear:
        if "peft" in type(head).__module__:
            return f"the head of {name} carries an adapter ({type(head).__name__}), so it is no longer one matrix"
        return f"the head of {name} is a {type(head).__name__} and no torch.nn.Linear: quantised, or of its own making"
    if not head.weight.is_floating_point():
        return f"the head of {name} holds {head.weight.dtype} and no floating-point numbers: it is quantised"
    if head.weight.device.type == "meta":
        return f"the head of {name} is offloaded, so its weight is not there to be read"
    if type(head.weight.data) is not Tensor and not is_sharded(head.weight):
        return f"the head of {name} holds a {type(head.weight.data).__name__}: quantised, or of its own making"
    return head


def is_sharded(tensor: Tensor) -> bool:
    """Return whether a rank holds only its part of the tensor."""
    if type(tensor.data) is Tensor:
        return False
    # Costly to import, and needed only where something else than a plain tensor lies in a layer.
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)
