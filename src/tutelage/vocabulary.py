"""Which columns of a student's and a teacher's vocabulary are compared when the two are not the same."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tutelage.errors import DtypeError, EmptyInputError, ParameterError, VocabularyError
from tutelage.parameters import whole

Ids = Tensor | Sequence[int]


class VocabularyMap:
    """The shared columns of two vocabularies: `student_ids[i]` and `teacher_ids[i]` name the same outcome.

    Both sides are restricted to these columns and renormalise over them, so junk in the others (the padded rows of a
    head, say) changes nothing and gets no gradient. Terms on `Labels` keep the student's whole vocabulary. The ids
    of `TopK` and `Sampled` are teacher ids; a kept id that the map leaves out counts as excluded by the teacher, and
    `log_tails` must leave out what the map leaves out, for a tail cannot be split afterwards.

    Errors: `VocabularyError` for lists of different lengths, repeated or negative ids; `EmptyInputError`;
    `DtypeError` for ids that are not integers.

    >>> import torch, tutelage as tl
    >>> student = torch.tensor([[0.0, 1.0, 50.0]])           # the third column is padding
    >>> teacher = torch.tensor([[2.0, 0.0]])
    >>> shared = tl.VocabularyMap.prefix(2)
    >>> round(tl.divergence(student, teacher, vocabulary=shared).item(), 4)
    0.8287
    """

    def __init__(self, student_ids: Ids, teacher_ids: Ids) -> None:
        sides = {"student": _ids("student_ids", student_ids), "teacher": _ids("teacher_ids", teacher_ids)}
        self.length = len(sides["student"])
        if len(sides["teacher"]) != self.length:
            raise VocabularyError(
                f"{self.length} student ids came with {len(sides['teacher'])} teacher ids; give one teacher id for each"
            )
        self._least = {side: int(ids.max()) + 1 for side, ids in sides.items()}
        first = torch.arange(self.length)
        self._ids = {side: None if torch.equal(ids.cpu(), first) else ids for side, ids in sides.items()}

    @classmethod
    def prefix(cls, n: int) -> VocabularyMap:
        """Return the map of two vocabularies that agree on their first n ids."""
        count = whole(n)
        if count is None or count < 1:
            raise ParameterError(f"VocabularyMap.prefix({n!r}): the number of shared columns must be an integer >= 1")
        return cls(torch.arange(count), torch.arange(count))

    @property
    def is_prefix(self) -> bool:
        """Whether the compared columns are the first ones of both sides."""
        return not any(isinstance(ids, Tensor) for ids in self._ids.values())

    def __repr__(self) -> str:
        return f"VocabularyMap.prefix({self.length})" if self.is_prefix else f"<VocabularyMap of {self.length} columns>"

    def check(self, side: str, size: int) -> None:
        """Raise `VocabularyError` unless a vocabulary of this size has all columns of its side."""
        if size < self._least[side]:
            raise VocabularyError(
                f"the vocabulary map names {side} id {self._least[side] - 1}, but the {side}'s vocabulary has only "
                f"ids 0 to {size - 1}; leave the id out of the map, or give the {side} it was made for"
            )

    def ids(self, side: str, device: torch.device) -> Tensor | None:
        """Return a side's compared columns on a device, or None if they are its first `length` columns in order."""
        ids = self._ids[side]
        if ids is not None and ids.device != device:
            # Kept there: copying at every call would make the host wait for the device.
            ids = self._ids[side] = ids.to(device)
        return ids

    def places(self, side: str, ids: Tensor) -> Tensor:
        """Return the place of each id of a side among the compared columns, or `length` where it has none."""
        size = self._least[side]
        table = torch.full((size + 1,), self.length, dtype=torch.int64, device=ids.device)
        places = torch.arange(self.length, device=ids.device)
        compared = self.ids(side, ids.device)
        table[places if compared is None else compared] = places
        return table[torch.where((ids >= 0) & (ids < size), ids, size)]


def check_vocabulary(value: object) -> None:
    """Raise `VocabularyError` unless the value is a map, or None for vocabularies that are the same."""
    if value is not None and not isinstance(value, VocabularyMap):
        raise VocabularyError(
            f"vocabulary={value!r}: expected a VocabularyMap, such as VocabularyMap.prefix(n), or None"
        )


def _ids(name: str, ids: Ids) -> Tensor:
    try:
        tensor = torch.as_tensor(ids)
    except (TypeError, ValueError, RuntimeError):
        raise DtypeError(f"{name} is {ids!r}; expected integers: a list of ids, or a tensor of shape (n,)") from None
    if tensor.numel() == 0:
        raise EmptyInputError(f"{name} is empty; a vocabulary map needs at least one shared column")
    if tensor.dtype.is_floating_point or tensor.dtype.is_complex or tensor.dtype == torch.bool:
        raise DtypeError(f"{name} has dtype {tensor.dtype}; expected integers")
    if tensor.dim() != 1:
        raise VocabularyError(f"{name} has shape {tuple(tensor.shape)}; expected a list of ids, shape (n,)")
    tensor = tensor.to(torch.int64)
    if int(tensor.min()) < 0:
        raise VocabularyError(f"{name} contains {int(tensor.min())}; ids are >= 0")
    values, counts = tensor.unique(return_counts=True)
    if int(counts.max()) > 1:
        raise VocabularyError(
            f"{name} contains id {int(values[counts.argmax()])} {int(counts.max())} times; expected once"
        )
    return tensor
