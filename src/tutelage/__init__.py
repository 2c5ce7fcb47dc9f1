"""tutelage: knowledge distillation for PyTorch. p is the teacher, q the student, always `(student, teacher)`.

The names are loaded on first use, so that importing the package is quick and loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tutelage import divergences, errors, execution
    from tutelage.distributions import HeadStates, Labels, Logits, Mixture, Sampled, TopK
    from tutelage.divergences import (
        AdaptiveKL,
        AlphaBeta,
        DecoupledKD,
        Dist,
        ForwardKL,
        Hellinger,
        Jeffreys,
        JensenShannon,
        LogitCosine,
        LogitMSE,
        NormalizedKD,
        ReverseKL,
        SkewForwardKL,
        SkewReverseKL,
        StandardizedKL,
        TotalVariation,
    )
    from tutelage.execution import divergence
    from tutelage.losses import (
        DistillationLoss,
        EnsembleDistiller,
        FeatureDistiller,
        ProgressiveDistiller,
        ResponseDistiller,
    )
    from tutelage.model import DistillationModel
    from tutelage.objective import FeatureTerm, Objective, Outcome, Term
    from tutelage.vocabulary import VocabularyMap

__version__ = "0.1.0"

_HOMES = {
    "tutelage.distributions": ["HeadStates", "Labels", "Logits", "Mixture", "Sampled", "TopK"],
    "tutelage.divergences": [
        "AdaptiveKL",
        "AlphaBeta",
        "DecoupledKD",
        "Dist",
        "ForwardKL",
        "Hellinger",
        "Jeffreys",
        "JensenShannon",
        "LogitCosine",
        "LogitMSE",
        "NormalizedKD",
        "ReverseKL",
        "SkewForwardKL",
        "SkewReverseKL",
        "StandardizedKL",
        "TotalVariation",
    ],
    "tutelage.execution": ["divergence"],
    "tutelage.losses": [
        "DistillationLoss",
        "EnsembleDistiller",
        "FeatureDistiller",
        "ProgressiveDistiller",
        "ResponseDistiller",
    ],
    "tutelage.model": ["DistillationModel"],
    "tutelage.objective": ["FeatureTerm", "Objective", "Outcome", "Term"],
    "tutelage.vocabulary": ["VocabularyMap"],
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
_MODULES = ("divergences", "errors", "execution")

__all__ = [
    "AdaptiveKL",
    "AlphaBeta",
    "DecoupledKD",
    "Dist",
    "DistillationLoss",
    "DistillationModel",
    "EnsembleDistiller",
    "FeatureDistiller",
    "FeatureTerm",
    "ForwardKL",
    "HeadStates",
    "Hellinger",
    "Jeffreys",
    "JensenShannon",
    "Labels",
    "LogitCosine",
    "LogitMSE",
    "Logits",
    "Mixture",
    "NormalizedKD",
    "Objective",
    "Outcome",
    "ProgressiveDistiller",
    "ResponseDistiller",
    "ReverseKL",
    "Sampled",
    "SkewForwardKL",
    "SkewReverseKL",
    "StandardizedKL",
    "Term",
    "TopK",
    "TotalVariation",
    "VocabularyMap",
    "divergence",
    "divergences",
    "errors",
    "execution",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"tutelage.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'tutelage' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
