"""The sections of whole language models: a step beside PyTorch and Liger-Kernel, beside TRL, and its memory over N."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import language as cases
from benchmarks.cases import COLUMNS, COMPILE, EAGER, TORCH
from benchmarks.language import AT_LEAST, DISTILLATION, GKD, GROWING_TOKENS, LENGTH, NETWORKS, TOKENS
from benchmarks.section import (
    Bound,
    Errors,
    Section,
    checked_and_timed,
    megabytes,
    milliseconds,
    peaks_of,
    times,
    worst_error,
)
from benchmarks.variants import Case, check

_MODELS = (
    f"{TOKENS // LENGTH} rows of {LENGTH} tokens, V = {COLUMNS:,}; student: a Llama of 4 layers and width 256; "
    "teacher: one of 6 layers and width 512; heads not tied to embeddings. "
)
_TIME_LIMIT, _MEMORY_LIMIT = 0.5, 0.2
_HEADER = (
    "variant",
    "time, ms",
    f"over {AT_LEAST}",
    "over PyTorch",
    "memory of the step, MB",
    "over PyTorch",
    "gradient error",
)


def language(rounds: int) -> Section:
    """Return the section of a step with a soft and a hard term."""
    case = cases.language(TOKENS)
    return _beside_others(
        "A language model's step",
        f"{_MODELS}Soft term and hard labels. The memory includes the gradients on all parameters of the student, "
        f"{_gradient_megabytes(case):.0f} MB of it.",
        "language",
        case,
        rounds,
        [EAGER],
    )


def trl(rounds: int) -> Section:
    """Return the section of the objective that TRL's trainers have."""
    case = cases.trl(TOKENS)
    return _beside_others(
        "A language model's step beside TRL",
        f"{_MODELS}Forward KL at T = 1 without hard labels, which is what both trainers of TRL can train off-policy. "
        f"The memory includes {_gradient_megabytes(case):.0f} MB of gradients.",
        "language_trl",
        case,
        rounds,
        [EAGER, GKD, DISTILLATION],
    )


def growing(rounds: int) -> Section:
    """Return the section of memory over the number of tokens; it is the same in every round."""
    del rounds
    names = [f"{tokens:,}" for tokens in GROWING_TOKENS]
    errors: Errors = {
        name: check({TORCH: cases.language(tokens)[TORCH]})[TORCH]
        for name, tokens in zip(names, GROWING_TOKENS, strict=True)
    }
    whole, alone = peaks_of("language_scaling", names), peaks_of("language_networks", names)
    beyond = {name: (whole[name].allocated - alone[name].allocated) / 1e6 for name in names}
    rows = [
        (name, megabytes(whole[name]), megabytes(alone[name]), f"{beyond[name]:.0f}", worst_error(errors, name))
        for name in names
    ]
    return Section(
        "A language model's memory over tokens",
        f"The networks of the case before last, backend `torch`, rows of {LENGTH} tokens. What is subtracted is the "
        "peak of the same two networks in a step without heads and loss, measured in the same way: the activations of "
        "the student's decoder, both last hidden states, and the gradients on the decoder's parameters. What is left "
        "belongs to the loss: chunks of logits, and the gradient on the head. It shrinks where a step without a loss "
        "has its peak in the backward, when the chunks are gone. It is taken of what PyTorch's allocator gave out, the "
        "figures in brackets: what the C library's heap loses differs by more than a loss needs.",
        (
            "tokens of a step",
            "memory of the step, MB",
            f"of {NETWORKS}, MB",
            "memory of the loss, MB",
            "gradient error",
        ),
        rows,
        [Bound(f"memory of the loss, most over that at {names[0]}", max(beyond.values()) / beyond[names[0]], 1.1, "x")],
        None,
        errors,
        {**whole, **{f"{name}, {NETWORKS}": peak for name, peak in alone.items()}},
    )


LANGUAGE_SECTIONS: dict[str, Callable[[int], Section]] = {
    "language": language,
    "language_trl": trl,
    "language_scaling": growing,
}


def _beside_others(title: str, what: str, name: str, case: Case, rounds: int, others: list[str]) -> Section:
    errors, timings = checked_and_timed(case, rounds)
    peaks = peaks_of(name, [variant for variant in timings.seconds if variant != AT_LEAST])
    plain = peaks[EAGER].resident
    rows = [
        (
            variant,
            milliseconds(timings, variant),
            times(timings.ratio(variant, AT_LEAST)),
            times(timings.ratio(variant, EAGER)),
            megabytes(peaks[variant]) if variant in peaks else "",
            f"**{peaks[variant].resident / plain:.2f}x**" if variant in peaks else "",
            worst_error(errors, variant),
        )
        for variant in timings.seconds
    ]
    bounds = []
    for ours, word in ((TORCH, "torch"), (COMPILE, "compile")):
        for other in others:
            bounds += [
                Bound(f"{word}, time over that of {other}", timings.ratio(ours, other).median, _TIME_LIMIT, "x"),
                Bound(
                    f"{word}, memory over that of {other}",
                    peaks[ours].resident / peaks[other].resident,
                    _MEMORY_LIMIT,
                    "x",
                ),
            ]
    return Section(title, what, _HEADER, rows, bounds, timings, errors, peaks)


def _gradient_megabytes(case: Case) -> float:
    leaves = case[TORCH].student.leaves.values()
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves) / 1e6
