"""One variant of any case by its name, as a process that measures nothing else wants it."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import cases, language
from benchmarks.variants import Case, Variant


def one(case: str, name: str, *, small: bool = False) -> Variant:
    """Return one variant of a case by name, at two rows if it is to be small."""
    makers: dict[str, tuple[Callable[[int], Case], int]] = {
        "dense": (cases.dense, cases.DENSE_ROWS),
        "head": (cases.head, cases.HEAD_ROWS),
        "top_k": (cases.top_k, cases.HEAD_ROWS),
        "divergences": (cases.divergences, cases.DIVERGENCE_ROWS),
        "language": (language.language, language.TOKENS),
        "language_trl": (language.trl, language.TOKENS),
    }
    growing: dict[str, tuple[Callable[[int], Case], str]] = {
        "scaling": (cases.head, cases.TORCH),
        "language_scaling": (language.language, cases.TORCH),
        "language_networks": (language.language, language.NETWORKS),
    }
    if case in growing:
        maker, variant = growing[case]
        return maker(_few(case) if small else int(name.replace(",", "")))[variant]
    maker, rows = makers[case]
    return maker(_few(case) if small else rows)[name]


def _few(case: str) -> int:
    """Return two rows: of a matrix, or of tokens."""
    return 2 * language.LENGTH if case.startswith("language") else 2
