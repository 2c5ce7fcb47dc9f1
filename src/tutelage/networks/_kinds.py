"""What a network is made for: by the tables of transformers, its configuration and its head, through wrappers."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from tutelage.networks._wrappers import config_of, unwrapped


@dataclass(frozen=True)
class Kind:
    """What a network is made for.

    what: in words, after "a model for"; tasks: the names of the tasks here that can train it; task: the one that is
    meant unless the user says so, None where that is not certain; network: who says so, inside all wrappers;
    is_output: whether what the whole network returns is what that one returns, unless a user's forward comes between.
    """

    what: str
    tasks: tuple[str, ...]
    task: str | None
    network: Any
    is_output: bool = True


_ROWS = ("classification", "sequence_classification")
# By the names of transformers' own tables: what is in MODEL_FOR_<name>_MAPPING_NAMES.
_CLASSIFIERS = {
    "SEQUENCE_CLASSIFICATION": "sequence_classification",
    "NEXT_SENTENCE_PREDICTION": "sequence_classification",
    "IMAGE_CLASSIFICATION": "classification",
    "VIDEO_CLASSIFICATION": "classification",
    "AUDIO_CLASSIFICATION": "classification",
    "TIME_SERIES_CLASSIFICATION": "classification",
}
_GENERATORS = {
    "CAUSAL_LM",
    "IMAGE_TEXT_TO_TEXT",
    "MASKED_LM",
    "MULTIMODAL_LM",
    "SEQ_TO_SEQ_CAUSAL_LM",
    "SPEECH_SEQ_2_SEQ",
}
_ABBREVIATIONS = {"CTC", "RNNT", "TDT"}
# Networks without a head for one task.
_BASES = {"BACKBONE", "IMAGE", "TEXT_ENCODING"}
# For classes that transformers does not know, such as code that came with a model.
_ENDS = {
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForMaskedLM": "MASKED_LM",
    "ForSequenceClassification": "SEQUENCE_CLASSIFICATION",
    "ForTokenClassification": "TOKEN_CLASSIFICATION",
    "ForImageClassification": "IMAGE_CLASSIFICATION",
    "ForConditionalGeneration": "SEQ_TO_SEQ_CAUSAL_LM",
    "ForCTC": "CTC",
    "ForQuestionAnswering": "QUESTION_ANSWERING",
    "ForMultipleChoice": "MULTIPLE_CHOICE",
    "ForSemanticSegmentation": "SEMANTIC_SEGMENTATION",
}


def kind_of(network: Any) -> Kind | None:
    """Return what a network is made for, None for one that does not say, such as plain PyTorch.

    It looks through wrappers that pass an output on, and through a user's module with one network inside. There, and
    where a subclass has a forward of its own, what comes out may be something else; kinds without a task say nothing.
    """
    if network is None:
        return None
    found = _of_transformers(network) if _is_of_transformers(network) else None
    if found is None:
        inside = unwrapped(network)
        found = kind_of(_only_child(network) if inside is None else inside)
        if found is not None and inside is None:
            found = replace(found, is_output=False)
    if found is None:
        found = _by_name(network)
    return None if found is None or not (found.is_output or found.tasks) else found


def _only_child(network: Any) -> Any:
    """Return the one module with parameters in a user's wrapper, None if there are more, or parameters beside it."""
    if (
        isinstance(network, torch.jit.ScriptModule)
        or not isinstance(network, nn.Module)
        or _is_of_transformers(network)
    ):
        return None
    children = [child for child in network.children() if next(child.parameters(), None) is not None]
    own = any(parameter is not None for parameter in network._parameters.values())
    return children[0] if len(children) == 1 and not own else None


def _of_transformers(network: Any) -> Kind | None:
    config, tables = config_of(network), _tables()
    for cls in type(network).__mro__:
        names = tables.get(cls.__name__) if cls.__module__.startswith("transformers.") else None
        if names:
            own_forward = type(network).forward is not cls.forward  # type: ignore[attr-defined]
            return replace(_of_tables(names, cls.__name__, config, network), is_output=not own_forward)
    return _by_name(network) or _by_its_head(network, config)


def _by_name(network: Any) -> Kind | None:
    """Return the kind that the name of a class ends with, for want of anything better."""
    for name in _class_names(network):
        for end, table in _ENDS.items():
            if name.endswith(end):
                kind = _of_tables(frozenset({table}), name, config_of(network), network)
                # A name that anybody may give says what to train by, and does not forbid it.
                return kind if kind.tasks or _is_of_transformers(network) else None
    return None


def _of_tables(names: frozenset[str], cls: str, config: Any, network: Any) -> Kind:
    """Return the kind of a class that is in these tables."""
    for table, task in _CLASSIFIERS.items():
        if table in names:
            return Kind(_words(table), _ROWS, task, network)
    if "TOKEN_CLASSIFICATION" in names:
        return Kind("token classification", ("token_classification",), "token_classification", network)
    if names & _GENERATORS:
        return _language(names, cls, config, network)
    named = sorted(names - {"PRETRAINING"}) or ["PRETRAINING"]
    return Kind(_words(named[0]), (), None, network)


def _language(names: frozenset[str], cls: str, config: Any, network: Any) -> Kind:
    if getattr(config, "is_encoder_decoder", False):
        return Kind("sequence-to-sequence language modelling", (), None, network)
    type_of = getattr(config, "model_type", None)
    looks_back = bool(getattr(config, "is_decoder", False) or getattr(config, "causal", False))
    if "CAUSAL_LM" in names and (looks_back or not _has_both_directions(type_of)):
        return Kind("causal language modelling", ("causal_lm",), "causal_lm", network)
    if "MASKED_LM" in names:
        task = "causal_lm" if looks_back else "masked_lm"
        return Kind(f"{task.removesuffix('_lm')} language modelling", (task,), task, network)
    if "CAUSAL_LM" in names:
        what = f"language modelling from both sides (is_decoder=False in the configuration of {cls})"
        return Kind(what, ("masked_lm",), None, network)
    if names & {"IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM"} or config is not None:
        return Kind("language modelling beside other media", ("causal_lm",), None, network)
    return Kind("sequence-to-sequence language modelling", (), None, network)


def _by_its_head(network: Any, config: Any) -> Kind | None:
    """Return the kind of a user's class of transformers that has a head over a vocabulary, None for any other."""
    ask = getattr(network, "get_output_embeddings", None)
    if not callable(ask) or ask() is None:
        return None
    auto = _auto()
    known = {
        table
        for table in ("CAUSAL_LM", "MASKED_LM")
        if getattr(config, "model_type", None) in getattr(auto, f"MODEL_FOR_{table}_MAPPING_NAMES")
    }
    cls = type(network).__name__
    if known or getattr(config, "is_encoder_decoder", False):
        return _language(frozenset(known), cls, config, network)
    return Kind("language modelling", ("causal_lm", "masked_lm"), None, network)


def _is_of_transformers(network: Any) -> bool:
    modeling = sys.modules.get("transformers.modeling_utils")
    return modeling is not None and isinstance(network, modeling.PreTrainedModel)


def _class_names(network: Any) -> list[str]:
    """Return the names of a network's classes; what was scripted or traced keeps one of them."""
    if isinstance(network, torch.jit.ScriptModule):
        return [str(getattr(network, "original_name", ""))]
    return [cls.__name__ for cls in type(network).__mro__]


def _auto() -> Any:
    from transformers.models.auto import modeling_auto  # slow to load; here a model of transformers exists already

    return modeling_auto


def _has_both_directions(model_type: Any) -> bool:
    auto = _auto() if "transformers" in sys.modules else None
    return auto is not None and model_type in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES


@functools.cache
def _tables() -> dict[str, frozenset[str]]:
    """Return the tables that each class of transformers is in, without those of networks that have no head."""
    auto = _auto()
    found: dict[str, set[str]] = {}
    for constant in dir(auto):
        if not (constant.startswith("MODEL_FOR_") and constant.endswith("_MAPPING_NAMES")):
            continue
        table = constant.removeprefix("MODEL_FOR_").removesuffix("_MAPPING_NAMES")
        if table in _BASES:
            continue
        for names in getattr(auto, constant).values():
            for name in (names,) if isinstance(names, str) else names:
                found.setdefault(name, set()).add(table)
    return {name: frozenset(tables) for name, tables in found.items()}


def _words(table: str) -> str:
    return table if table in _ABBREVIATIONS else table.lower().replace("_", " ")
