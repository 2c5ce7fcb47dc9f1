"""One section of the report for each case: checked, timed, weighed, and set beside the bounds of the issue."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import cases
from benchmarks.cases import COMPILE, EAGER, LIGER, LIGER_COMPILED, PRODUCTS, SCALING_ROWS, TORCH
from benchmarks.language_sections import LANGUAGE_SECTIONS
from benchmarks.section import Bound, Section, checked_and_timed, megabytes, milliseconds, peaks_of, times, worst_error
from benchmarks.timing import measure
from benchmarks.variants import check

SCALING_ROUNDS, SCALING_WARM_UPS = 3, 1


def dense(rounds: int) -> Section:
    """Return the section of logits that stand in memory."""
    errors, timings = checked_and_timed(cases.dense(cases.DENSE_ROWS), rounds)
    peaks = peaks_of("dense", timings.seconds)
    rows = [
        (
            name,
            milliseconds(timings, name),
            times(timings.ratio(name, EAGER)),
            megabytes(peaks[name], "values"),
            worst_error(errors, name),
        )
        for name in timings.seconds
    ]
    bounds = [
        Bound("torch, time over PyTorch's", timings.ratio(TORCH, EAGER).median, 0.5, "x"),
        Bound("compile, time over PyTorch's", timings.ratio(COMPILE, EAGER).median, 0.3, "x"),
        Bound("torch, memory beside the gradient", peaks[TORCH].beside("values"), 16, " MB"),
        Bound("compile, memory beside the gradient", peaks[COMPILE].beside("values"), 16, " MB"),
    ]
    return Section(
        "Dense logits",
        f"N = {cases.DENSE_ROWS:,}, V = {cases.COLUMNS:,}: logits of both sides in memory, gradient on the student's.",
        ("variant", "time, ms", "over PyTorch", "memory beside the gradient, MB", "gradient error"),
        rows,
        bounds,
        timings,
        errors,
        peaks,
    )


def head(rounds: int) -> Section:
    """Return the section of hidden states and heads."""
    errors, timings = checked_and_timed(cases.head(cases.HEAD_ROWS), rounds)
    peaks = peaks_of("head", errors)
    rows = [
        (
            name,
            milliseconds(timings, name),
            times(timings.ratio(name, PRODUCTS)),
            times(timings.ratio(name, EAGER)),
            megabytes(peaks.get(name), "weight"),
            worst_error(errors, name),
        )
        for name in timings.seconds
    ]
    fastest = min(LIGER, LIGER_COMPILED, key=timings.median)
    bounds = []
    for name, word in ((TORCH, "torch"), (COMPILE, "compile")):
        bounds += [
            Bound(f"{word}, time over the four products'", timings.ratio(name, PRODUCTS).median, 1.15, "x"),
            Bound(f"{word}, time over that of {fastest}", timings.ratio(name, fastest).median, 0.6, "x"),
            Bound(f"{word}, time over PyTorch's", timings.ratio(name, EAGER).median, 0.6, "x"),
            Bound(f"{word}, memory beyond the weight gradient", peaks[name].beside("weight"), 200, " MB"),
        ]
    return Section(
        "Hidden states and heads",
        f"N = {cases.HEAD_ROWS:,}, V = {cases.COLUMNS:,}, student width {cases.STUDENT_WIDTH}, teacher width "
        f"{cases.TEACHER_WIDTH:,}; gradients on the student's hidden states and head.",
        (
            "variant",
            "time, ms",
            "over the four products",
            "over PyTorch",
            "memory beyond the weight gradient, MB",
            "gradient error",
        ),
        rows,
        bounds,
        timings,
        errors,
        peaks,
    )


def top_k(rounds: int) -> Section:
    """Return the section of a stored teacher."""
    errors, timings = checked_and_timed(cases.top_k(cases.HEAD_ROWS), rounds)
    peaks = peaks_of("top_k", timings.seconds)
    alone = {TORCH: cases.CE_TORCH, COMPILE: cases.CE_COMPILE}
    rows = [
        (
            name,
            milliseconds(timings, name),
            times(timings.ratio(name, alone[name])) if name in alone else "",
            times(timings.ratio(name, cases.CE_EAGER)),
            megabytes(peaks[name], "weight"),
            worst_error(errors, name),
        )
        for name in timings.seconds
    ]
    bounds = [
        Bound("torch, time over its cross-entropy's alone", timings.ratio(TORCH, alone[TORCH]).median, 1.1, "x"),
        Bound("compile, time over its cross-entropy's alone", timings.ratio(COMPILE, alone[COMPILE]).median, 1.1, "x"),
    ]
    return Section(
        "A stored teacher",
        f"The student of the case before with a `TopK` teacher: K = {cases.KEPT}, the rest in a bucket, "
        "`log_tails` made beforehand. Beside it the step without a teacher: the cross-entropy to the labels alone.",
        (
            "variant",
            "time, ms",
            "over the same without a teacher",
            "over PyTorch without a teacher",
            "memory beyond the weight gradient, MB",
            "gradient error",
        ),
        rows,
        bounds,
        timings,
        errors,
        peaks,
    )


def scaling(rounds: int) -> Section:
    """Return the section of growing N, in few rounds: one of them takes a minute."""
    case = cases.scaling()
    errors, timings = check(case), measure(case, min(rounds, SCALING_ROUNDS), SCALING_WARM_UPS)
    peaks = peaks_of("scaling", timings.seconds)
    first = next(iter(timings.seconds))
    per_row = {f"{count:,}": timings.ratio(f"{count:,}", first, SCALING_ROWS[0] / count) for count in SCALING_ROWS}
    flat = {name: peak.beside("weight", "hidden") for name, peak in peaks.items()}
    rows = [
        (
            name,
            f"{timings.median(name):.2f}",
            times(per_row[name]),
            f"{flat[name]:.0f}",
            f"{peaks[name].gradients['hidden'] / 1e6:.0f}",
            worst_error(errors, name),
        )
        for name in timings.seconds
    ]
    medians = [ratio.median for ratio in per_row.values()]
    bounds = [
        Bound("time per row, most over least", max(medians) / min(medians), 1.1, "x"),
        Bound("memory beyond the gradients, most over least", max(flat.values()) / min(flat.values()), 1.1, "x"),
    ]
    return Section(
        "Growing N",
        "The head case, backend `torch`, same widths and V. The issue asks for linear time and flat memory; a tenth "
        "between the most and the least is counted as that. The gradient on the hidden states (N, D) is a result "
        "that must grow, so it stands in a column of its own.",
        (
            "N",
            "time, s",
            f"time per row over that of {first}",
            "memory beyond the gradients, MB",
            "gradient on the hidden states, MB",
            "gradient error",
        ),
        rows,
        bounds,
        timings,
        errors,
        peaks,
    )


def divergences(rounds: int) -> Section:
    """Return the section of all divergences."""
    errors, timings = checked_and_timed(cases.divergences(cases.DIVERGENCE_ROWS), rounds)
    rows = [
        (
            f"`{name}`" if name != EAGER else f"forward KL in {EAGER}",
            milliseconds(timings, name),
            times(timings.ratio(name, EAGER)),
            worst_error(errors, name),
        )
        for name in timings.seconds
    ]
    return Section(
        "Every divergence",
        f"N = {cases.DIVERGENCE_ROWS:,}, V = {cases.COLUMNS:,}, dense, the divergence alone at T = 2, backend `torch`, "
        "default parameters, over the forward KL of plain PyTorch. No bound: this is what a choice costs.",
        ("divergence", "time, ms", "over PyTorch's forward KL", "gradient error"),
        rows,
        [],
        timings,
        errors,
    )


SECTIONS: dict[str, Callable[[int], Section]] = {
    "dense": dense,
    "head": head,
    "top_k": top_k,
    "scaling": scaling,
    "divergences": divergences,
    **LANGUAGE_SECTIONS,
}
