"""How rows are divided: held out, labelled, omitted. By class, in an order that all machines and versions agree on.

The order is that of sha256 of the row's number: random generators promise no stream for ever, and a test set that
changes with a library's version makes every figure in a report incomparable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from difflib import get_close_matches

import torch
from torch import Tensor

from tutelage.data._labels import spelled
from tutelage.data._rows import UNLABELLED, Data, Rows
from tutelage.errors import DataError


def shuffled(places: Sequence[int], purpose: str) -> list[int]:
    """Return the places in the order that belongs to this purpose."""
    return sorted(places, key=lambda place: hashlib.sha256(f"{purpose}:{place}".encode()).digest())


def hold_out(labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return (training places, test places): `count` labelled rows are held out, from each class its share.

    Shares are rounded so that they sum to `count` (largest remainders first); each class keeps a row on both sides.
    """
    by_class = _places_by_class(labels)
    labelled = sum(map(len, by_class.values()))
    exact = {c: count * len(places) / labelled for c, places in by_class.items()}
    shares = {c: int(share) for c, share in exact.items()}
    for c in sorted(exact, key=lambda c: (shares[c] - exact[c], c))[: count - sum(shares.values())]:
        shares[c] += 1
    test: list[int] = []
    for c, places in by_class.items():
        test += shuffled(places, "hold out")[: min(max(shares[c], 1), len(places) - 1)]
    held = torch.zeros(len(labels), dtype=torch.bool)
    held[torch.tensor(test, dtype=torch.int64)] = True
    return (~held).nonzero().squeeze(1), held.nonzero().squeeze(1)


def keep_labels(labels: Tensor, count: int, classes: Sequence[str]) -> Tensor:
    """Return the labels with all but `count` hidden, as many of each class as of the next, or one more."""
    by_class = _places_by_class(labels)
    if count < len(by_class):
        raise DataError(f"labeled: {count} leaves some of the {len(by_class)} classes without any label; raise it")
    share, rest = divmod(count, len(by_class))
    kept: list[int] = []
    for position, (c, places) in enumerate(by_class.items()):
        wanted = share + (position < rest)
        if len(places) < wanted:
            raise DataError(
                f"labeled: {count} wants {wanted} labelled rows of each class, and {classes[c]!r} has {len(places)} "
                f"for training; set it to {min(map(len, by_class.values())) * len(by_class)} or less"
            )
        kept += shuffled(places, "keep the label")[:wanted]
    told = torch.full_like(labels, UNLABELLED)
    at = torch.tensor(kept, dtype=torch.int64)
    told[at] = labels[at]
    return told


def divide(
    train: Rows,
    test: Rows,
    *,
    classes: tuple[str, ...],
    shape: tuple[int, ...],
    kind: str,
    features: tuple[str, ...] | None = None,
    labeled: int | None = None,
    omit: Sequence[str | int] = (),
    needs_labels: bool = True,
) -> Data:
    """Return the parts of data whose rows are divided into training and test already.

    needs_labels: whether it is an error if no training row has a label, unless `labeled` asks for some.
    """
    omitted = tuple(sorted({_class_named(name, classes) for name in omit}))
    gone = torch.isin(train.labels, torch.tensor(omitted, dtype=torch.int64))
    seen = train.take(~gone)
    if (needs_labels or labeled is not None or omitted) and not bool((seen.labels != UNLABELLED).any()):
        why = (
            f"omit: {list(omit)} leaves no labelled row" if omit else "no training row has a label, and some are needed"
        )
        raise DataError(f"{why} to train on; the classes are {list(classes)}")
    if labeled is not None:
        seen = seen.with_labels(keep_labels(seen.labels, labeled, classes))
    return Data(
        train=seen,
        fit=train.take(train.labels != UNLABELLED),
        labelled=seen.take(seen.labels != UNLABELLED),
        test=test,
        classes=classes,
        shape=shape,
        kind=kind,
        features=features,
        omitted=omitted,
    )


def check_classes(names: Sequence[str], labels: Tensor, place: str) -> None:
    """Raise `DataError` unless there are two classes or more, each with the two rows that training and testing need."""
    if len(names) < 2:
        found = f"one class only, {names[0]!r}" if names else "no labelled row"
        raise DataError(f"{place} has {found}; expected two classes or more")
    counts = torch.bincount(labels[labels != UNLABELLED], minlength=len(names)).tolist()
    for name, count in zip(names, counts, strict=True):
        if count < 2:
            raise DataError(
                f"{place}: the class {name!r} has {count} row; expected 2 or more, one to train on and one to test on"
            )


def sorted_names(names: set[str]) -> tuple[str, ...]:
    """Return the names of classes in the order of their logits: by value where all are whole numbers."""
    try:
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    except ValueError:
        return tuple(sorted(names))


def _class_named(name: str | int, classes: tuple[str, ...]) -> int:
    for said in (str(name), spelled(str(name))):
        if said in classes:
            return classes.index(said)
    near = get_close_matches(str(name), classes, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; the classes are {list(classes)[:20]}"
    raise DataError(f"omit names the class {name!r}, which the data does not have{hint}")


def _places_by_class(labels: Tensor) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for place, label in enumerate(labels.tolist()):
        if label != UNLABELLED:
            found.setdefault(label, []).append(place)
    return dict(sorted(found.items()))
