"""WHAT is measured between a student and a teacher: formulas on tensors and nothing else.

A new divergence is its class, its import and its entry in `ALL` here, and its float64 reference in
`tests/reference`; the laws, the listings, the docs table and the benchmarks read `ALL`.
"""

from __future__ import annotations

from tutelage.divergences._adaptive import AdaptiveKL
from tutelage.divergences._alpha_beta import AlphaBeta
from tutelage.divergences._base import (
    Divergence,
    PerToken,
    Pointwise,
    WholeBatch,
    can_look,
    check_divergence,
    product,
)
from tutelage.divergences._bounded import Hellinger, TotalVariation
from tutelage.divergences._dist import Dist
from tutelage.divergences._kl import ForwardKL, Jeffreys, ReverseKL
from tutelage.divergences._labelled import DecoupledKD, NormalizedKD
from tutelage.divergences._logits import LogitCosine, LogitMSE, StandardizedKL
from tutelage.divergences._mixtures import JensenShannon, SkewForwardKL, SkewReverseKL

__all__ = [
    "ALL",
    "AdaptiveKL",
    "AlphaBeta",
    "DecoupledKD",
    "Dist",
    "Divergence",
    "ForwardKL",
    "Hellinger",
    "Jeffreys",
    "JensenShannon",
    "LogitCosine",
    "LogitMSE",
    "NormalizedKD",
    "PerToken",
    "Pointwise",
    "ReverseKL",
    "SkewForwardKL",
    "SkewReverseKL",
    "StandardizedKL",
    "TotalVariation",
    "WholeBatch",
    "can_look",
    "check_divergence",
    "product",
]

ALL: dict[str, type[Divergence]] = {
    cls.kind: cls
    for cls in (
        ForwardKL,
        ReverseKL,
        JensenShannon,
        SkewForwardKL,
        SkewReverseKL,
        Jeffreys,
        TotalVariation,
        Hellinger,
        AlphaBeta,
        AdaptiveKL,
        LogitMSE,
        LogitCosine,
        DecoupledKD,
        NormalizedKD,
        Dist,
        StandardizedKL,
    )
}
"""Every divergence by its kind: what recipes, listings, laws, docs and benchmarks enumerate."""
