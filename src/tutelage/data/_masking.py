"""Texts with hidden tokens, for masked language models: which are hidden is a function of the row alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from tutelage.data._fields import Unread, as_text
from tutelage.data._rows import UNLABELLED
from tutelage.data._text_tokens import around, ids_of, log
from tutelage.data._token_collate import PADDING, check_padding, pad_rows, real_tokens
from tutelage.data._token_rows import Document, TokenRows
from tutelage.errors import DataError, ParameterError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_masked(
    rows: Iterable[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, length: int, place: str = "the data"
) -> TokenRows:
    """Return rows of at most `length` tokens, of texts for a masked language model.

    rows: mappings with "text". Longer texts are split; each piece has the tokenizer's special tokens around it. All
    tokens but these may be hidden. Empty texts are counted in `left_out`. Errors: `ParameterError`, `DataError`.
    """
    before, after = around(tokenizer)
    room = length - len(before) - len(after)
    if room < 1:
        raise ParameterError(f"encode_masked(length={length}): expected room for a token beside {len(before + after)}")
    texts = []
    unread = Unread(["text"], place)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping) or "text" not in row:
            raise DataError(f"{place}, row {number} has no 'text'; expected one: a masked language model reads texts")
        texts.append(as_text(row["text"], "text", f"{place}, row {number}"))
        unread.add(row)
    unread.tell()
    documents = []
    for ids in ids_of(tokenizer, texts):
        for start in range(0, len(ids), room):
            piece = ids[start : start + room]
            # Without a token before the text its first is never hidden: in TokenRows that one is no target.
            hideable = [False] * len(before) + [True] * len(piece) + [False] * len(after)
            documents.append(Document([*before, *piece, *after], hideable))
    empty = texts.count("")
    if empty:
        log.warning("%s: left out %d empty", place, empty)
    if not documents:
        raise DataError(f"{place} has no text to learn from: {len(texts)} rows, {empty} of them empty")
    return TokenRows.of(documents, {"empty": empty} if empty else {})


class MaskedCollator:
    """Hides tokens of rows and pads them to the longest: tensors (B, L) by name, for masked language models.

    Of a row's targets `share` are hidden, one at least. Of these 8 in 10 become the mask token, 1 a random id, and 1
    stays; each draw depends on the seed and the row's number alone, so that epochs, workers, a resume and the split of
    a step change nothing. "labels" has the hidden ids, where the row has labels; "target_mask" marks the places.
    (Devlin et al. 2019, section 3.1.)

    mask_id, pad_id: ids of the vocabulary; vocabulary: how many ids there are to draw from; special: ids that are not
    drawn; share in (0, 1]. Errors: `ParameterError`.
    """

    def __init__(
        self,
        mask_id: int,
        pad_id: int,
        vocabulary: int,
        special: Sequence[int] = (),
        share: float = 0.15,
        seed: int = 0,
        side: Literal["right", "left"] = "right",
    ) -> None:
        check_padding("MaskedCollator", pad_id, side)
        if isinstance(mask_id, bool) or not isinstance(mask_id, int) or not 0 <= mask_id < vocabulary:
            raise ParameterError(
                f"MaskedCollator(mask_id={mask_id!r}): expected an id below {vocabulary}; the tokenizer needs a mask "
                "token, as those of masked language models have"
            )
        if not 0 < share <= 1:
            raise ParameterError(f"MaskedCollator(share={share!r}): expected a share of the tokens, in (0, 1]")
        self.drawn = np.setdiff1d(np.arange(vocabulary), [*special, mask_id, pad_id])
        if not len(self.drawn):
            raise ParameterError(f"MaskedCollator(special={list(special)}): leaves none of {vocabulary} ids to draw")
        self.mask_id, self.pad_id, self.share, self.seed, self.side = mask_id, pad_id, share, seed, side

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, share: float = 0.15, seed: int = 0) -> MaskedCollator:
        """Return the collator for a tokenizer's ids."""
        return cls(
            mask_id=tokenizer.mask_token_id,  # None is refused there, by name
            pad_id=tokenizer.pad_token_id,
            vocabulary=len(tokenizer),
            special=tokenizer.all_special_ids,
            share=share,
            seed=seed,
            side="left" if tokenizer.padding_side == "left" else "right",
        )

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        hidden = [self._hide(row) for row in rows]
        length = max(len(row["input_ids"]) for row in rows)
        batch = pad_rows(hidden, {**PADDING, "input_ids": self.pad_id}, self.side, length)
        batch["attention_mask"] = real_tokens(rows, self.side, length).long()
        return batch

    def _hide(self, row: Mapping[str, Any]) -> dict[str, Any]:
        text = f"{self.seed}:{int(row['index'])}".encode()
        seed = int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")
        generator = np.random.Generator(np.random.PCG64(seed))
        ids = row["input_ids"].clone()
        places = row["target_mask"].nonzero().squeeze(1).numpy()
        count = min(len(places), max(1, round(self.share * len(places))))
        places = np.sort(generator.permutation(places)[:count])
        chance = generator.random(count)
        random = torch.from_numpy(generator.choice(self.drawn, count))
        at = torch.from_numpy(places)
        made = torch.where(torch.from_numpy(chance < 0.8), self.mask_id, ids[at])
        ids[at] = torch.where(torch.from_numpy(chance >= 0.9), random, made)
        chosen = torch.zeros_like(row["target_mask"])
        chosen[at] = True
        labels = torch.where(chosen, row["labels"], UNLABELLED)
        return {"input_ids": ids, "target_mask": chosen, "labels": labels, "index": row["index"]}
