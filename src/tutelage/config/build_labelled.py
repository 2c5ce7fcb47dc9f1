"""From a checked recipe of texts with classes to objects: rows of tokens, and the order of the classes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.config._models import SavedModel
from tutelage.config._recipe import Recipe
from tutelage.config._texts import TextData
from tutelage.config.build import at, needs_labels
from tutelage.config.build_language import Trainer, tokenizer_digest, tokenizer_for
from tutelage.data import (
    Data,
    class_names,
    labelled_texts,
    read_rows,
    same_classes,
    spelled,
    split_labelled,
    train_tokenizer,
)
from tutelage.errors import ModelError
from tutelage.models import saved_classes
from tutelage.networks import are_named

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LabelledTexts:
    """Texts with their classes as rows of tokens, with the tokenizer that made them."""

    data: Data
    tokenizer: Any

    def digest(self, *, of_all: bool = False) -> str:
        """Return the sha256 of the labelled training rows and the tokenizer; or of all rows."""
        parts = [self.data.digest(of_all=of_all), tokenizer_digest(self.tokenizer)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def labelled_texts_of(recipe: Recipe, train: Trainer = train_tokenizer) -> LabelledTexts:
    """Return the recipe's texts as rows of tokens with classes. train: makes a tokenizer, as `train_tokenizer` does.

    The classes stand in the order in which a saved model has them, or else sorted. Errors: those of `tutelage.data`,
    `RecipeError` for a tokenizer that cannot be had, or a saved model with other classes.
    """
    spec = recipe.data
    assert isinstance(spec, TextData), spec
    assert spec.target is not None, spec
    every = read_rows(spec.text)
    rows, test = (
        split_labelled(every, spec.test_fraction, spec.target, spec.missing)
        if spec.test is None
        else (every, read_rows(spec.test))
    )
    needs = needs_labels(recipe)
    if not needs and all(row.get(spec.target) is None for row in rows):
        found = class_names(test, spec.target, "the test", spec.missing)
    else:
        found = class_names(rows, spec.target, missing=spec.missing)
    classes = _in_order(recipe, found)
    tokenizer = tokenizer_for(recipe, rows, train)
    with at("data.length"):
        data = labelled_texts(
            rows,
            test,
            tokenizer,
            spec.length,
            target=spec.target,
            classes=classes,
            labeled=spec.labeled,
            missing=spec.missing,
            needs_labels=needs,
        )
    return LabelledTexts(data, tokenizer)


def _in_order(recipe: Recipe, found: tuple[str, ...]) -> tuple[str, ...]:
    """Return the classes in the order of the logits of the models that have a head already."""
    heads: list[tuple[str, tuple[str, ...]]] = []
    for role, spec in (("teacher", recipe.teacher), ("student", recipe.student)):
        if isinstance(spec, SavedModel):
            with at(f"{role}.model"):
                known = saved_classes(spec.model, revision=spec.revision)
            heads += [] if known is None else [(role, known)]
    order, owner = found, "the data"
    # Those with names come first: the order of the others is taken to be theirs.
    for role, known in sorted(heads, key=lambda head: not _tells(head[1], found)):
        with at(f"{role}.model"):
            if not _tells(known, found):
                if len(known) != len(order):
                    raise ModelError(
                        f"the {role} tells {len(known)} classes apart, and {owner} has {len(order)}: "
                        f"{list(order)[:20]}; expected as many"
                    )
                _log.warning("the %s has no names for its classes; they are taken to be %s", role, ", ".join(order))
            elif owner == "the data":
                _check_named(role, known, found)
                order, owner = known, f"the {role}"
            elif not same_classes(known, order):
                raise ModelError(
                    f"the {role} has the classes {list(known)[:20]}, and {owner} {list(order)[:20]}; expected the same "
                    "in one order, for the two are compared class by class"
                )
    return order


def _tells(known: Sequence[str], found: Sequence[str]) -> bool:
    """Return whether a model's classes have names: of their own, or those that the labels are."""
    return are_named(known) or set(map(spelled, known)) >= set(found)


def _check_named(role: str, known: Sequence[str], found: Sequence[str]) -> None:
    """Raise `ModelError` unless all labels are names of a model's classes, or their numbers."""
    numbers = {} if any(name.isdecimal() for name in known) else {str(place) for place in range(len(known))}
    names = {*map(spelled, known), *numbers}
    strangers = [name for name in found if name not in names]
    if strangers:
        raise ModelError(
            f"the {role} has the classes {list(known)[:20]}, and the data {strangers[0]!r} among its "
            f"{len(found)}; expected the names of the former as labels, or their numbers from 0"
        )
