"""Texts to ids: the tokenizer's own special tokens around them, and boundaries that a model meets again in use."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tutelage.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("tutelage.data")


def ids_of(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of texts, without special tokens around them and of whatever length."""
    if not texts:
        return []
    # Texts are split to the length that is asked for later, so that none is too long here.
    made = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    return [list(ids) for ids in made]


def ids_of_parts(tokenizer: PreTrainedTokenizerBase, parts: Sequence[str]) -> list[list[int]]:
    """Return the ids of consecutive parts of one text, so that those before a boundary are what a prompt's would be.

    The ids of the text as a whole where each boundary falls between two of them. Where a token of the whole would lie
    across one, or the text before it alone has other ids, what follows is tokenised for itself.
    """
    *befores, whole = ids_of(tokenizer, ["".join(parts[: count + 1]) for count in range(len(parts))])
    for count, before in enumerate(befores, start=1):
        if whole[: len(before)] != before:
            return [*ids_of_parts(tokenizer, parts[:count]), *ids_of_parts(tokenizer, parts[count:])]
    ends = [len(before) for before in befores]
    return [whole[start:end] for start, end in zip([0, *ends], [*ends, len(whole)], strict=True)]


def around(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the special ids that the tokenizer sets before a text and after it."""
    plain = ids_of(tokenizer, ["a"])[0]
    whole = list(tokenizer("a", add_special_tokens=True)["input_ids"])
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[:start], whole[start + len(plain) :]
    raise DataError(
        f"the tokenizer gives 'a' the ids {plain} without special tokens and {whole} with them; expected the former "
        "within the latter: use a tokenizer that adds its special tokens before and after a text"
    )


def end_of_text(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id that ends a document, `DataError` if there is none."""
    if not isinstance(tokenizer.eos_token_id, int):
        raise DataError(
            f"the tokenizer's end-of-sequence id is {tokenizer.eos_token_id!r}; expected one, which ends each document "
            "and is learned like any token: set tokenizer.eos_token"
        )
    return tokenizer.eos_token_id
