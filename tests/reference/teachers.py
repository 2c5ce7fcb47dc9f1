"""What each way to hand over a side means, in plain float64 PyTorch.

A side that is compared is given by logits: `T log p` are logits whose softmax at the temperature T is p, so that
coarsened and mixed distributions go through the same references as full ones. Shapes (N, V).
"""

from __future__ import annotations

import torch
from torch import Tensor


def head_logits(hidden, weight, bias=None, softcap=None, scale=None) -> Tensor:
    """Return `softcap * tanh(scale * (hidden @ weight.T + bias) / softcap)`, all of it at once."""
    raw = hidden @ weight.T
    return transformed(raw if bias is None else raw + bias, softcap, scale)


def transformed(raw, softcap=None, scale=None) -> Tensor:
    logits = raw if scale is None else scale * raw
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def bucketed(logits, ids, temperature) -> Tensor:
    """Return logits over the K kept ids and one bucket with the mass of all others; without a bucket if K = V."""
    log_p = torch.log_softmax(logits / temperature, -1)
    kept = log_p.gather(1, ids)
    if ids.shape[1] == logits.shape[1]:
        return temperature * kept
    is_kept = torch.zeros(logits.shape, dtype=torch.bool).scatter(1, ids, True)
    rest = torch.stack([row[~mask].logsumexp(0) for row, mask in zip(log_p, is_kept, strict=True)])
    return temperature * torch.cat([kept, rest[:, None]], 1)


def log_tail(logits, ids, temperature) -> Tensor:
    """Return the logsumexp of logits / T over the ids that are not kept."""
    is_kept = torch.zeros(logits.shape, dtype=torch.bool).scatter(1, ids, True)
    return (logits / temperature).masked_fill(is_kept, -torch.inf).logsumexp(-1)


def renormalized(logits, ids) -> Tensor:
    """Return logits over the kept ids alone: their softmax is what is left after renormalising."""
    return logits.gather(1, ids)


def label_logits(labels, columns, smoothing, temperature) -> Tensor:
    """Return logits of `(1 - smoothing) onehot + smoothing / V`, which no temperature softens."""
    one_hot = torch.nn.functional.one_hot(labels, columns).double()
    return temperature * ((1 - smoothing) * one_hot + smoothing / columns).log()


def mixture(parts, weights, space, temperature) -> Tensor:
    """Return logits of the mean of the parts' probabilities, or the mean of their logits."""
    shares = [weight / sum(weights) for weight in weights]
    if space == "logit":
        return sum(share * part for share, part in zip(shares, parts, strict=True))
    mean = sum(share * torch.softmax(part / temperature, -1) for share, part in zip(shares, parts, strict=True))
    return temperature * mean.log()


def sampled(student, ids, weights, temperature, entropy=None) -> Tensor:
    """Return the cross-entropy to the sampled ids, less the teacher's entropy where it is known."""
    log_q = torch.log_softmax(student / temperature, -1)
    value = -(weights * log_q.gather(1, ids)).sum(-1)
    return value if entropy is None else value - entropy
