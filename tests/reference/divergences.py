"""Every divergence as its paper prints it, in plain float64 PyTorch: slow, naive, differentiable by autograd.

All take `(student logits, teacher logits, temperature, labels, **parameters)`, float64 of shape (N, V), and return one
value per row (N,); `dist`, which relates the rows, returns one value. p is the teacher, q the student. The one
convention used throughout is 0 log 0 = 0.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def log_probabilities(logits: Tensor, temperature: float) -> Tensor:
    return torch.log_softmax(logits / temperature, -1)


def kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    """Return sum_v a_v log(a_v / b_v)."""
    a = log_a.exp()
    return (a * torch.where(a > 0, log_a - log_b, 0.0)).sum(-1)


def log_mixture(log_a: Tensor, log_b: Tensor, share_of_a: float) -> Tensor:
    return torch.logaddexp(log_a + math.log(share_of_a), log_b + math.log1p(-share_of_a))


def forward_kl(student, teacher, temperature, labels=None):
    """Hinton, Vinyals, Dean 2015: KL(p || q)."""
    return kl(log_probabilities(teacher, temperature), log_probabilities(student, temperature))


def reverse_kl(student, teacher, temperature, labels=None):
    """MiniLLM, Gu et al. 2024: KL(q || p)."""
    return kl(log_probabilities(student, temperature), log_probabilities(teacher, temperature))


def jeffreys(student, teacher, temperature, labels=None):
    """Jeffreys 1946: KL(p || q) + KL(q || p)."""
    return forward_kl(student, teacher, temperature) + reverse_kl(student, teacher, temperature)


def jensen_shannon(student, teacher, temperature, labels=None, *, beta=0.5):
    """Lin 1991 and GKD, Agarwal et al. 2024: beta KL(p || m) + (1 - beta) KL(q || m); the ends are the KLs by name."""
    if beta == 0:
        return forward_kl(student, teacher, temperature)
    if beta == 1:
        return reverse_kl(student, teacher, temperature)
    log_p, log_q = log_probabilities(teacher, temperature), log_probabilities(student, temperature)
    log_m = log_mixture(log_p, log_q, beta)
    return beta * kl(log_p, log_m) + (1 - beta) * kl(log_q, log_m)


def skew_forward_kl(student, teacher, temperature, labels=None, *, skew=0.1):
    """DistiLLM, Ko et al. 2024: KL(p || skew p + (1 - skew) q)."""
    log_p, log_q = log_probabilities(teacher, temperature), log_probabilities(student, temperature)
    return kl(log_p, log_mixture(log_p, log_q, skew))


def skew_reverse_kl(student, teacher, temperature, labels=None, *, skew=0.1):
    """DistiLLM, Ko et al. 2024: KL(q || skew q + (1 - skew) p)."""
    log_p, log_q = log_probabilities(teacher, temperature), log_probabilities(student, temperature)
    return kl(log_q, log_mixture(log_q, log_p, skew))


def total_variation(student, teacher, temperature, labels=None):
    """f-Divergence minimization, Wen et al. 2023: 1/2 sum |p - q|."""
    p, q = torch.softmax(teacher / temperature, -1), torch.softmax(student / temperature, -1)
    return (p - q).abs().sum(-1) / 2


def hellinger(student, teacher, temperature, labels=None):
    """Hellinger 1909: 1/2 sum (sqrt p - sqrt q)^2."""
    root_p = (log_probabilities(teacher, temperature) / 2).exp()
    root_q = (log_probabilities(student, temperature) / 2).exp()
    return (root_p - root_q).square().sum(-1) / 2


def alpha_beta(student, teacher, temperature, labels=None, *, alpha=0.5, beta=0.5):
    """Cichocki, Cruces, Amari 2011, equations (13) to (15), with its limits at alpha = 0 and at beta = 0."""
    log_p, log_q = log_probabilities(teacher, temperature), log_probabilities(student, temperature)
    if beta == 0:
        p, q = (alpha * log_p).exp(), (alpha * log_q).exp()
        return ((p * torch.where(p > 0, alpha * (log_p - log_q), 0.0)) - p + q).sum(-1) / alpha**2
    if alpha == 0:
        p, q = (beta * log_p).exp(), (beta * log_q).exp()
        return ((q * torch.where(q > 0, beta * (log_q - log_p), 0.0)) - q + p).sum(-1) / beta**2
    total = alpha + beta
    powers = alpha / total * (total * log_p).exp() + beta / total * (total * log_q).exp()
    # Two sides of which one excludes an outcome share nothing there: p^alpha q^beta = exp(-inf) = 0.
    return (powers - (alpha * log_p + beta * log_q).exp()).sum(-1) / (alpha * beta)


def adaptive_kl(student, teacher, temperature, labels=None, *, mu=0.5):
    """Wu et al. 2024, section 4: the KLs mixed by the gaps in the teacher's head and tail, which carry no gradient."""
    log_p, log_q = log_probabilities(teacher, temperature), log_probabilities(student, temperature)
    shares = [
        _share_of_head(row_p, row_q, mu)
        for row_p, row_q in zip(log_p.detach().exp().numpy(), log_q.detach().exp().numpy(), strict=True)
    ]
    weight = torch.tensor(shares, dtype=torch.float64)
    return weight * kl(log_p, log_q) + (1 - weight) * kl(log_q, log_p)


def _share_of_head(p: np.ndarray, q: np.ndarray, mu: float) -> float:
    """Return gap_head / (gap_head + gap_tail) of one row; the head takes in what ties with its least member."""
    mass, least = 0.0, 1.0
    for probability in sorted(p, reverse=True):
        mass, least = mass + probability, probability
        if mass >= mu:
            break
    head, tail = np.abs(p - q)[p >= least].sum(), np.abs(p - q)[p < least].sum()
    return 0.5 if head + tail == 0 else head / (head + tail)


def logit_mse(student, teacher, temperature, labels=None):
    """Ba, Caruana 2014: the mean squared difference of the logits."""
    return (student - teacher).square().mean(-1)


def logit_cosine(student, teacher, temperature, labels=None):
    """DistilBERT, Sanh et al. 2019: one minus the cosine."""
    norms = student.square().sum(-1).sqrt() * teacher.square().sum(-1).sqrt()
    return 1 - (student * teacher).sum(-1) / norms


def _target_and_rest(logits, temperature, labels):
    """Return log p_y (N,), log (1 - p_y) (N,) and the log-probabilities among all outcomes but y (N, V - 1)."""
    log_p = log_probabilities(logits, temperature)
    columns = torch.arange(logits.shape[1])
    others = torch.stack([row[columns != label] for row, label in zip(log_p, labels, strict=True)])
    mass = others.logsumexp(-1)
    return log_p[torch.arange(len(labels)), labels], mass, others - mass[:, None]


def decoupled_kd(student, teacher, temperature, labels, *, alpha=1.0, beta=8.0):
    """Zhao et al. 2022, equation (7): alpha TCKD + beta NCKD, without the T^2 of the authors' code."""
    target_p, mass_p, rest_p = _target_and_rest(teacher, temperature, labels)
    target_q, mass_q, rest_q = _target_and_rest(student, temperature, labels)
    binary = kl(torch.stack([target_p, mass_p], -1), torch.stack([target_q, mass_q], -1))
    return alpha * binary + beta * torch.where(mass_p > -torch.inf, kl(rest_p, rest_q), 0.0)


def normalized_kd(student, teacher, temperature, labels, *, gamma=1.5):
    """Yang et al. 2023, equation (9): the target's cross-entropy at temperature 1, that among the rest at T."""
    target_p, _, _ = _target_and_rest(teacher, 1.0, labels)
    target_q, _, _ = _target_and_rest(student, 1.0, labels)
    _, _, rest_p = _target_and_rest(teacher, temperature, labels)
    _, _, rest_q = _target_and_rest(student, temperature, labels)
    target = -target_p.exp() * torch.where(target_p.exp() > 0, target_q, 0.0)
    rest = -(rest_p.exp() * torch.where(rest_p.exp() > 0, rest_q, 0.0)).sum(-1)
    return target + gamma * rest


def dist(student, teacher, temperature, labels=None, *, beta=1.0, gamma=1.0, weights=None):
    """Huang et al. 2022, equations (8) to (10): one minus the mean Pearson correlation of rows, and of columns."""
    p, q = torch.softmax(teacher / temperature, -1), torch.softmax(student / temperature, -1)
    weights = torch.ones(len(p), dtype=torch.float64) if weights is None else weights
    counted = [i for i in range(len(p)) if weights[i] != 0]
    p, q, shares = p[counted], q[counted], (weights / weights.sum())[counted]
    equal = torch.full((p.shape[1],), 1 / p.shape[1], dtype=torch.float64)
    rows = torch.stack([_pearson(a, b, equal) for a, b in zip(p, q, strict=True)])
    columns = torch.stack([_pearson(a, b, shares) for a, b in zip(p.T, q.T, strict=True)])
    return beta * (1 - (shares * rows).sum()) + gamma * (1 - columns.mean())


def _pearson(a: Tensor, b: Tensor, shares: Tensor) -> Tensor:
    a, b = a - (shares * a).sum(), b - (shares * b).sum()
    return (shares * a * b).sum() / ((shares * a * a).sum() * (shares * b * b).sum()).sqrt()


def standardized_kl(student, teacher, temperature, labels=None):
    """Sun et al. 2024, algorithm 1: KL between the z-scores of the logits, softened by T."""

    def z_score(x):
        return (x - x.mean(-1, keepdim=True)) / (1e-7 + x.std(-1, keepdim=True))

    return forward_kl(z_score(student), z_score(teacher), temperature)


def at_a_jump(kind, student, teacher, temperature, *, mu=0.5) -> Tensor:
    """Return which rows (N,) lie where the gradient jumps, by a float32 rounding: there no precision is defined.

    Total variation has a kink where p = q; the head of the adaptive KL takes in one more outcome where its mass reaches
    mu, or where two outcomes begin to tie.
    """
    log_p, log_q = log_probabilities(teacher, temperature), log_probabilities(student, temperature)
    if kind == "total_variation":
        return ((log_p - log_q).abs() < 1e-5).any(-1)
    if kind != "adaptive_kl":
        return torch.zeros(len(log_p), dtype=torch.bool)
    ordered = log_p.exp().sort(-1, descending=True).values
    reaches = ((ordered.cumsum(-1) - mu).abs() < 1e-5).any(-1)
    last = (ordered.cumsum(-1) < mu).sum(-1, keepdim=True)
    gap = (ordered / ordered.gather(-1, last) - 1).abs()
    return reaches | ((gap < 1e-5) & (gap > 0)).any(-1)


REFERENCES = {
    function.__name__: function
    for function in (
        forward_kl,
        reverse_kl,
        jensen_shannon,
        skew_forward_kl,
        skew_reverse_kl,
        jeffreys,
        total_variation,
        hellinger,
        alpha_beta,
        adaptive_kl,
        logit_mse,
        logit_cosine,
        decoupled_kd,
        normalized_kd,
        dist,
        standardized_kl,
    )
}
"""The reference of each divergence, by its kind."""
