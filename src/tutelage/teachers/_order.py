"""A teacher whose logits have the student's classes in another order."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tutelage.distributions import Distribution, Logits
from tutelage.errors import CompatibilityError, ModelError
from tutelage.networks import are_placeholders, class_names, class_places, kind_of

_log = logging.getLogger(__name__)


class ClassOrder:
    """Puts what a teacher says of its classes into the student's order.

    >>> import torch
    >>> ClassOrder("teacher", [1, 0]).applied(torch.tensor([[0.1, 0.9]])).tolist()
    [[0.8999999761581421, 0.10000000149011612]]
    """

    def __init__(self, teacher: str, places: list[int]) -> None:
        self.teacher = teacher
        self._places = torch.tensor(places)
        self._on: dict[torch.device, Tensor] = {}

    def applied(self, side: Tensor | Distribution) -> Tensor | Distribution:
        """Return the teacher's side, class by class as the student has them."""
        if not isinstance(side, (Tensor, Logits)):
            raise CompatibilityError(
                f"the teacher {self.teacher!r} has the student's classes in another order and returned "
                f"{type(side).__name__}; expected logits, or the columns that belong together as vocabulary="
                "VocabularyMap(student_ids, teacher_ids)"
            )
        values = side if isinstance(side, Tensor) else side.values
        if values.device not in self._on:
            # Kept there: copying at every call would make the host wait for the device.
            self._on[values.device] = self._places.to(values.device)
        ordered = values.index_select(-1, self._on[values.device])
        return ordered if isinstance(side, Tensor) else replace(side, values=ordered)


def class_order(name: str, teacher: Any, student: Any) -> ClassOrder | None:
    """Return what puts a teacher's classes into the student's order; None where nothing does.

    A change of order is logged. Errors: `ModelError` for classes with other names, or an order that a wrapper may have
    changed already.
    """
    mine, theirs = class_names(student), class_names(teacher)
    if mine is None or theirs is None:
        return None
    if (are_placeholders(mine) or are_placeholders(theirs)) and sorted(mine) != sorted(theirs):
        return None  # the same placeholders in another order are names like any others
    remedy = (
        "give both the same names in config.id2label, or say which columns belong together by vocabulary="
        "VocabularyMap(student_ids, teacher_ids)"
    )
    both = f"the student has the classes {list(mine)[:20]}, and the teacher {name!r} {list(theirs)[:20]}"
    wrapped = [
        who for who, network in (("student", student), (f"teacher {name!r}", teacher)) if not _is_output(network)
    ]
    places = class_places(mine, theirs)
    if places is None:
        if wrapped and len(mine) != len(theirs):
            return None  # the wrapper makes other classes of them, or the widths disagree at the first batch
        raise ModelError(f"{both}; expected the same ones: {remedy}")
    if places == sorted(places):
        return None
    if wrapped:
        raise ModelError(
            f"{both}, in another order, and the {wrapped[0]} is wrapped in a module that may have changed the order; "
            f"expected one order: {remedy} (VocabularyMap.prefix({len(mine)}) if the wrapper changed it)"
        )
    _log.warning("%s, in another order; the teacher's logits are put into the student's order", both)
    return ClassOrder(name, places)


def _is_output(network: Any) -> bool:
    kind = kind_of(network)
    return kind is None or kind.is_output
