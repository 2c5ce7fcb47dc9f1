"""One block of rows: all terms on it, value and gradient. Pure tensors in, tensors out; every backend runs this.

Legend: n rows of the block, V compared columns, K kept ids, J terms; p the teacher, q the student; T temperature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tutelage.divergences import Divergence, PerToken, Pointwise, can_look, product
from tutelage.execution._fused_kl import can_fuse, fused_kl
from tutelage.execution._readers import (
    Columns,
    Dense,
    OneHot,
    Reader,
    Samples,
    Scalar,
    SmoothedLabels,
    Sparse,
    Transform,
    base_2,
    log_softmax,
    log_softmax_and_softmax,
)


@dataclass(frozen=True)
class TermSpec:
    """What one term compares: static, so that a block can be compiled for it."""

    divergence: Divergence
    teacher: int
    temperature: int
    """Places in the plan's lists of teachers and temperatures."""
    shared: bool
    """Whether the comparison is restricted to the columns of the vocabulary map; labels are not."""
    trains: bool
    """False for a term of weight 0: its value is wanted, its gradient is not."""


@dataclass(frozen=True)
class BlockSpec:
    """Everything about a block that is not a tensor."""

    terms: tuple[TermSpec, ...]
    readers: tuple[Reader, ...]
    student: Transform
    columns: Columns
    dtype: torch.dtype
    """What is computed in: float32, or float64 if a side is or a temperature is high."""


@dataclass
class BlockInputs:
    """The tensors of one block."""

    student: Tensor
    """The raw output of the student's head (n, all columns), of any floating dtype."""
    teachers: list[list[Tensor]]
    coefficients: Tensor | None
    """(J, n): the factor of each row's gradient; None for values alone."""
    labels: Tensor | None
    """(n,): places among the compared columns, for divergences that need them."""
    keep: Tensor | None
    """(J, n) bool: False for rows that must not leave a trace; None if all rows of the block count for all terms."""
    temperatures: Sequence[Scalar]
    student_ids: Tensor | None
    """The student's compared columns; None for a prefix or all."""
    teacher_ids: Tensor | None

    def map_rows(self, function: Callable[[Tensor, int], Tensor]) -> BlockInputs:
        """Return the inputs with a function of (tensor, dimension of its rows) applied to all that have rows."""

        def along(tensor: Tensor | None, dim: int) -> Tensor | None:
            return None if tensor is None else function(tensor, dim)

        return replace(
            self,
            student=function(self.student, 0),
            teachers=[[function(tensor, 0) for tensor in tensors] for tensors in self.teachers],
            coefficients=along(self.coefficients, 1),
            labels=along(self.labels, 0),
            keep=along(self.keep, 1),
        )


def run_block(spec: BlockSpec, inputs: BlockInputs) -> tuple[Tensor, Tensor | None]:
    """Return the values of all terms (J, n), and the gradient on the student's raw output (n, all columns)."""
    logits = spec.student.apply(inputs.student.to(spec.dtype))
    shared = spec.columns.take(logits, inputs.student_ids)
    memo = _Memo()
    values: list[Tensor] = []
    gradient: Tensor | None = None
    for index, term in enumerate(spec.terms):
        block = _TermBlock(spec, term, index, inputs, shared if term.shared else logits, memo)
        value, addend = block.evaluate()
        values.append(value if block.keep is None else torch.where(block.keep, value, 0.0))
        if addend is None:
            continue
        addend = addend if block.keep is None else addend.where(block.keep[:, None])
        if addend.matrix.shape[1] == logits.shape[1] and (inputs.student_ids is None or not term.shared):
            gradient = addend.add_to(gradient)
        else:
            gradient = torch.zeros_like(logits) if gradient is None else gradient
            spec.columns.add(gradient, addend.add_to(None), inputs.student_ids)
    if gradient is not None:
        gradient = spec.student.backward(gradient, inputs.student.to(spec.dtype))
        if inputs.keep is not None:
            # Rows that count for no term may hold NaN, which 0 times the slope of a softcap would let through.
            gradient = torch.where(inputs.keep.any(0)[:, None], gradient, 0.0)
    return torch.stack(values), gradient


def value_and_gradient(function: Callable[[Tensor], Tensor], logits: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    """Return the value of a function of the logits, and the gradient of its sum weighted by `upstream`."""
    if torch.compiler.is_compiling():
        compiled_value, pull = torch.func.vjp(function, logits)[:2]
        return compiled_value, pull(upstream)[0]
    # Hooks on saved tensors, of gradient checkpointing say, are for the caller's graph and not for this little one.
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(_same, _same):
        leaf = logits.detach().requires_grad_()
        value = function(leaf)
        (gradient,) = torch.autograd.grad(value, leaf, upstream)
    return value.detach(), gradient


def _same(tensor: Tensor) -> Tensor:
    return tensor


class _Memo:
    """What several terms of a block have in common, made once: of the columns that are compared, or of all."""

    def __init__(self) -> None:
        self.highest: dict[bool, Tensor] = {}
        self.soft: dict[tuple[int, bool], tuple[Tensor, Tensor]] = {}


@dataclass
class _Addend:
    """A term's share of the gradient, `factor * matrix` (n, V) plus a few single elements, not yet multiplied out."""

    matrix: Tensor
    factor: Tensor | None
    """(n, 1); None for 1."""
    ids: Tensor | None = None
    kept: Tensor | None = None
    """(n, K): what is added at `ids`."""
    is_lent: bool = False
    """Whether the matrix is needed elsewhere and must stay as it is."""

    def where(self, keep: Tensor) -> _Addend:
        """Return the same with zeros in rows that do not count."""
        kept = None if self.kept is None else torch.where(keep, self.kept, 0.0)
        factor = None if self.factor is None else torch.where(keep, self.factor, 0.0)
        return _Addend(torch.where(keep, self.matrix, 0.0), factor, self.ids, kept)

    def add_to(self, gradient: Tensor | None) -> Tensor:
        """Return the sum with a gradient, which is overwritten; so is a matrix that is not lent."""
        if self.factor is None:
            total = self.matrix if gradient is None else gradient.add_(self.matrix)
        elif gradient is not None:
            total = gradient.addcmul_(self.matrix, self.factor)
        else:
            total = self.matrix * self.factor if self.is_lent else self.matrix.mul_(self.factor)
        if self.ids is not None and self.kept is not None:
            total = total.scatter_add_(1, self.ids, self.kept)
        return total


class _TermBlock:
    """One term on one block; `evaluate` returns values (n,) and the share of the gradient on the compared logits."""

    def __init__(
        self,
        spec: BlockSpec,
        term: TermSpec,
        index: int,
        inputs: BlockInputs,
        logits: Tensor,
        memo: _Memo,
    ) -> None:
        self.term, self.inputs, self.logits, self.memo = term, inputs, logits, memo
        self.dtype = spec.dtype
        self.reader = spec.readers[term.teacher]
        self.tensors = inputs.teachers[term.teacher]
        self.teacher_ids = inputs.teacher_ids if term.shared else None
        self.temperature = inputs.temperatures[term.temperature]
        coefficients = inputs.coefficients if term.trains else None
        self.coefficient = None if coefficients is None else coefficients[index][:, None]
        self.keep = None if inputs.keep is None else inputs.keep[index]

    def evaluate(self) -> tuple[Tensor, _Addend | None]:
        divergence, reader = self.term.divergence, self.reader
        if isinstance(divergence, PerToken):
            assert isinstance(reader, Dense)
            return self._per_token(divergence, reader)
        assert isinstance(divergence, Pointwise)
        if isinstance(reader, Dense):
            fused = self._fused_kl(divergence, reader)
            if fused is not None:
                return fused
            log_p, p = reader.log_p_and_p(self.tensors, self.teacher_ids, self.dtype, self.temperature)
            return self._dense(divergence, log_p, p)
        if isinstance(reader, SmoothedLabels):
            log_p = reader.log_p(self._kept(self.tensors[0]), self.logits.shape[1], self.dtype)
            return self._dense(divergence, log_p, log_p.exp())
        if isinstance(reader, Samples):
            return self._samples()
        return self._sparse(divergence, reader)

    def _student(self) -> tuple[Tensor, Tensor]:
        """Return log q and q (n, V), made once for all terms of the same temperature and columns."""
        key = (self.term.temperature, self.term.shared)
        if key not in self.memo.soft:
            self.memo.soft[key] = log_softmax_and_softmax(self.logits, self.temperature, self._highest())
        return self.memo.soft[key]

    def _highest(self) -> Tensor:
        """Return the student's largest logit of each row (n, 1), looked for once for all terms."""
        if self.term.shared not in self.memo.highest:
            self.memo.highest[self.term.shared] = self.logits.amax(-1, keepdim=True)
        return self.memo.highest[self.term.shared]

    def _kept(self, ids: Tensor) -> Tensor:
        """Return ids (n,) or (n, K) with a harmless one in rows that do not count, whose ids may be anything."""
        if self.keep is None:
            return ids
        return torch.where(self.keep if ids.dim() == 1 else self.keep[:, None], ids, 0)

    def _row_factor(self) -> Tensor:
        assert self.coefficient is not None
        return self.coefficient / self.temperature

    def _dense(self, divergence: Pointwise, log_p: Tensor, p: Tensor) -> tuple[Tensor, _Addend | None]:
        log_q, q = self._student()
        value = divergence.term(log_p, log_q, p, q).sum(-1)
        if self.coefficient is None:
            return value, None
        slope = divergence.slope(log_p, log_q, p, q)
        gradient = torch.addcmul(slope, q, slope.sum(-1, keepdim=True), value=-1)
        return value, _Addend(gradient, self._row_factor())

    def _fused_kl(self, divergence: Pointwise, reader: Dense) -> tuple[Tensor, _Addend | None] | None:
        """Return what `_dense` would, sooner; None where only the general way can."""
        if not (reader.is_single and can_fuse(divergence, self.logits)):
            return None
        assert isinstance(self.temperature, float)
        teacher = reader.logits(self.tensors, self.teacher_ids, self.dtype, self.temperature)
        factor = None if self.coefficient is None else self._row_factor()
        found = fused_kl(divergence, self.logits, teacher, self.temperature, self._highest(), factor)
        if found is None:
            return None
        value, gradient = found
        return value, None if gradient is None else _Addend(gradient, None)

    def _per_token(self, divergence: PerToken, reader: Dense) -> tuple[Tensor, _Addend | None]:
        teacher = reader.logits(self.tensors, self.teacher_ids, self.dtype, self.temperature)
        labels = None if self.inputs.labels is None else self._kept(self.inputs.labels)
        student = _without_tiny_rows(self.logits, self.inputs.student.dtype) if divergence.scale_free else self.logits
        if self.coefficient is None:
            return divergence.per_token(student, teacher, self.temperature, labels), None
        value, gradient = value_and_gradient(
            lambda logits: divergence.per_token(logits, teacher, self.temperature, labels),
            student,
            torch.ones_like(self.coefficient.squeeze(1)),
        )
        return value, _Addend(gradient, self.coefficient)

    def _sparse(self, divergence: Pointwise, reader: Sparse | OneHot) -> tuple[Tensor, _Addend | None]:
        ids, log_p = self._kept_ids_and_log_p(reader)
        logits, width = self.logits, self.logits.shape[1]
        if isinstance(reader, Sparse) and reader.mapped:
            # Ids outside the vocabulary map meet in one more column, to which the student gives nothing.
            logits = torch.nn.functional.pad(logits, (0, 1), value=-torch.inf)
        kept = logits.gather(1, ids)
        rest = total = None
        if log_p.shape[1] > ids.shape[1]:
            rest, total, shift = self._rest(logits, ids)
            log_q = log_softmax(torch.cat([(kept - shift) / self.temperature, total.log()], -1), 1.0)
        else:
            log_q = log_softmax(kept, self.temperature)
        p, q = log_p.exp(), log_q.exp()
        value = divergence.term(log_p, log_q, p, q).sum(-1)
        if self.coefficient is None:
            return value, None
        slope = divergence.slope(log_p, log_q, p, q)
        small = (slope - q * slope.sum(-1, keepdim=True)) * self._row_factor()
        at_kept = small[:, : ids.shape[1]]
        if logits.shape[1] > width:
            at_kept, ids = torch.where(ids < width, at_kept, 0.0), ids.clamp(max=width - 1)
        if rest is None or total is None:
            return value, _Addend(torch.zeros_like(self.logits), self._row_factor(), ids, at_kept)
        # The bucket's gradient goes to its outcomes in proportion to q.
        share = small[:, -1:] / torch.where(total == 0, 1.0, total)
        return value, _Addend(rest[:, :width], share, ids, at_kept)

    def _rest(self, logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return `exp((logits - shift) / T)` of all that is not kept, 0 elsewhere; its sum; and the shift (n, 1)."""
        if can_look(logits):
            # One pass less, and a maximum that other terms have found: good unless the rest drowns beside what is kept.
            shift = self._highest()
            rest = base_2(logits, self.temperature, shift).scatter_(1, ids, -torch.inf).exp2_()
            total = rest.sum(-1, keepdim=True)
            if bool((total > _DROWNED).all()):
                return rest, total, shift
        # Shifted by its own maximum, no tail underflows.
        shift = logits.scatter(1, ids, -torch.inf).amax(-1, keepdim=True)
        shift = torch.where(shift == -torch.inf, 0.0, shift)
        rest = base_2(logits, self.temperature, shift).scatter_(1, ids, -torch.inf).exp2_()
        return rest, rest.sum(-1, keepdim=True), shift

    def _kept_ids_and_log_p(self, reader: Sparse | OneHot) -> tuple[Tensor, Tensor]:
        if isinstance(reader, OneHot):
            ids = self._kept(self.tensors[0])[:, None]
            certain = torch.zeros(ids.shape, dtype=self.dtype, device=ids.device)
            return ids, torch.nn.functional.pad(certain, (0, 1), value=-torch.inf)
        ids = self._kept(self.tensors[0])
        log_p = reader.log_p(self.tensors, self.dtype, self.temperature, self.term.temperature)
        if reader.mapped:
            mapped = ids < self.logits.shape[1]
            mapped = torch.nn.functional.pad(mapped, (0, log_p.shape[1] - ids.shape[1]), value=True)
            log_p = log_softmax(torch.where(mapped, log_p, -torch.inf), 1.0)
        return ids, log_p

    def _samples(self) -> tuple[Tensor, _Addend | None]:
        log_q, q = self._student()
        ids, weights = self._kept(self.tensors[0]), self.tensors[1].to(self.dtype)
        value = -product(weights, log_q.gather(1, ids)).sum(-1)
        if len(self.tensors) == 3:
            value = value - self.tensors[2].to(self.dtype)
        if self.coefficient is None:
            return value, None
        factor = self._row_factor()
        return value, _Addend(q, factor, ids, -weights * factor, is_lent=True)


def _without_tiny_rows(logits: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the logits with zeros in rows whose direction the dtype they came in can hardly tell.

    A gradient of 1 over the length of such a row would leave the range of that dtype; a row of zeros gets none.
    """
    least = max(torch.finfo(dtype).tiny, 1e-30)
    return torch.where(logits.abs().amax(-1, keepdim=True) < least, 0.0, logits)


_DROWNED = 1e-30
"""Below this sum of exponentials, small outcomes would lose their digits to the smallest numbers of float32."""
