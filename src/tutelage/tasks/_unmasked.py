"""Batches of tokens without an attention mask, in which rows start with padding: networks read it as text."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakSet

from torch import Tensor, nn

from tutelage.errors import InputWarning
from tutelage.networks import config_of, kind_of
from tutelage.tasks._labels import UNLABELLED

_WARNED_OF: WeakSet[nn.Module] = WeakSet()


def warn_of_unmasked_padding(student: nn.Module, teachers: Iterable[nn.Module], batch: Mapping[str, Any]) -> None:
    """Warn once of a student's batch (B, L) without a mask whose rows start with padding, by a network's id for it.

    What follows padding on the left sees it, where padding on the right is seen by nothing that counts. On the CPU
    only, where looking waits for nothing.
    """
    ids, labels = batch.get("input_ids"), batch.get("labels")
    if student in _WARNED_OF or batch.get("attention_mask") is not None:
        return
    if not isinstance(ids, Tensor) or not isinstance(labels, Tensor) or ids.dim() != 2:
        return
    if ids.shape != labels.shape or ids.device.type != "cpu" or labels.device.type != "cpu":
        return
    for network in (student, *teachers):
        kind = kind_of(network)
        inner = network if kind is None else kind.network
        pad, is_text = _padding_of(inner)
        if pad is not None and _start_with(ids, labels, pad, is_text=is_text):
            _WARNED_OF.add(student)
            warnings.warn(
                f"the batch has no attention_mask, and rows start with the padding id {pad} of "
                f"{type(inner).__name__} (config.pad_token_id) and without labels there: padding on the left is read "
                "as text. Pass attention_mask, 0 at padding, in what the data collator returns, or pad on the right",
                InputWarning,
                stacklevel=2,
            )
            return


def _padding_of(inner: Any) -> tuple[int | None, bool]:
    """Return the id of padding in a configuration, and whether texts begin or end with the same id."""
    whole = config_of(inner)
    if whole is None:
        return None, False
    config = whole.get_text_config()
    pad, end = getattr(config, "pad_token_id", None), getattr(config, "eos_token_id", None)
    marks = [getattr(config, "bos_token_id", None), *(end if isinstance(end, (list, tuple)) else [end])]
    return (pad if isinstance(pad, int) and not isinstance(pad, bool) else None), pad in marks


def _start_with(ids: Tensor, labels: Tensor, pad: int, *, is_text: bool) -> bool:
    """Return whether rows start with padding; of an id that texts hold, more than the one that begins a text."""
    leading = ((ids == pad) & (labels == UNLABELLED)).long().cumprod(1).sum(1)
    # A row of nothing but padding has nothing that is trained on.
    leading = leading[leading < ids.shape[1]]
    if not leading.numel():
        return False
    # What all rows begin with may be their text.
    return bool(leading.max() - leading.min() > 1) if is_text else bool(leading.max() > 0)
