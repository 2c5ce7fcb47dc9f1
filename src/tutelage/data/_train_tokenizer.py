"""A tokenizer of one's own, for language models that start from nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tutelage.data._fields import check_unicode
from tutelage.errors import DataError, ParameterError
from tutelage.packages import importing

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END, PAD = "<|endoftext|>", "<|pad|>"
_BYTES = 256
_OF_ENCODERS = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"}


def train_tokenizer(texts: Iterable[str], size: int = 2048, *, for_encoder: bool = False) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer that is trained on texts: the same texts in the same order, the same tokenizer.

    size: ids in all, the 256 bytes and the special tokens among them: `<|endoftext|>` and `<|pad|>`, or, for_encoder,
    `[CLS]` and `[SEP]`, which it sets around a text or two, `[PAD]` and `[MASK]`. Any text can be encoded and comes
    back as it was. Errors: `ParameterError`; `DataError` for texts with too few repeated pieces.

    >>> from tutelage.data import train_tokenizer
    >>> tokenizer = train_tokenizer(["the cat sat on the mat, the cat sat"], size=264)
    >>> len(tokenizer), tokenizer.decode(tokenizer("a fünfte cat")["input_ids"])
    (264, 'a fünfte cat')
    """
    special = _OF_ENCODERS if for_encoder else {"eos_token": END, "pad_token": PAD}
    smallest = _BYTES + len(special)
    if isinstance(size, bool) or not isinstance(size, int) or size < smallest:
        raise ParameterError(
            f"train_tokenizer(size={size!r}): expected {smallest} or more, a byte each and {len(special)} more"
        )
    with importing("training a tokenizer", "tutelage[train]"):
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
        from transformers import PreTrainedTokenizerFast
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_checked(texts), trainer)
    if tokenizer.get_vocab_size() != size:
        raise DataError(
            f"the texts give a vocabulary of {tokenizer.get_vocab_size()}; expected {size}: give more text, or ask for "
            "fewer ids"
        )
    if for_encoder:
        first, end = special["cls_token"], special["sep_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{first} $A {end}",
            pair=f"{first} $A {end} $B:1 {end}:1",
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, end)],
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, clean_up_tokenization_spaces=False)


def _checked(texts: Iterable[str]) -> Iterator[str]:
    for number, text in enumerate(texts, start=1):
        check_unicode(text, f"text {number}")
        yield text
