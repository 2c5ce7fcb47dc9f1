"""Pretrained language models: data and not code, every weight from the file, at a commit that is kept."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import nn

from tutelage.errors import MissingPackageError, ModelError, ParameterError
from tutelage.models._optional import optional
from tutelage.models._snapshot import CONFIG, GENERATION, WEIGHT_FILES, Snapshot, check_weights, fetch
from tutelage.packages import broken_package

_log = logging.getLogger(__name__)

Auto = Literal["causal_lm", "masked_lm", "sequence_classification", "token_classification"]
Precision = Literal["float32", "bfloat16", "float16", "auto"]
Quantize = Literal["8bit", "4bit"]

_AUTO = {
    "causal_lm": "AutoModelForCausalLM",
    "masked_lm": "AutoModelForMaskedLM",
    "sequence_classification": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
}


def load_pretrained(
    model: str | os.PathLike[str],
    *,
    auto: Auto,
    revision: str | None = None,
    dtype: Precision = "float32",
    device: str | torch.device | None = None,
    quantize: Quantize | None = None,
    classes: int | None = None,
) -> Any:
    """Return a model of transformers from a folder or the Hugging Face Hub, with no weight left to chance.

    model: a folder, or a repository such as "owner/model"; auto: what it is loaded for; revision: branch, tag or
    commit, where `model.config._commit_hash` is the commit it was; dtype: of its weights, "auto" for that of the file;
    device: where to put it; quantize: "8bit" or "4bit" by bitsandbytes, for teachers; classes: for a student whose
    classification head may be new. Without it a head that the weights lack is an error, as any other weight is.
    Errors: `ModelError`, `DamagedDataError`, `ParameterError`, `MissingPackageError`.
    """
    _check(auto, dtype, quantize, classes)
    place = _device(device)
    transformers = optional("transformers", f"the model {str(model)!r}", "tutelage[train]")
    quantized = _quantized(transformers, quantize, dtype, place)
    snapshot = fetch(model, revision, WEIGHT_FILES)
    settings = snapshot.json(CONFIG)
    for file in (CONFIG, GENERATION):
        snapshot.check_settings(file)
    if "transformers_weights" in settings:
        raise ModelError(
            f"{snapshot.name}: {CONFIG} names weights of its own ({settings['transformers_weights']!r}); expected "
            "model.safetensors: remove the entry"
        )
    if (snapshot.folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{snapshot.name} holds an adapter (adapter_config.json), whose base model lies elsewhere; expected a "
            "whole model: merge the two with peft and save the result"
        )
    check_weights(snapshot)
    labels = {} if classes is None else {"num_labels": classes}
    try:
        config = transformers.AutoConfig.from_pretrained(
            snapshot.folder, local_files_only=True, trust_remote_code=False, **labels
        )
        found, info = getattr(transformers, _AUTO[auto]).from_pretrained(
            snapshot.folder,
            config=config,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported below, with what to do about them
            output_loading_info=True,
            **quantized,
        )
    except ImportError as error:
        reason = broken_package(error) or f"it takes a package that is not installed: {_line(error)}"
        raise MissingPackageError(f"{snapshot.name} cannot be loaded: {reason}") from error
    except Exception as error:  # of all kinds: a configuration is checked by whoever first stumbles over it
        raise ModelError(
            f"{snapshot.name} cannot be loaded for {auto}: {_line(error)}; expected a model that transformers has for "
            "this task, with a configuration that fits its weights"
        ) from error
    _check_loaded(snapshot, found, info, auto, classes)
    found.config._commit_hash = snapshot.commit
    # A quantised model was put in its place while it was loaded, and cannot be moved.
    return found if quantize is not None or place is None else found.to(place)


def _check_loaded(
    snapshot: Snapshot, model: nn.Module, info: Mapping[str, Any], auto: Auto, classes: int | None
) -> None:
    """Raise `ModelError` if a weight was left out, made up, or had no place; say so if a head is new on purpose."""
    wrong = sorted(info["mismatched_keys"])
    if wrong:
        name, found, expected = wrong[0]
        raise ModelError(
            f"{snapshot.name}: {len(wrong)} weights have another shape than {CONFIG} asks for, such as {name!r} with "
            f"{tuple(found)} where {tuple(expected)} is expected: weights and configuration of two models, or another "
            "number of classes"
        )
    missing = set(info["missing_keys"])
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    new_head = {name for name in missing if not name.startswith(prefix) or ".pooler." in name}
    may_be_new = auto.endswith("classification")
    if missing and not (may_be_new and classes is not None and missing == new_head):
        example = sorted(missing - new_head or missing)[0]
        remedy = (
            "for a student whose head is to be trained, pass classes"
            if may_be_new and missing == new_head
            else "load it for the task that it was trained for, or fetch it again"
        )
        raise ModelError(
            f"{snapshot.name} has no weights for {len(missing)} parts of {type(model).__name__}, {example!r} among "
            f"them, and random ones would take their place; expected all of them: {remedy}"
        )
    if missing:
        _log.warning(
            "%s: the head for %d classes is new and untrained (%s)", snapshot.name, classes, ", ".join(sorted(missing))
        )
    # Parts for another task are left out rightly, layers are not: the network would be a shorter one.
    layers = sorted(name for name in info["unexpected_keys"] if re.search(r"\.\d+\.", name))
    if layers:
        raise ModelError(
            f"{snapshot.name} has weights for {len(layers)} parts that {CONFIG} does not ask for, such as "
            f"{layers[0]!r}; expected as many layers as there are: a configuration of another model?"
        )


def _check(auto: str, dtype: str, quantize: str | None, classes: int | None) -> None:
    for name, value, known in (
        ("auto", auto, get_args(Auto)),
        ("dtype", dtype, get_args(Precision)),
        ("quantize", quantize, (None, *get_args(Quantize))),
    ):
        if value not in known:
            raise ParameterError(f"load_pretrained({name}={value!r}): expected one of {list(known)}")
    if classes is not None and not auto.endswith("classification"):
        raise ParameterError(f"load_pretrained(auto={auto!r}, classes={classes!r}): a language model has no classes")
    if classes is not None and not (type(classes) is int and classes >= 1):
        raise ParameterError(f"load_pretrained(classes={classes!r}): expected a whole number >= 1, or None")


def _device(device: str | torch.device | None) -> torch.device | None:
    if device is None:
        return None
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise ParameterError(
            f"load_pretrained(device={str(device)!r}): {_line(error)}; expected a device of this machine"
        ) from error
    return place


def _quantized(transformers: Any, quantize: str | None, dtype: str, place: torch.device | None) -> dict[str, Any]:
    if quantize is None:
        return {}
    optional("bitsandbytes", f"quantize={quantize!r}", "bitsandbytes")
    optional("accelerate", f"quantize={quantize!r}", "tutelage[train]")
    if quantize == "8bit":
        how = transformers.BitsAndBytesConfig(load_in_8bit=True)
    else:
        computed = torch.bfloat16 if dtype == "auto" else getattr(torch, dtype)
        how = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=computed
        )
    default = "cuda" if torch.cuda.is_available() else "cpu"
    return {"quantization_config": how, "device_map": {"": place or torch.device(default)}}


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
