"""Whether documents that share a row stay apart, asked of the network itself.

Nothing else can tell: which masks a network honours depends on its code, its attention and whether it fills a cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.errors import ShapeError
from tutelage.networks import config_of
from tutelage.tasks._calling import call
from tutelage.tasks._language import inputs_of, side_of


def leak_between_documents(module: nn.Module, batch: Mapping[str, Any]) -> str | None:
    """Return why documents that are packed into one row would see each other in this network, or None if they do not.

    batch: as a collator of packed rows gives it, "input_ids" and "position_ids" (B, L) restarting at 0 with each
    document, with two documents or more in a row. The first document's ids are changed, and nothing at later positions
    may change by a bit. Errors: `ShapeError` for a batch that cannot show it.
    """
    ids, positions = batch.get("input_ids"), batch.get("position_ids")
    if not isinstance(ids, Tensor) or not isinstance(positions, Tensor) or ids.shape != positions.shape:
        raise ShapeError("the batch lacks 'input_ids' and 'position_ids' of one shape; expected a batch of packed rows")
    later = (positions == 0).cumsum(1) > 1
    if not bool(later.any()):
        raise ShapeError("no row of the batch has two documents; expected packed rows")
    window = _window(module)
    mask = batch.get("attention_mask")
    if isinstance(mask, Tensor) and mask.dim() == 4 and window is not None and window < ids.shape[1]:
        return (
            f"the network attends within a window of {window} tokens, rows have {ids.shape[1]}, and a mask of (batch, "
            "1, length, length) takes the window's place: collate with documents='positions'"
        )
    # Ids that occur in the batch are ids of the vocabulary; its first document must not stay as it is.
    values = ids.unique()
    place = torch.searchsorted(values, ids)
    changed = torch.where(later, ids, values[(place + 1) % len(values)])
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            before, after = (
                side_of("network", call(module, inputs_of({**batch, "input_ids": x}))) for x in (ids, changed)
            )
    finally:
        module.train(was_training)
    (_, left), (_, right) = next(before.tensors()), next(after.tensors())
    if torch.equal(left[later], right[later]):
        return None
    return (
        "changing one document changes what the network says of the next one in its row: it does not honour the mask "
        "or the positions that keep them apart (a cache, use_cache=True, makes it overlook the positions)"
    )


def _window(module: nn.Module) -> int | None:
    window = getattr(config_of(module), "sliding_window", None)
    return window if isinstance(window, int) else None
