"""A tokenizer of one's own, for language models that start from nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tutelage.errors import DataError, MissingPackageError, ParameterError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END, PAD = "<|endoftext|>", "<|pad|>"
_SMALLEST = 256 + 2


def train_tokenizer(texts: Iterable[str], size: int = 2048) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer that is trained on texts: the same texts in the same order, the same tokenizer.

    size: ids in all, the 256 bytes and the two special tokens (`<|endoftext|>`, `<|pad|>`) among them. Any text can be
    encoded and comes back as it was. Errors: `ParameterError`; `DataError` for texts with too few repeated pieces.

    >>> from tutelage.data import train_tokenizer
    >>> tokenizer = train_tokenizer(["the cat sat on the mat, the cat sat"], size=264)
    >>> len(tokenizer), tokenizer.decode(tokenizer("a fünfte cat")["input_ids"])
    (264, 'a fünfte cat')
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < _SMALLEST:
        raise ParameterError(f"train_tokenizer(size={size!r}): expected {_SMALLEST} or more, a byte each and two more")
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "training a tokenizer takes transformers, which is not installed: pip install 'tutelage[train]'"
        ) from error
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != size:
        raise DataError(
            f"the texts give a vocabulary of {tokenizer.get_vocab_size()}; expected {size}: give more text, or ask for "
            "fewer ids"
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, clean_up_tokenization_spaces=False
    )
