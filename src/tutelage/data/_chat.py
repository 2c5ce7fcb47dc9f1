"""Conversations to ids by the tokenizer's chat template; what the assistant says is to be predicted, nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tutelage.data._fields import check_unicode
from tutelage.data._text_tokens import ids_of_parts
from tutelage.data._token_rows import Document
from tutelage.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARKS_TURNS = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")


def chat(
    tokenizer: PreTrainedTokenizerBase, messages: Any, place: str, options: Mapping[str, Any] | None = None
) -> Document:
    """Return a conversation as a document, its targets the assistant's turns with what ends them.

    By the template's own generation marks where it has them. Otherwise the conversation is rendered turn by turn: what
    comes after the prompt for a turn is the assistant's, up to the first end-of-sequence token. That takes a template
    that renders a turn in the same way whatever follows it. options: passed on to the template. Errors: `DataError`.
    """
    turns = _checked(messages, place)
    template = tokenizer.chat_template
    if not template:
        raise DataError(
            f"{place} has messages, and the tokenizer has no chat template; expected one: set tokenizer.chat_template, "
            "use the tokenizer of a chat model, or give rows with 'prompt' and 'completion'"
        )
    render = _Renderer(tokenizer, turns, place, dict(options or {}))
    if isinstance(template, str) and _MARKS_TURNS.search(template):
        return render.by_marks()
    return render.by_turns()


class _Renderer:
    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, Any]], place: str, options: dict[str, Any]
    ) -> None:
        self.tokenizer, self.turns, self.place, self.options = tokenizer, turns, place, options

    def by_marks(self) -> Document:
        made: Any = self._apply(
            self.turns, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, add_generation_prompt=False
        )
        return Document(list(made["input_ids"]), [bool(mark) for mark in made["assistant_masks"]])

    def by_turns(self) -> Document:
        whole = self._text(len(self.turns), prompt=False)
        parts: list[str] = []
        spoken: list[bool] = []
        done = 0
        for place, turn in enumerate(self.turns):
            if turn["role"] != "assistant":
                continue
            before, after = self._text(place, prompt=True), self._text(place + 1, prompt=False)
            if not after.startswith(before) or not whole.startswith(after) or len(before) < done:
                raise DataError(
                    f"{self.place}: the chat template renders message {place + 1} in another way once more follows, or "
                    "other than it prompts for it, so that the assistant's tokens cannot be told; expected a template "
                    "that only ever appends, or one with {% generation %} marks"
                )
            parts += [whole[done : len(before)], whole[len(before) : len(after)]]
            spoken += [False, True]
            done = len(after)
        parts.append(whole[done:])
        spoken.append(False)
        ids: list[int] = []
        targets: list[bool] = []
        for part, by_assistant in zip(ids_of_parts(self.tokenizer, parts), spoken, strict=True):
            # What a template sets after the end of a turn is not the assistant's to say.
            end = part.index(self.tokenizer.eos_token_id) + 1 if self.tokenizer.eos_token_id in part else len(part)
            ids += part
            targets += [by_assistant and place < end for place in range(len(part))]
        return Document(ids, targets)

    def _text(self, count: int, *, prompt: bool) -> str:
        if count == 0 and not prompt:
            return ""
        return str(self._apply(self.turns[:count], tokenize=False, add_generation_prompt=prompt))

    def _apply(self, turns: list[dict[str, Any]], **how: Any) -> Any:
        try:
            return self.tokenizer.apply_chat_template(turns, **{**self.options, **how})
        except Exception as error:  # a template is a program, and raises what it likes
            raise DataError(
                f"{self.place}: the chat template refused the first {len(turns)} messages: {error}; expected roles in "
                "the order that the template wants"
            ) from error


def _checked(messages: Any, place: str) -> list[dict[str, Any]]:
    if isinstance(messages, str) or not isinstance(messages, Sequence) or not messages:
        raise DataError(f"{place}: 'messages' is {type(messages).__name__}; expected a list of messages, one or more")
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise DataError(
                f"{place}: message {number} is {str(message)[:60]!r}; expected {{'role': ..., 'content': ...}}"
            )
        if isinstance(message.get("content"), str):
            check_unicode(message["content"], f"{place}: message {number}")
    return [dict(message) for message in messages]
