"""Rows of text, of prompts with completions, and of messages, to rows of tokens for a causal language model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from tutelage.data._chat import chat
from tutelage.data._fields import Unread, as_text
from tutelage.data._text_tokens import around, end_of_text, ids_of, ids_of_parts, log
from tutelage.data._token_rows import Document, TokenRows
from tutelage.errors import DataError, ParameterError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_AT_ONCE = 256
_FORMS = (("text",), ("prompt", "completion"), ("messages",))


def encode(
    rows: Iterable[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    *,
    long_texts: Literal["split", "truncate"] = "split",
    long_completions: Literal["refuse", "drop"] = "refuse",
    template_options: Mapping[str, Any] | None = None,
    place: str = "the data",
) -> TokenRows:
    """Return rows of at most `length` tokens, with what is to be predicted in them.

    rows: mappings with "text", or "prompt" and "completion", or "messages" ({"role", "content"} each); other entries
    are not read, and logged. Texts and prompts begin with the tokenizer's own special tokens, if it has any. Texts and
    completions end with its end-of-sequence token; it is a target, like every token of a text but the first, every
    token of a completion, and the assistant's turns. A conversation is what the chat template makes of it.

    A longer text is split, with one token in common so that each is predicted once, or truncated. A longer completion
    or conversation is refused or dropped: cut off, it would teach to stop anywhere, or nothing at all. Dropped rows,
    empty texts and completions, and conversations without an assistant are counted in `left_out` and logged.
    place: the name of the data in messages. Errors: `ParameterError`, `DataError`.
    """
    if isinstance(length, bool) or not isinstance(length, int) or length < 2:
        raise ParameterError(f"encode(length={length!r}): expected 2 tokens or more; the first predicts the second")
    _check_choice("long_texts", long_texts, ("split", "truncate"))
    _check_choice("long_completions", long_completions, ("refuse", "drop"))
    encoder = _Encoder(tokenizer, length, long_texts, long_completions, template_options, place)
    documents = list(encoder.documents(rows))
    encoder.unread.tell()
    encoder.unread_of_messages.tell()
    if encoder.left_out:
        log.warning("%s: left out %s", place, ", ".join(f"{n} {why}" for why, n in encoder.left_out.items()))
    if not documents:
        raise DataError(f"{place} has no row to learn from; left out were {dict(encoder.left_out) or 'none'}")
    return TokenRows.of(documents, encoder.left_out)


class _Encoder:
    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        length: int,
        long_texts: str,
        long_completions: str,
        template_options: Mapping[str, Any] | None,
        place: str,
    ) -> None:
        self.tokenizer, self.length, self.place = tokenizer, length, place
        self.long_texts, self.long_completions = long_texts, long_completions
        self.template_options = template_options
        self.left_out: Counter[str] = Counter()
        self.unread = Unread([name for form in _FORMS for name in form], place)
        self.unread_of_messages = Unread(["role", "content"], f"{place}, messages")
        self.before, _ = around(tokenizer)

    def documents(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Document]:
        """Yield the documents in the order of the rows. Texts go to the tokenizer many at a time, which is faster."""
        numbered = enumerate(rows, start=1)
        while chunk := list(islice(numbered, _AT_ONCE)):
            checked = [(f"{self.place}, row {number}", row, self._form(number, row)) for number, row in chunk]
            texts = iter(ids_of(self.tokenizer, [row["text"] for _, row, form in checked if form == ("text",)]))
            for place, row, form in checked:
                if form == ("text",):
                    yield from self._text(next(texts))
                elif form == ("messages",):
                    yield from self._conversation(place, row["messages"])
                else:
                    yield from self._completion(place, row["prompt"], row["completion"])

    def _form(self, number: int, row: Mapping[str, Any]) -> tuple[str, ...]:
        place = f"{self.place}, row {number}"
        if not isinstance(row, Mapping):
            raise DataError(f"{place} is {type(row).__name__}; expected a mapping with 'text', or another form of row")
        forms = [form for form in _FORMS if all(row.get(name) is not None for name in form)]
        null = [name for form in _FORMS for name in form if name in row and row[name] is None]
        if not forms and null:
            raise DataError(f"{place}: {null[0]!r} is null; expected content: remove the row, or give it some")
        if len(forms) != 1:
            raise DataError(
                f"{place} has {sorted(map(str, row))}; expected one of 'text', 'prompt' with 'completion', or "
                "'messages', and not two of these: rename or remove columns"
            )
        for name in forms[0]:
            if name != "messages":
                as_text(row[name], name, place)
        self.unread.add(row)
        return forms[0]

    def _text(self, own: list[int]) -> Iterator[Document]:
        if not own:
            self.left_out["empty"] += 1
            return
        ids = [*self.before, *own, end_of_text(self.tokenizer)]
        if self.long_texts == "truncate":
            ids = ids[: self.length]
        # The last token of a piece begins the next one, so that each token but the first is predicted, and once.
        for start in range(0, len(ids) - 1, self.length - 1):
            piece = ids[start : start + self.length]
            yield Document(piece, [False] + [True] * (len(piece) - 1))

    def _completion(self, place: str, prompt: str, completion: str) -> Iterator[Document]:
        if not completion:
            self.left_out["empty"] += 1
            return
        asked, answer = ids_of_parts(self.tokenizer, [prompt, completion])
        asked = [*self.before, *asked]
        end = end_of_text(self.tokenizer)
        answer = answer if answer and answer[-1] == end else [*answer, end]
        yield from self._whole(place, Document([*asked, *answer], [False] * len(asked) + [True] * len(answer)))

    def _conversation(self, place: str, messages: Any) -> Iterator[Document]:
        yield from self._whole(place, chat(self.tokenizer, messages, place, self.template_options))
        template = str(self.tokenizer.chat_template)
        for message in messages:
            # What a template names it may read.
            self.unread_of_messages.add({name: value for name, value in message.items() if name not in template})

    def _whole(self, place: str, document: Document) -> Iterator[Document]:
        if not any(document.targets[1:]):
            self.left_out["without a target"] += 1
        elif len(document.ids) <= self.length:
            yield document
        elif self.long_completions == "drop":
            self.left_out["too long"] += 1
        else:
            raise DataError(
                f"{place} has {len(document.ids)} tokens; expected {self.length} at most: raise the length, shorten "
                "the row, or have such rows dropped and counted (long_completions='drop')"
            )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ParameterError(f"encode({name}={value!r}): expected one of {list(choices)}")
