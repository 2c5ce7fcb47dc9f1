"""How one network reads a batch that others read too: its own padding, its own precision, and its own limits."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

from tutelage.errors import InputWarning, ModuleError, ShapeError, VocabularyError
from tutelage.networks import config_of, kind_of, unwrapped
from tutelage.tasks._padding import left_padded, mask_over_tokens, right_padded, steps_to

Inputs = Mapping[str, Any]


def of_transformers(network: nn.Module) -> Any:
    """Return the model of transformers that a network is, or that a wrapper passes its inputs on to.

    None for any other network: a module of the user's may do what it likes with rows before a model reads them.
    """
    inner: Any = network
    while (inside := unwrapped(inner)) is not None:
        inner = inside
    return inner if config_of(inner) is not None and hasattr(inner, "base_model_prefix") else None


# --- padding ----------------------------------------------------------------------------------------------------------


def padded_as_read(network: nn.Module, inputs: Inputs) -> Inputs:
    """Return inputs with padding that the network recognises.

    Models of transformers tell padding by the id in their configuration: decoders that classify rows to find the last
    token, RoBERTa to count positions. Padding gets that id, whatever a tokenizer padded with. Classifiers of rows get
    them padded on the side from which they are right for all.
    """
    inner, ids = of_transformers(network), inputs.get("input_ids")
    if not isinstance(ids, Tensor) or ids.dim() != 2:
        return inputs
    if inner is None:
        _warn_of_padding(network, ids, mask_over_tokens(inputs))
        return inputs
    if not ids.is_floating_point() and ids.dtype not in (torch.int32, torch.int64):
        # Files of tokens are often of a narrow type, and tables are read by these two alone.
        inputs = {**inputs, "input_ids": ids.long()}
    if (side := _padded_on(inner)) is not None:
        inputs = left_padded(inputs) if side == "left" else right_padded(inputs)
    mask, pad = mask_over_tokens(inputs), _padding_id(inner)
    if mask is None or pad is None or mask.shape != ids.shape:
        return inputs
    return {**inputs, "input_ids": torch.where(mask != 0, inputs["input_ids"], pad)}


def _warn_of_padding(network: nn.Module, ids: Tensor, mask: Tensor | None) -> None:
    """Warn once of a user's module around a classifier of rows that looks for padding by another id than the batch's.

    It is not given other ids: the module may look at them itself. On the CPU only, where looking waits for nothing.
    """
    if mask is None or mask.shape != ids.shape or mask.device.type != "cpu" or network in _WARNED_OF:
        return
    kind = kind_of(network)
    if kind is None or kind.task != "sequence_classification" or config_of(kind.network) is None:
        return
    pad, found = _padding_id(kind.network), ids[mask == 0]
    if not found.numel() or (pad is not None and bool((found == pad).all())):
        return
    _WARNED_OF.add(network)
    warnings.warn(
        f"{type(network).__name__} wraps {type(kind.network).__name__} with config.pad_token_id={pad}, and the batch "
        f"is padded with {int(found[0])}: a model that finds the last token of a row by that id reads another one. Set "
        f"config.pad_token_id to {int(found[0])} in the wrapped model",
        InputWarning,
        stacklevel=2,
    )


_WARNED_OF: WeakSet[nn.Module] = WeakSet()


@contextmanager
def finding_last_tokens(network: nn.Module, inputs: Inputs) -> Iterator[None]:
    """Let a decoder that classifies rows, and whose configuration has no id for padding, find their last tokens.

    It looks for the last place that does not hold the id. For the time of a call it is told, place by place, what is
    padding; the configuration is as before afterwards.
    """
    inner, ids = of_transformers(network), inputs.get("input_ids")
    if inner is None or not isinstance(ids, Tensor) or not _looks_for_padding(inner):
        yield
        return
    mask = mask_over_tokens(inputs)
    # No id is -1: without a mask every token is real.
    padding = torch.full_like(ids, -1) if mask is None else torch.where(mask != 0, -1, ids)
    # A configuration checks what is set, and a tensor is no number; what is compared with it may as well be one.
    held = vars(inner.config.get_text_config())
    before = held.get("pad_token_id")
    held["pad_token_id"] = padding
    try:
        yield
    finally:
        held["pad_token_id"] = before


def read_alike(network: nn.Module, other: nn.Module, inputs: Inputs) -> bool:
    """Return whether two networks read each token at the same place; on a GPU, where nobody looks, yes."""
    mask = mask_over_tokens(inputs)
    if mask is None or mask.device.type != "cpu":
        return True
    sides = {None if (inner := of_transformers(each)) is None else _padded_on(inner) for each in (network, other)}
    first, *rest = (steps_to(side, mask) % mask.shape[1] for side in sides)
    return all(torch.equal(first, steps) for steps in rest)


def _padded_on(inner: Any) -> str | None:
    """Return the side on which a classifier of rows reads them padded, None for others, which read them as they are."""
    if not _classifies_rows(inner):
        return None
    # XLNet says of a row what stands at its last place.
    return "left" if getattr(inner.config, "summary_type", None) == "last" else "right"


def _classifies_rows(inner: Any) -> bool:
    kind = kind_of(inner)
    return kind is not None and kind.task == "sequence_classification"


def _looks_for_padding(inner: Any) -> bool:
    """Return whether a classifier may look for an id of padding, and has none."""
    of_two = getattr(inner.config, "is_encoder_decoder", False)
    return _classifies_rows(inner) and not of_two and _padding_id(inner) is None


def _padding_id(inner: Any) -> int | None:
    """Return the id of padding in a configuration, None where there is none that a text could hold."""
    pad = getattr(inner.config.get_text_config(), "pad_token_id", None)
    known = getattr(_embeddings(inner), "num_embeddings", None)
    is_an_id = isinstance(pad, int) and pad >= 0 and (known is None or pad < known)
    return pad if is_an_id else None


def _embeddings(inner: Any) -> Any:
    try:
        return inner.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None


# --- limits -----------------------------------------------------------------------------------------------------------

_TABLES: WeakKeyDictionary[nn.Module, tuple[nn.Embedding, int] | None] = WeakKeyDictionary()
"""By model: the table of its positions, and how many of its rows no token has; None where positions are computed."""


def check_length(role: str, network: nn.Module, inputs: Inputs) -> None:
    """Raise `ShapeError` for rows that are longer than a network's table of positions. No value is looked at."""
    inner, ids = of_transformers(network), inputs.get("input_ids")
    if inner is None or not isinstance(ids, Tensor) or ids.dim() != 2 or "position_ids" in inputs:
        return
    # A subclass with a forward of its own may split what is too long.
    if not type(inner).forward.__module__.startswith("transformers."):
        return
    if inner not in _TABLES:
        _TABLES[inner] = _table_of_positions(inner)
    found = _TABLES[inner]
    if found is not None and ids.shape[1] > found[0].num_embeddings - found[1]:
        raise _too_long(role, inner, inputs, found[0].num_embeddings - found[1])


def _table_of_positions(inner: Any) -> tuple[nn.Embedding, int] | None:
    words = _embeddings(inner)
    for owner in inner.modules() if words is not None else ():
        inside = dict(owner.named_children())
        if not any(child is words for child in inside.values()):
            continue
        for name, table in inside.items():
            if isinstance(table, nn.Embedding) and table is not words and "pos" in name:
                # OPT leaves the first rows out; RoBERTa counts from the id of its padding on.
                first = getattr(table, "offset", 0) if table.padding_idx is None else table.padding_idx + 1
                return table, int(first)
    return None


def _too_long(role: str, inner: Any, inputs: Inputs, limit: int) -> ShapeError:
    ids, mask = inputs["input_ids"], mask_over_tokens(inputs)
    came = f"the rows of a batch have {ids.shape[1]} tokens, padding included"
    if mask is not None and mask.device.type == "cpu":
        lengths = (mask != 0).sum(1)
        if int(lengths.max()) > limit:
            came = f"row {int(lengths.argmax())} of a batch has {int(lengths.max())} tokens"
    return ShapeError(
        f"{came}, and {role} ({type(inner).__name__}) has {limit} positions; expected {limit} tokens at most: truncate "
        "or split the texts"
    )


def explained(role: str, network: nn.Module, inputs: Inputs, error: Exception) -> Exception | None:
    """Return the named error for one that a network raised, where the inputs tell its cause; None elsewhere."""
    if (mixed := _mixed_precisions(role, network, error)) is not None:
        return mixed
    whole = {n: v for n, v in inputs.items() if isinstance(v, Tensor) and not v.is_floating_point() and v.numel()}
    if any(value.device.type != "cpu" for value in whole.values()):
        return None
    inner, ids = of_transformers(network), whole.get("input_ids")
    if inner is not None and ids is not None and ids.dim() == 2:
        known = getattr(_embeddings(inner), "num_embeddings", None)
        if known is not None and len(wrong := ((ids < 0) | (ids >= known)).nonzero()):
            row, place = wrong[0].tolist()
            return VocabularyError(
                f"row {row} of a batch has the id {int(ids[row, place])} at place {place}, and {role} "
                f"({type(inner).__name__}) has embeddings for {known} ids; expected ids from 0 to {known - 1}: use the "
                "tokenizer that the network was trained with, or resize_token_embeddings for tokens that were added"
            )
        config = inner.config.get_text_config()
        # Rotary positions go on beyond what a model was trained with.
        is_rotary = getattr(config, "rope_parameters", None) is not None
        limit = None if is_rotary else getattr(config, "max_position_embeddings", None)
        longest = int(whole["position_ids"].max()) + 1 if "position_ids" in whole else ids.shape[1]
        of_places = isinstance(error, IndexError) or any(word in str(error) for word in ("size of tensor", "index"))
        if of_places and isinstance(limit, int) and longest > limit:
            return _too_long(role, inner, inputs, limit)
    if not isinstance(error, IndexError):
        return None
    tables = {n: m.num_embeddings for n, m in network.named_modules() if isinstance(m, nn.Embedding)}
    ranges = {name: f"{int(value.min())} to {int(value.max())}" for name, value in whole.items()}
    return ModuleError(
        f"{role} ({type(network).__name__}) looked up what its tables do not have ({error}): the batch has {ranges} of "
        f"shape {[tuple(value.shape) for value in whole.values()]}, and the tables of embeddings have {tables} rows; "
        "expected ids, types and positions below these"
    )


# --- precision --------------------------------------------------------------------------------------------------------


def _mixed_precisions(role: str, network: nn.Module, error: Exception) -> ModuleError | None:
    """Return the named error for weights whose type autocast does not bring together with its own."""
    if not any(words in str(error) for words in ("dtype", "scalar type", "should be the same")):
        return None
    weights = {p.dtype: p.device.type for p in network.parameters() if p.is_floating_point()}
    device = next(iter(weights.values()), "cpu")
    if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
        return None
    computed = torch.get_autocast_dtype(device)
    others = sorted(str(dtype) for dtype in weights if dtype not in (torch.float32, computed))
    if not others:
        return None
    name = type(of_transformers(network) or network).__name__
    return ModuleError(
        f"{role} ({name}) has weights of {' and '.join(others)} and is computed in {computed}, by "
        f"autocast (bf16=True or fp16=True in TrainingArguments), which does not mix the two here ({error}); expected "
        f"weights of torch.float32 or {computed}: load it with dtype={computed} or torch.float32, or train without "
        "autocast"
    )


def in_precision_of(network: nn.Module, inputs: Inputs) -> Inputs | None:
    """Return inputs in the floating-point type of a network's weights, None where they are of it, or autocast is on.

    Masks, which are added to scores of any type, stay as they are.
    """
    own = next((p.dtype for p in network.parameters() if p.is_floating_point()), None)
    changed = {
        name: value.to(own)
        for name, value in inputs.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.dtype != own and "mask" not in name
    }
    device = next((value.device.type for value in changed.values()), "cpu")
    return {**inputs, **changed} if own is not None and changed and not torch.is_autocast_enabled(device) else None
