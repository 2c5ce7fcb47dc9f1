"""Texts with a class each, or pairs of texts, as rows of tokens: from which sentiment or topics are learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tutelage.data._fields import Unread, as_text
from tutelage.data._labels import class_names_of, spelled
from tutelage.data._parts import divide, sorted_names
from tutelage.data._rows import UNLABELLED, Data, Rows
from tutelage.data._text_files import TextRow, check_fraction, is_held_out
from tutelage.data._text_tokens import log
from tutelage.errors import DataError, ParameterError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TextKey = tuple[str, str | None]
"""A text and its partner, None where there are no pairs."""


class TextRows(Rows):
    """Texts with their labels: {"input_ids": int64 (L,), "labels": int, "index": int}, of pairs "token_type_ids", too.

    labels: -100 where a row has none; index: the number of the row among all that were read. `texts` are what they were
    made of.
    """

    def __init__(self, texts: Sequence[TextKey], encoded: Sequence[Tensor], labels: Tensor, index: Tensor) -> None:
        assert len(texts) == len(encoded), (len(texts), len(encoded))
        self._all = texts
        super().__init__(encoded, labels, index)

    def __getitem__(self, place: int) -> dict[str, Any]:
        row = super().__getitem__(place)
        ids, *types = row.pop("inputs")
        return {"input_ids": ids, **({"token_type_ids": types[0]} if types else {}), **row}

    @property
    def texts(self) -> list[str]:
        """The text of each row, a pair's on two lines."""
        return ["\n".join(part for part in self._all[row] if part is not None) for row in self.index.tolist()]

    def take(self, places: Tensor) -> TextRows:
        """Return the rows at these places, or where a mask is True."""
        return TextRows(self._all, self.source, self.labels[places], self.index[places])  # type: ignore[arg-type]

    def with_labels(self, labels: Tensor) -> TextRows:
        """Return the same rows with other labels."""
        return TextRows(self._all, self.source, labels, self.index)  # type: ignore[arg-type]

    def batches(self, size: int) -> Iterator[Tensor]:
        """Yield the ids (n, 1, L), of pairs with the token types (n, 2, L), `size` rows at a time, padded with -1."""
        for start in range(0, len(self), size):
            rows = [self.source[int(row)] for row in self.index[start : start + size]]
            longest = max(row.shape[1] for row in rows)
            yield torch.stack([torch.nn.functional.pad(row, (0, longest - row.shape[1]), value=-1) for row in rows])


def class_names(
    rows: Sequence[Mapping[str, Any]],
    target: str = "label",
    place: str = "the texts",
    missing: Sequence[str | int] | None = None,
) -> tuple[str, ...]:
    """Return the classes of rows, sorted: by value where all are whole numbers. Errors: `DataError`."""
    return sorted_names({name for name in _names(rows, target, place, missing) if name is not None})


def split_labelled(
    rows: Sequence[Mapping[str, Any]],
    test_fraction: float,
    target: str = "label",
    missing: Sequence[str | int] | None = None,
) -> tuple[list[TextRow], list[TextRow]]:
    """Return (training rows, rows held out), told apart by their texts; all that are held out have a label.

    Equal texts are on one side, and neither order nor other rows change where one goes; so the fraction is met roughly.
    Rows without a label are left out where their text is held out. Errors: `DataError`, `ParameterError`.
    """
    check_fraction(test_fraction)
    keys, names = _texts(rows, "the texts"), _names(rows, target, "the texts", missing)
    labelled = {key for key, name in zip(keys, names, strict=True) if name is not None}
    away = {key for key in labelled if is_held_out(_content(key), test_fraction)}
    train = [dict(row) for row, key in zip(rows, keys, strict=True) if key not in away]
    test = [dict(row) for row, key, name in zip(rows, keys, names, strict=True) if key in away and name is not None]
    if not test or len(away) == len(labelled):
        raise DataError(
            f"of {len(labelled)} texts with a label {len(away)} would be held out with test_fraction="
            f"{test_fraction:g}; expected some on both sides: give more, another fraction, or a file of test rows"
        )
    if len(train) + len(test) < len(rows):
        log.warning("left out %d rows without a label, whose texts are held out", len(rows) - len(train) - len(test))
    return train, test


def labelled_texts(
    rows: Sequence[Mapping[str, Any]],
    test: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    *,
    target: str = "label",
    classes: Sequence[str] | None = None,
    labeled: int | None = None,
    missing: Sequence[str | int] | None = None,
    needs_labels: bool = True,
) -> Data:
    """Return texts with a class each as data.

    rows: mappings with "text", or "text" and "text_pair", and the class at `target`: text or a whole number. A row in
    which it is absent, null, empty, NaN or -100 has no label: the student sees it, and the teacher does not. test:
    held-out rows, all with a label. length: of a row in tokens at most; longer ones are cut as the tokenizer cuts them,
    and counted in the log. classes: their names in the order of the logits, where that is known; whole numbers then
    count along it from 0, unless they are names themselves. labeled: how many training rows keep their label for the
    student and its baseline, balanced by class. missing: other labels that mean none; unless given, common marks of
    missing labels, such as -1 and NA, are an error. needs_labels: whether it is an error if no training row has a
    label; `classes` are needed if it is not. Errors: `DataError`, `ParameterError`.
    """
    lacks = not needs_labels and classes is not None
    keys, names = _texts(rows, "the texts"), _names(rows, target, "the texts", missing, may_lack=lacks)
    test_keys, test_names = _texts(test, "the test"), _names(test, target, "the test", missing)
    _tell_unread([*rows, *test], target)
    if len({key[1] is None for key in [*keys, *test_keys]}) > 1:
        raise DataError("some rows have a 'text_pair', and some have none; expected one for all of them, or for none")
    if None in test_names:
        row = test_names.index(None) + 1
        raise DataError(f"the test, row {row} has no label; expected one for each row, to score answers by")
    known = sorted_names({name for name in names if name is not None}) if classes is None else tuple(classes)
    if not lacks and not any(name is not None for name in names):
        raise DataError("no training row has a label; expected some: a teacher is fitted on them, and a baseline")
    if len(known) < 2:
        raise DataError(f"the texts have one class only, {known[0]!r}; expected two classes or more")
    parts = ((names, "the texts"), (test_names, "the test"))
    labels = torch.cat([_labels(some, known, place, may_count=classes is not None) for some, place in parts])
    encoded = _encoded([*keys, *test_keys], tokenizer, length)
    places = torch.tensor([place for place, ids in enumerate(encoded) if ids.shape[1]], dtype=torch.int64)
    if len(places) < len(encoded):
        # Where the tokenizer sets no marks around it, an empty text is nothing.
        log.warning("left out %d empty texts", len(encoded) - len(places))
    every = TextRows([*keys, *test_keys], encoded, labels, torch.arange(len(labels)))
    train, held = places[places < len(keys)], places[places >= len(keys)]
    if not len(train) or not len(held):
        raise DataError(f"all {'texts' if not len(train) else 'test rows'} are empty; expected some with text")
    return divide(
        every.take(train),
        every.take(held),
        classes=known,
        shape=(length,),
        kind="text",
        labeled=labeled,
        needs_labels=not lacks,
    )


def _texts(rows: Sequence[Mapping[str, Any]], place: str) -> list[TextKey]:
    found: list[TextKey] = []
    for number, row in enumerate(rows, start=1):
        where = f"{place}, row {number}"
        if not isinstance(row, Mapping) or "text" not in row:
            raise DataError(f"{where} has no 'text'; expected one: a class is told of a text")
        pair = row.get("text_pair")
        text = as_text(row["text"], "text", where)
        found.append((text, None if pair is None else as_text(pair, "text_pair", where)))
    return found


def _tell_unread(rows: Sequence[Mapping[str, Any]], target: str) -> None:
    unread = Unread(["text", "text_pair", target], "the texts")
    for row in rows:
        unread.add(row)
    unread.tell()


def _names(
    rows: Sequence[Mapping[str, Any]],
    target: str,
    place: str,
    missing: Sequence[str | int] | None,
    *,
    may_lack: bool = False,
) -> list[str | None]:
    if not may_lack and not any(isinstance(row, Mapping) and target in row for row in rows):
        columns = sorted({str(name) for row in rows[:100] if isinstance(row, Mapping) for name in row})
        raise DataError(f"no row of {place} has {target!r}, the class; they have {columns[:20]}: name one of these")
    return class_names_of((row.get(target) for row in rows), f"{place}, {target!r}", missing)


def _labels(names: Sequence[str | None], classes: tuple[str, ...], place: str, *, may_count: bool) -> Tensor:
    number = {spelled(name): count for count, name in enumerate(classes)}
    if may_count and not any(name.isdecimal() for name in classes):
        number |= {str(count): count for count in range(len(classes))}
    for row, name in enumerate(names, start=1):
        if name is not None and name not in number:
            raise DataError(
                f"{place}, row {row} has the class {name!r}; expected one of {list(classes)[:20]}, which are known"
            )
    return torch.tensor([UNLABELLED if name is None else number[name] for name in names], dtype=torch.int64)


def _content(key: TextKey) -> bytes:
    return "\0".join(part for part in key if part is not None).encode("utf-8", "surrogatepass")


def _encoded(keys: Sequence[TextKey], tokenizer: PreTrainedTokenizerBase, length: int) -> list[Tensor]:
    """Return the ids (1, L) of each row, of pairs with the token types (2, L), cut to the length."""
    texts = [text for text, _ in keys]
    pairs = [pair for _, pair in keys if pair is not None]
    # Types are asked for: a tokenizer says by default what its own model takes, and a teacher's may take more.
    asked: dict[str, Any] = {"return_attention_mask": False, "return_token_type_ids": bool(pairs), "verbose": False}
    special = tokenizer.num_special_tokens_to_add(pair=bool(pairs))
    if length < special + 1 + bool(pairs):
        raise ParameterError(f"labelled_texts(length={length}): expected room for a text beside {special} marks")
    made = tokenizer(texts, pairs or None, **asked, truncation=True, max_length=length)
    # Last, for a tokenizer keeps how it was called last: what is saved, and hashed, is to cut nothing.
    whole = tokenizer(texts, pairs or None, **asked)["input_ids"]
    cut = sum(len(ids) > len(kept) for ids, kept in zip(whole, made["input_ids"], strict=True))
    if cut:
        log.warning("%d of %d texts are longer than %d tokens, and were cut", cut, len(texts), length)
    if not pairs:
        return [torch.tensor([ids], dtype=torch.int64) for ids in made["input_ids"]]
    both = zip(made["input_ids"], made["token_type_ids"], strict=True)
    return [torch.tensor([ids, types], dtype=torch.int64) for ids, types in both]
