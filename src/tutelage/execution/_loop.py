"""The one loop: chunks of rows that fit a byte budget, in them blocks of rows that fit a cache, all terms on each.

A chunk is what a head turns into logits at once; its gradient takes the logits' place, and two more products bring it
to the hidden states and the head. A block is what one call of the block function sees. Without heads a chunk is a
block. Legend: N rows, n rows of a chunk or block, V columns, D hidden width, J terms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tutelage.distributions import HeadStates
from tutelage.divergences import WholeBatch
from tutelage.execution._backends import Backend
from tutelage.execution._block import BlockInputs
from tutelage.execution._budget import Budget, keep_blocks_in_the_heap
from tutelage.execution._diagnosis import explain_non_finite
from tutelage.execution._plan import Plan

Rows = slice | Tensor


@dataclass
class Gradients:
    """What the loop accumulates for the tensors of the student that need it; None for the others."""

    values: Tensor | None = None
    hidden: Tensor | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None


@dataclass(frozen=True)
class Group:
    """Rows that count for the same terms, so that no term ever sees a row of weight 0."""

    rows: Rows
    terms: tuple[int, ...]
    count: int


def groups_of(plan: Plan) -> list[Group]:
    """Return the rows to visit. A GPU is not asked which weights are 0: there all rows are one group, masked later."""
    indices = range(len(plan.jobs))
    blockwise = tuple(j for j in indices if not isinstance(plan.jobs[j].divergence, WholeBatch))
    if not blockwise:
        return []
    if plan.weights is None or plan.device.type != "cpu":
        return [Group(slice(0, plan.rows), blockwise, plan.rows)]
    active = _pick(plan.weights, blockwise) != 0
    if bool(active.all()):
        return [Group(slice(0, plan.rows), blockwise, plan.rows)]
    patterns, which = active.unique(dim=1, return_inverse=True)
    groups = []
    for place, pattern in enumerate(patterns.T.tolist()):
        terms = tuple(term for term, counts in zip(blockwise, pattern, strict=True) if counts)
        rows = (which == place).nonzero().squeeze(1)
        if terms:
            groups.append(Group(rows, terms, len(rows)))
    return groups


def run(
    plan: Plan, backend: Backend, budget: Budget, coefficients: Tensor | None, gradients: Gradients, *, validate: bool
) -> Tensor:
    """Return the values of all terms on all rows (J, N), 0 where a weight is 0, and fill the gradients.

    coefficients: (J, N), what multiplies each row's gradient; None if no gradient is wanted.
    """
    if plan.device.type == "cpu":
        keep_blocks_in_the_heap()
    values = torch.zeros(len(plan.jobs), plan.rows, dtype=plan.spec.dtype, device=plan.device)
    for group in groups_of(plan):
        _Walk(plan, backend, budget, coefficients, gradients, group, validate).run(values)
    return values


class _Walk:
    """The walk over one group of rows."""

    def __init__(
        self,
        plan: Plan,
        backend: Backend,
        budget: Budget,
        coefficients: Tensor | None,
        gradients: Gradients,
        group: Group,
        validate: bool,
    ) -> None:
        self.plan, self.gradients, self.group, self.validate = plan, gradients, group, validate
        self.terms = list(group.terms)
        # Where terms are only looked at there is no gradient, and the logits must not be taken for one.
        trains = any(plan.spec.terms[term].trains for term in self.terms)
        self.coefficients = None if coefficients is None or not trains else _pick(coefficients, self.terms)
        # A GPU is not asked which weights are 0: what the rows leave is masked there.
        weights = None if plan.device.type == "cpu" else plan.weights
        self.keep = None if weights is None else _pick(weights, self.terms) != 0
        self.spec = replace(plan.spec, terms=tuple(plan.spec.terms[term] for term in group.terms))
        self.function = backend.block_function(self.spec)
        self.temperatures = backend.temperatures(plan.temperatures, self.spec.dtype, plan.device)
        student = plan.student
        self.head = _Head(plan, student) if isinstance(student, HeadStates) else None
        self.inputs = _flatten(student.hidden if isinstance(student, HeadStates) else student.values)
        if self.head is not None and self.keep is not None:
            # Hidden states enter the head's gradient: NaN in a row that does not count would reach all of it.
            self.inputs = torch.where(self.keep.any(0)[:, None], self.inputs, 0.0)
        used = sorted({term.teacher for term in self.spec.terms})
        self.sources = {place: plan.sources[place] for place in used}
        self.heads = {
            (place, i): _Head(plan, head)
            for place, source in self.sources.items()
            for i, head in enumerate(source.heads)
            if head is not None
        }
        every_head = [*self.heads.values(), *([] if self.head is None else [self.head])]
        widths = [head.columns * head.dtype.itemsize for head in every_head]
        width = plan.student.vocabulary_size * self.spec.dtype.itemsize
        self.block_rows = budget.block_rows(width, group.count, bool(widths))
        self.chunk_rows = (
            budget.chunk_rows(widths, group.count, at_least=self.block_rows) if widths else self.block_rows
        )

    def run(self, values: Tensor) -> None:
        for chunk in _split(self.group.rows, self.group.count, self.chunk_rows):
            raw = _take(self.inputs, chunk)
            hidden = raw
            if self.head is not None:
                raw = self.head.logits(hidden)
            teachers = self._teachers(chunk)
            count = raw.shape[0]
            for start in range(0, count, self.block_rows):
                inside = slice(start, min(start + self.block_rows, count))
                rows = _part(chunk, inside)
                gradient = self._block(raw, teachers, inside, rows, values)
                if gradient is None:
                    continue
                if self.head is not None:
                    raw[inside] = gradient
                elif self.gradients.values is not None:
                    _write(self.gradients.values, rows, gradient)
            if self.head is not None and self.coefficients is not None:
                self._to_the_head(raw, hidden, chunk)

    def _teachers(self, chunk: Rows) -> list[list[Tensor]]:
        tensors: list[list[Tensor]] = [[] for _ in self.plan.sources]
        for place, source in self.sources.items():
            for i, tensor in enumerate(source.tensors):
                rows = _take(tensor, chunk)
                head = self.heads.get((place, i))
                tensors[place].append(rows if head is None else head.logits(rows))
        return tensors

    def _block(
        self, raw: Tensor, teachers: list[list[Tensor]], inside: slice, rows: Rows, values: Tensor
    ) -> Tensor | None:
        plan = self.plan
        inputs = BlockInputs(
            student=raw[inside],
            teachers=[[tensor[inside] for tensor in tensors] for tensors in teachers],
            coefficients=None if self.coefficients is None else self.coefficients[:, rows].contiguous(),
            labels=None if plan.label_places is None else _take(plan.label_places, rows),
            keep=None if self.keep is None else self.keep[:, rows].contiguous(),
            temperatures=self.temperatures,
            student_ids=plan.student_ids,
            teacher_ids=plan.teacher_ids,
        )
        block_values, gradient = self.function(inputs)
        if self.validate and not bool(block_values.isfinite().all()):
            explain_non_finite(self.spec, inputs, block_values, rows)
        for place, term in enumerate(self.terms):
            values[term, rows] = block_values[place]
        return gradient

    def _to_the_head(self, raw: Tensor, hidden: Tensor, chunk: Rows) -> None:
        """Bring the gradient on the logits, which now stands in `raw`, to hidden states, weight and bias."""
        assert self.head is not None
        if self.gradients.hidden is not None:
            _write(self.gradients.hidden, chunk, raw @ self.head.weight)
        if self.gradients.weight is not None:
            self.head.add_weight_gradient(self.gradients.weight, raw, hidden)
        if self.gradients.bias is not None:
            self.gradients.bias[: self.head.columns] += raw.sum(0, dtype=self.gradients.bias.dtype)


class _Head:
    """A head in the dtype in which its product runs, with a buffer for the logits of a chunk."""

    def __init__(self, plan: Plan, side: HeadStates) -> None:
        self.columns, autocast = plan.head_columns(side), plan.autocast
        self.dtype = torch.promote_types(side.hidden.dtype, side.weight.dtype)
        if autocast is not None and self.dtype != torch.float64:
            self.dtype = autocast
        self.weight = side.weight.detach()[: self.columns].to(self.dtype)
        self.bias = None if side.bias is None else side.bias.detach()[: self.columns].to(self.dtype)
        self.buffer: Tensor | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the raw logits (n, V), valid until the next call."""
        n = hidden.shape[0]
        if self.buffer is None:
            self.buffer = torch.empty(n, self.columns, dtype=self.dtype, device=hidden.device)
        hidden, out = hidden.to(self.dtype), self.buffer[:n]
        if self.bias is None:
            return torch.mm(hidden, self.weight.T, out=out)
        return torch.addmm(self.bias, hidden, self.weight.T, out=out)

    def add_weight_gradient(self, total: Tensor, gradient: Tensor, hidden: Tensor) -> None:
        """Add `gradient.T @ hidden` to a total (V, D), which is float32 also where the product is half precision."""
        hidden, total = hidden.to(self.dtype), total[: self.columns]
        if total.dtype == self.dtype:
            total.addmm_(gradient.T, hidden)
            return
        step = max(1, _SLICE_BYTES // (total.shape[1] * total.element_size()))
        for start in range(0, total.shape[0], step):
            total[start : start + step] += gradient[:, start : start + step].T @ hidden


_SLICE_BYTES = 16 * 2**20


def _pick(matrix: Tensor, rows: Sequence[int]) -> Tensor:
    """Return some rows of a matrix, without the index on the device that `matrix[rows]` would have to copy there."""
    return torch.stack([matrix[row] for row in rows])


def _flatten(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1, tensor.shape[-1])


def _split(rows: Rows, count: int, size: int) -> Iterator[Rows]:
    for start in range(0, count, size):
        yield _part(rows, slice(start, min(start + size, count)))


def _part(rows: Rows, inside: slice) -> Rows:
    if isinstance(rows, slice):
        return slice(rows.start + inside.start, rows.start + inside.stop)
    return rows[inside]


def _take(tensor: Tensor, rows: Rows) -> Tensor:
    return tensor[rows] if isinstance(rows, slice) else tensor.index_select(0, rows)


def _write(total: Tensor, rows: Rows, gradient: Tensor) -> None:
    if isinstance(rows, slice):
        total[rows] = gradient
    else:
        total.index_copy_(0, rows, gradient.to(total.dtype))
