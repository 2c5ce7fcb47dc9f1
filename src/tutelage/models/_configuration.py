"""What a configuration file may ask for: an architecture and its sizes, but no code from elsewhere."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

_ATTENTION = ("eager", "sdpa", "flex_attention")
_EXPERTS = ("eager", "grouped_mm", "batched_mm")
_FLASH = re.compile(r"flash_attention_(\d)")
_IMPLEMENTATION = re.compile(r"_?(attn|experts)_implementation(_internal)?")
_LAYERS = re.compile(r"(.*_)?layers?")
# The largest models have 200 layers. Of ten million a library makes a list, or a network, before it looks any further.
_MOST_LAYERS, _MOST_CLASSES = 10_000, 1_000_000


def code_named(settings: Mapping[str, Any], *classes: str) -> tuple[str, str] | None:
    """Return the first key of a configuration that names code of a repository, and what it names; None for nothing.

    classes: where only these are to be loaded, such as "AutoTokenizer", the code of others does not matter. The
    implementations of attention and experts that PyTorch and transformers have themselves are fine, and so is an
    installed flash-attn: other names are those of repositories, whose code transformers would download and run.

    >>> code_named({"text_config": {"_attn_implementation": "someone/kernel"}})
    ('_attn_implementation', "'someone/kernel'")
    """
    for key, value in _entries(settings):
        if key == "auto_map" and value and (not classes or not isinstance(value, dict) or set(classes) & set(value)):
            return key, ", ".join(sorted(map(str, value))) if isinstance(value, dict) else str(value)
        if classes:
            continue
        if key in ("custom_generate", "custom_pipelines") and value:
            return key, ", ".join(value) if isinstance(value, dict) else repr(value)
        if _IMPLEMENTATION.fullmatch(key):
            ours = _ATTENTION if "attn" in key else _EXPERTS
            for name in value.values() if isinstance(value, dict) else (value,):
                if not (name is None or name in ours or ("attn" in key and _is_installed(name))):
                    return key, repr(name)
    return None


def size_beyond_reason(settings: Mapping[str, Any]) -> str | None:
    """Return the first number of layers or classes that no model has, with its key; None if there is none."""
    for key, value in _entries(settings):
        most = _MOST_LAYERS if _LAYERS.fullmatch(key) else _MOST_CLASSES if key == "num_labels" else None
        if most is not None and isinstance(value, (int, float)) and value > most:
            return f"{key} is {value:,}; expected at most {most:,}"
    return None


def _entries(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of a configuration and of all configurations in it."""
    remaining: list[Any] = [settings]
    while remaining:
        value = remaining.pop()
        if isinstance(value, dict):
            yield from value.items()
            remaining += value.values()
        elif isinstance(value, list):
            remaining += value


def _is_installed(name: Any) -> bool:
    """Return whether this is flash attention of an installed package; without that, a kernel would be downloaded."""
    match = _FLASH.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        return False
    available = getattr(importlib.import_module("transformers.utils"), f"is_flash_attn_{match[1]}_available", None)
    return available is not None and bool(available())
