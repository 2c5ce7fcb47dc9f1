"""Tokenizers: loaded as data, compared by content, and what that means for two heads of different widths."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tutelage.errors import ModelError, VocabularyError
from tutelage.models._optional import optional
from tutelage.models._probes import PROBES
from tutelage.models._snapshot import CONFIG, fetch
from tutelage.vocabulary import VocabularyMap

_log = logging.getLogger(__name__)

_CONFIG = "tokenizer_config.json"
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model", "*.tiktoken", "tekken.json")
TOKENIZER_FILES = (
    *_VOCABULARIES,
    *("merges.txt", "added_tokens.json", "special_tokens_map.json", "chat_template.*", _CONFIG, CONFIG),
)

_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class TokenizerMatch:
    """What two tokenizers have in common."""

    same: bool
    """Whether every id means the same token, and every text becomes the same ids."""
    shared: int
    """How many ids mean the same token."""
    differences: list[str]
    """What differs, the weightiest first; with `same`, only which tokens begin and end a text."""


def load_tokenizer(model: str | os.PathLike[str], *, revision: str | None = None) -> Any:
    """Return the tokenizer of a model, from a folder or the Hugging Face Hub; no code of the repository is run.

    One without a padding token pads with its end-of-text token, and that is logged: padding is known by the attention
    mask and not by the id, so a real end of text stays a target.
    Errors: `ModelError`, `DamagedDataError`, `MissingPackageError`.
    """
    transformers = optional("transformers", f"the tokenizer of {str(model)!r}", "tutelage[train]")
    snapshot = fetch(model, revision, TOKENIZER_FILES)
    if not any(True for pattern in _VOCABULARIES for _ in snapshot.folder.glob(pattern)):
        raise ModelError(
            f"{snapshot.name} holds no tokenizer (none of {', '.join(_VOCABULARIES)}); expected one beside the model, "
            "as tokenizer.save_pretrained writes it"
        )
    snapshot.check_settings(CONFIG, "AutoTokenizer")
    snapshot.check_settings(_CONFIG)
    if (snapshot.folder / "tokenizer.json").is_file():
        snapshot.json("tokenizer.json")
    try:
        with named_panics(f"the tokenizer of {snapshot.name}"):
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                snapshot.folder, local_files_only=True, trust_remote_code=False
            )
    except ModelError:
        raise
    except Exception as error:  # the tokenizers library raises that itself
        raise ModelError(
            f"the tokenizer of {snapshot.name} cannot be loaded ({type(error).__name__}: {error}); expected one that "
            "transformers knows"
        ) from error
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ModelError(
                f"the tokenizer of {snapshot.name} has neither a padding nor an end-of-text token; expected one of "
                "them: set tokenizer.pad_token"
            )
        tokenizer.pad_token = tokenizer.eos_token
        _log.warning(
            "%s: the tokenizer has no padding token; its end-of-text token %r pads, masked",
            snapshot.name,
            tokenizer.pad_token,
        )
    return tokenizer


@contextlib.contextmanager
def named_panics(tokenizer: str = "the tokenizer") -> Iterator[None]:
    """Turn a panic of the tokenizers library, which is no `Exception`, into a `ModelError`."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ModelError(
            f"{tokenizer} failed ({str(error).strip()}); expected one that can split any text: often a regular "
            "expression in its tokenizer.json takes too long on a text without spaces. Use another tokenizer, or mend "
            "the expression"
        ) from error


@named_panics()
def compare_tokenizers(student: Any, teacher: Any) -> TokenizerMatch:
    """Return what two tokenizers have in common, by the tokens of all their ids and by what they make of texts.

    Their names and sizes do not count. Which tokens begin, end or pad a text may differ between two that are the same.
    """
    mine, theirs = _tokens(student), _tokens(teacher)
    shared = sum(theirs.get(number) == token for number, token in mine.items())
    differences = [*_differing_ids(mine, theirs), *_differing_texts(student, teacher)]
    return TokenizerMatch(not differences, shared, [*differences, *_differing_roles(student, teacher)])


def align(
    student_tokenizer: Any, teacher_tokenizer: Any, student_width: int, teacher_width: int
) -> tuple[VocabularyMap | None, str]:
    """Return which outcomes of two heads are compared, and a sentence that says so.

    widths: how many logits each head gives, `vocabulary_width(model)`. Heads are often padded beyond the tokenizer:
    where widths differ the ids of the tokenizer are compared, and None stands for all outcomes.
    Errors: `VocabularyError` for another tokenizer, or a head that is narrower than its tokenizer.
    """
    match = compare_tokenizers(student_tokenizer, teacher_tokenizer)
    mine, theirs = _tokens(student_tokenizer), _tokens(teacher_tokenizer)
    if not match.same:
        raise VocabularyError(
            f"the student's tokenizer has {len(mine)} tokens and the teacher's {len(theirs)}, of which {match.shared} "
            f"have the same id; first difference: {match.differences[0]}. Expected the same tokenizer, for only then "
            "do both predict the same thing: choose a teacher of the student's family"
        )
    ids = max(mine) + 1
    for side, width in (("student", student_width), ("teacher", teacher_width)):
        if width < ids:
            raise VocabularyError(
                f"the {side}'s head has {width} outcomes and its tokenizer the ids 0 to {ids - 1}; expected at least "
                f"{ids}: call resize_token_embeddings({ids}) and train the new rows, or take the tokenizer it came with"
            )
    notes = "".join(f"; {difference}" for difference in match.differences)
    if student_width != teacher_width:
        return VocabularyMap.prefix(ids), (
            f"same tokenizer, padded heads (student {student_width}, teacher {teacher_width}): the {ids} ids of the "
            f"tokenizer are compared, the rest of each head is left out{notes}"
        )
    padded = f", {student_width - ids} of them padding of both heads" if student_width > ids else ""
    return None, f"same tokenizer and heads of one width: all {student_width} outcomes are compared{padded}{notes}"


def _tokens(tokenizer: Any) -> dict[int, str]:
    return {number: token for token, number in tokenizer.get_vocab().items()}


def _differing_ids(mine: dict[int, str], theirs: dict[int, str]) -> Iterator[str]:
    differing = sorted(number for number in mine.keys() | theirs.keys() if mine.get(number) != theirs.get(number))
    if differing:
        first = differing[0]
        yield f"id {first} is {_word(mine.get(first))} for the student and {_word(theirs.get(first))} for the teacher"
    if len(differing) > 1:
        yield f"{len(differing)} ids differ in all"


def _differing_texts(student: Any, teacher: Any) -> Iterator[str]:
    # Special tokens written in a text: only one of the two may read them as such.
    marks = sorted({*student.all_special_tokens, *teacher.all_special_tokens})
    for text in (*PROBES, " ".join(marks), "".join(marks)):
        mine, theirs = (list(side.encode(text, add_special_tokens=False)) for side in (student, teacher))
        if mine != theirs:
            yield f"the student reads {text[:40]!r} as {mine[:8]} and the teacher as {theirs[:8]}"
            return


def _differing_roles(student: Any, teacher: Any) -> Iterator[str]:
    for role in _ROLES:
        mine, theirs = getattr(student, role, None), getattr(teacher, role, None)
        if mine != theirs:
            yield f"the student's {role} is {_word(mine)} and the teacher's {_word(theirs)}"
    mine, theirs = student.encode("a"), teacher.encode("a")
    if mine != theirs and student.encode("a", add_special_tokens=False) == teacher.encode(
        "a", add_special_tokens=False
    ):
        yield f"the student reads a text with its marks as {mine} and the teacher as {theirs}"


def _word(token: Any) -> str:
    return "nothing" if token is None else repr(str(token))
