"""The workloads of the issue: which variants are compared, on which shapes. float32 throughout."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

import tutelage as tl
from benchmarks import steps, truth
from benchmarks.variants import TOLERANCE, Case, DenseStudent, HeadStudent, Variant, generator
from tutelage.divergences import ALL

COLUMNS = 32_768
STUDENT_WIDTH, TEACHER_WIDTH = 512, 1024
KEPT = 64
DENSE_ROWS, HEAD_ROWS, DIVERGENCE_ROWS = 1024, 2048, 256
SCALING_ROWS = (2_048, 4_096, 8_192, 16_384, 32_768)

EAGER, TORCH, COMPILE = "PyTorch", "tutelage, torch", "tutelage, compile"
PRODUCTS, PRODUCTS_ANEW = "four products alone", "four products alone, memory asked for"
LIGER, LIGER_COMPILED = "Liger-Kernel", "Liger-Kernel, compiled"
CE_EAGER, CE_TORCH, CE_COMPILE = (f"{name}: cross-entropy alone" for name in (EAGER, TORCH, COMPILE))

JUMPY = {"total_variation": 5e-3}
"""Tolerances of divergences whose gradient jumps: |p - q| has the slope -1 or 1, and where p and q agree to seven
digits, as some of eight million pairs do, float32 cannot tell which; plain PyTorch is off by as much."""


def dense(rows: int) -> Case:
    """Return the step on logits that stand in memory: one soft term and hard labels."""
    source = generator()
    student, teacher, labels = _dense_inputs(rows, source)
    expected = truth.distillation(lambda part: teacher[part], labels)
    side = tl.Logits(teacher)
    return {
        EAGER: Variant(steps.eager(student, lambda: teacher, labels), student, expected),
        TORCH: Variant(steps.tutelage(student, side, labels, "torch"), student, expected),
        COMPILE: Variant(steps.tutelage(student, side, labels, "compile"), student, expected),
    }


def head(rows: int) -> Case:
    """Return the same step on hidden states and heads, on both sides."""
    student, hidden, weight, labels = _head_inputs(rows)
    doubled = cache(weight.double)
    expected = truth.distillation(lambda part: hidden[part].double() @ doubled().T, labels)
    side = tl.HeadStates(hidden, weight)
    return {
        PRODUCTS: Variant(steps.products(student, hidden, weight, allocates=False), student, None),
        PRODUCTS_ANEW: Variant(steps.products(student, hidden, weight, allocates=True), student, None),
        TORCH: Variant(steps.tutelage(student, side, labels, "torch"), student, expected),
        COMPILE: Variant(steps.tutelage(student, side, labels, "compile"), student, expected),
        EAGER: Variant(steps.eager(student, lambda: hidden @ weight.T, labels), student, expected),
        LIGER: Variant(steps.liger(student, hidden, weight, labels, compiled=False), student, expected),
        LIGER_COMPILED: Variant(steps.liger(student, hidden, weight, labels, compiled=True), student, expected),
    }


def top_k(rows: int) -> Case:
    """Return the head step with a stored teacher of K kept ids and a bucket, and the cross-entropy alone."""
    student, hidden, weight, labels = _head_inputs(rows)
    teacher = _top_k(hidden, weight)
    expected, hard = truth.top_k_distillation(teacher, labels), truth.cross_entropy(labels)
    return {
        CE_TORCH: Variant(steps.tutelage_cross_entropy(student, labels, "torch"), student, hard),
        TORCH: Variant(steps.tutelage(student, teacher, labels, "torch"), student, expected),
        CE_COMPILE: Variant(steps.tutelage_cross_entropy(student, labels, "compile"), student, hard),
        COMPILE: Variant(steps.tutelage(student, teacher, labels, "compile"), student, expected),
        CE_EAGER: Variant(steps.eager_cross_entropy(student, labels), student, hard),
    }


def scaling() -> Case:
    """Return the head step of the torch backend at several N, named by N."""
    return {f"{count:,}": head(count)[TORCH] for count in SCALING_ROWS}


def divergences(rows: int) -> Case:
    """Return every divergence there is, alone, dense, beside the forward KL of plain PyTorch."""
    source = generator()
    student, teacher, labels = _dense_inputs(rows, source)
    case = {
        EAGER: Variant(steps.eager_kl(student, teacher), student, truth.divergence(tl.ForwardKL(), teacher, labels))
    }
    for name, kind in ALL.items():
        measured = kind()
        step = steps.tutelage_divergence(student, teacher, labels, measured)
        tolerance = JUMPY.get(name, TOLERANCE)
        case[name] = Variant(step, student, truth.divergence(measured, teacher, labels), tolerance)
    return case


def _dense_inputs(rows: int, source: torch.Generator) -> tuple[DenseStudent, Tensor, Tensor]:
    student = DenseStudent(torch.randn(rows, COLUMNS, generator=source).mul_(3))
    teacher = torch.randn(rows, COLUMNS, generator=source).mul_(3)
    return student, teacher, torch.randint(COLUMNS, (rows,), generator=source)


def _head_inputs(rows: int) -> tuple[HeadStudent, Tensor, Tensor, Tensor]:
    source = generator()
    weight = torch.randn(COLUMNS, STUDENT_WIDTH, generator=source).mul_(0.1)
    teacher_weight = torch.randn(COLUMNS, TEACHER_WIDTH, generator=source).mul_(0.1)
    student = HeadStudent(torch.randn(rows, STUDENT_WIDTH, generator=source), weight)
    teacher_hidden = torch.randn(rows, TEACHER_WIDTH, generator=source)
    return student, teacher_hidden, teacher_weight, torch.randint(COLUMNS, (rows,), generator=source)


def _top_k(hidden: Tensor, weight: Tensor) -> tl.TopK:
    kept, ids, tails = [], [], []
    for part in hidden.split(256):
        logits = part @ weight.T
        values, places = logits.topk(KEPT)
        kept.append(values)
        ids.append(places)
        tails.append((logits / truth.TEMPERATURE).scatter(1, places, -torch.inf).logsumexp(-1))
    return tl.TopK(torch.cat(ids), torch.cat(kept), {truth.TEMPERATURE: torch.cat(tails)})
