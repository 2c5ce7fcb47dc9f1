"""The likeliest outcome of each row, of logits that need not exist as a whole."""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.distributions import HeadStates, Logits
from tutelage.execution._budget import budget_for


def likeliest(side: Tensor | Logits | HeadStates, columns: int | None = None) -> Tensor:
    """Return the outcome with the largest logit of each row (...), of the first `columns` if that is given.

    >>> import torch
    >>> hidden, weight = torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 3.0], [2.0, 4.0]])
    >>> likeliest(HeadStates(hidden, weight)).tolist(), likeliest(HeadStates(hidden, weight), columns=2).tolist()
    ([2, 2], [0, 1])
    """
    side = Logits(side) if isinstance(side, Tensor) else side
    with torch.no_grad():
        if isinstance(side, Logits):
            return _largest(side.values[..., :columns], side.scale)
        weight = side.weight[:columns]
        bias = None if side.bias is None else side.bias[:columns]
        hidden = side.hidden.reshape(-1, side.hidden.shape[-1])
        width = weight.shape[0] * hidden.element_size()
        step = budget_for(hidden.device).chunk_rows([width], max(1, len(hidden)), at_least=1)
        found = [
            _largest(torch.nn.functional.linear(part.to(weight.dtype), weight, bias), side.scale)
            for part in hidden.split(step)
        ]
        return torch.cat(found).reshape(side.batch_shape)


def _largest(logits: Tensor, scale: float | None) -> Tensor:
    """A softcap keeps the order of logits, and a scale does unless it is negative."""
    return (logits if scale is None or scale > 0 else -logits).argmax(-1)
