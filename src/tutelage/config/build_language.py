"""From a checked recipe of texts to objects: tokenizer and rows of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.config._recipe import Recipe
from tutelage.config._texts import PythonData, TextData, TextsSpec
from tutelage.config.build import at
from tutelage.config.build_transformers import tokenizer_of
from tutelage.data import TokenRows, encode, encode_masked, pack, python_source, read_rows, split_rows, train_tokenizer
from tutelage.errors import ModelError
from tutelage.models import load_tokenizer

Rows = Sequence[dict[str, Any]]
Trainer = Callable[..., Any]
"""As `train_tokenizer`."""


@dataclass(frozen=True, eq=False)
class Texts:
    """Rows of tokens to learn from and rows held out, with the tokenizer that made them."""

    train: TokenRows
    test: TokenRows
    tokenizer: Any

    def digest(self, *, of_all: bool = False) -> str:
        """Return the sha256 of the training rows and the tokenizer; or of all rows."""
        parts = [self.train.digest(), tokenizer_digest(self.tokenizer), *([self.test.digest()] if of_all else [])]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def tokenizer_digest(tokenizer: Any) -> str:
    """Return the sha256 of what a tokenizer knows."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = repr(sorted(tokenizer.get_vocab().items())) if backend is None else backend.to_str()
    return hashlib.sha256(text.encode()).hexdigest()


def texts_of(recipe: Recipe, train: Trainer = train_tokenizer) -> Texts:
    """Return the recipe's texts as rows of tokens. train: makes a tokenizer, as `train_tokenizer` does.

    Errors: those of `tutelage.data`, `RecipeError` for a tokenizer that cannot be had.
    """
    spec = recipe.data
    assert isinstance(spec, TextsSpec), spec
    learned, held_out = _rows(spec)
    tokenizer = tokenizer_for(recipe, learned, train)
    rows = [
        _encoded(recipe, spec, part, tokenizer, place)
        for part, place in ((learned, "the texts"), (held_out, "the test"))
    ]
    rows[0] = _limited(rows[0], spec.limit_tokens)
    made, test = (pack(part, spec.length) if spec.packing else part for part in rows)
    return Texts(made, test, tokenizer)


def _rows(spec: TextsSpec) -> tuple[Rows, Rows]:
    if isinstance(spec, PythonData):
        corpus = python_source(spec.test_fraction)
        train, test = ([{"text": row["text"]} for row in part] for part in (corpus.train, corpus.test))
        return train, test
    assert isinstance(spec, TextData), spec
    rows = read_rows(spec.text)
    return (rows, read_rows(spec.test)) if spec.test is not None else split_rows(rows, spec.test_fraction)


def tokenizer_for(recipe: Recipe, learned: Rows, train: Trainer) -> Any:
    """Return the tokenizer of a recipe, trained on what is learned from if it asks for that. Errors: `RecipeError`."""
    assert isinstance(recipe.data, TextsSpec), recipe
    spec = recipe.data.tokenizer
    if spec is None:
        with at("student.model"):
            return _fitting(recipe, tokenizer_of(recipe.student, None))
    with at("data.tokenizer"):
        if spec.model is not None:
            return _fitting(recipe, load_tokenizer(spec.model, revision=spec.revision))
        assert spec.train is not None, spec
        return train(_words(learned), spec.train, for_encoder=recipe.task != "causal_lm")


def _fitting(recipe: Recipe, tokenizer: Any) -> Any:
    """Return a tokenizer, or raise `ModelError` if the task needs a token that it lacks."""
    if recipe.task == "masked_lm" and tokenizer.mask_token_id is None:
        raise ModelError(
            "the tokenizer has no mask token, which stands for the tokens that are hidden; expected that of a masked "
            "language model, or `tokenizer: {train: 2048}` in `data`"
        )
    return tokenizer


def _words(rows: Rows) -> list[str]:
    """Return all text of rows of any form, in order."""
    found: list[str] = []
    for row in rows:
        found += [row[name] for name in ("text", "text_pair", "prompt", "completion") if isinstance(row.get(name), str)]
        messages = row.get("messages")
        if isinstance(messages, list):
            found += [turn["content"] for turn in messages if isinstance(turn.get("content"), str)]
    return found


def _encoded(recipe: Recipe, spec: TextsSpec, rows: Rows, tokenizer: Any, place: str) -> TokenRows:
    if recipe.task == "masked_lm":
        with at("data.length"):
            return encode_masked(rows, tokenizer, spec.length, place)
    long = spec.long_completions if isinstance(spec, TextData) else "refuse"
    return encode(rows, tokenizer, spec.length, long_completions=long, place=place)


def _limited(rows: TokenRows, limit: int | None) -> TokenRows:
    """Return documents of about so many tokens, taken from everywhere by a draw that never changes."""
    if limit is None or rows.lengths.sum() <= limit:
        return rows
    order = np.random.default_rng(0).permutation(len(rows.lengths))
    count = max(1, int(np.searchsorted(np.cumsum(rows.lengths[order]), limit, side="right")))
    chosen = np.sort(order[:count])
    return rows.in_order(chosen, np.arange(count + 1, dtype=np.int64))
