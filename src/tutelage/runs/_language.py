"""Runs about texts: rows of tokens, and language models of transformers, saved as transformers saves them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from tutelage.config import Recipe, SavedModel, TextsSpec
from tutelage.config.build import Role, at
from tutelage.config.build_language import texts_of
from tutelage.config.build_transformers import auto_of, tokenizer_of, tokenizer_of_teacher, transformer_of
from tutelage.data import CausalCollator, MaskedCollator, TokenRows
from tutelage.errors import ModelError, VocabularyError
from tutelage.models import align, compare_tokenizers, language_model, load_pretrained, vocabulary_width
from tutelage.records import read_record
from tutelage.run_folder import BASELINE, STUDENT, TEACHER, ArmFolder, RunFolder, write_json
from tutelage.runs._cache import kept_tokenizer
from tutelage.runs._language_scores import every_token_hidden, scores_of, seen_token_by_token, timed
from tutelage.runs._measured import Measured
from tutelage.runs._saving import OfTransformers, saved_bytes
from tutelage.runs._training import WATCHING
from tutelage.tasks import CausalLM, MaskedLM, Task, leak_between_documents
from tutelage.vocabulary import VocabularyMap
from tutelage.wording import counted

_log = logging.getLogger(__name__)

_ROWS_TRIED = 4
_TOKENS_WATCHED = 2**15
"""How many held-out tokens a network is evaluated on while it trains; at its end it is scored on all of them."""
_LONGEST_PIECE = 300


class Language(OfTransformers):
    """The texts of a recipe as tokens, and its language models, which predict the next token or hidden ones."""

    measure = "nll"

    def __init__(self, recipe: Recipe) -> None:
        assert isinstance(recipe.data, TextsSpec), recipe
        self.recipe = recipe
        self.length = recipe.data.length
        self.hidden = recipe.data.mask if recipe.task == "masked_lm" else None
        self.task: Task | None = CausalLM() if self.hidden is None else MaskedLM()
        self.texts = texts_of(recipe, kept_tokenizer)
        self.tokenizer = self.texts.tokenizer
        self.train = self.labelled = self.fit = self.texts.train
        self.watched = _spread(self.texts.test, _TOKENS_WATCHED)
        self._aligned: tuple[VocabularyMap | None] | None = None
        self._documents: tuple[Any] | None = None

    @property
    def rows(self) -> dict[str, int]:
        """How many rows each part of the data has."""
        train, test = len(self.texts.train), len(self.texts.test)
        return {"train": train, "labelled": train, "fit": train, "test": test}

    def digest(self, *, of_all: bool = False) -> str:
        """Return the sha256 of the training rows and the tokenizer; or of all rows."""
        digest = self.texts.digest(of_all=of_all)
        if self.hidden is None:
            return digest
        # The rows do not tell what will be hidden of them, nor how many places an encoder that is made for them has.
        return hashlib.sha256(f"{digest} {self.hidden!r} {self.length}".encode()).hexdigest()

    # --- networks -----------------------------------------------------------------------------------------------------

    def network(self, role: Role, seed: int) -> nn.Module:
        """Return a model as it is before any training, by its hidden states where it can be."""
        return language_model(transformer_of(self.recipe, role, self.tokenizer, seed))

    def load(self, folder: Path) -> nn.Module:
        """Return the model of a folder, ready to predict."""
        return language_model(load_pretrained(folder, auto=auto_of(self.recipe)).eval())

    def vocabulary(self, student: nn.Module, teacher: nn.Module | None) -> VocabularyMap | None:
        """Return which ids the two models share, by what their tokenizers say. Errors: `RecipeError`."""
        if self._aligned is None:
            self._aligned = (self._align(student, teacher),)
        return self._aligned[0]

    def _align(self, student: nn.Module, teacher: nn.Module | None) -> VocabularyMap | None:
        recipe = self.recipe
        with at("student"):
            mine = tokenizer_of(recipe.student, self.tokenizer)
            match = compare_tokenizers(mine, self.tokenizer)
            if not match.same:
                raise ModelError(
                    f"the student's tokenizer is not the one that makes tokens of the data: {match.differences[0]}; "
                    "expected the same: leave `data.tokenizer` out, or make it that of the student"
                )
            width = _width(student)
            align(mine, mine, width, width)
        if teacher is None or recipe.teacher is None:
            return None
        with at("teacher"):
            theirs = tokenizer_of(recipe.teacher, self.tokenizer)
            try:
                shared, sentence = align(mine, theirs, width, _width(teacher))
            except VocabularyError as error:
                raise VocabularyError(f"{error}{tokenizer_of_teacher(recipe)}") from error
        if isinstance(recipe.student, SavedModel) or isinstance(recipe.teacher, SavedModel):
            _log.warning("%s", sentence)
        return shared

    # --- batches ------------------------------------------------------------------------------------------------------

    def collator(self, arm: str, seed: int, *networks: nn.Module | None) -> CausalCollator | MaskedCollator:
        """Return what makes batches, in a way by which none of these networks looks into another document."""
        del arm
        if self.hidden is not None:
            return MaskedCollator.of(self.tokenizer, self.hidden, seed)
        if self._documents is None:
            self._documents = (self._apart([network for network in networks if network is not None]),)
        return self._collator(self._documents[0])

    def _collator(self, documents: Any) -> CausalCollator:
        tokenizer = self.tokenizer
        pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        return CausalCollator(pad, documents=documents)

    def _apart(self, networks: list[nn.Module]) -> Any:
        shared = [rows for rows in (self.texts.train, self.texts.test) if np.diff(rows.rows).max() > 1]
        if not shared:
            return None
        row = shared[0][int(np.diff(shared[0].rows).argmax())]
        reasons: list[str] = []
        for documents in ("positions", "mask"):
            batch = self._collator(documents)([row])
            found = [_leak(network, batch) for network in networks]
            if not any(found):
                return documents
            reasons += [reason for reason in found if reason is not None]
        with at("data.packing"):
            raise ModelError(f"{reasons[0]}; expected `packing: false`, with a row for each text")

    def few(self, rows: TokenRows, collator: Any) -> dict[str, Any]:
        """Return a batch of a few rows."""
        batch: dict[str, Any] = collator([rows[i] for i in range(min(_ROWS_TRIED, len(rows)))])
        return batch

    # --- scores -------------------------------------------------------------------------------------------------------

    def answers(self, teacher: nn.Module) -> nn.Module:
        """Return the teacher itself: what it says of every token would be too much to keep."""
        return teacher

    def score(self, network: nn.Module, folder: ArmFolder, answers: Any) -> Measured:
        """Score a model on all held-out rows."""
        rows, teacher = self.texts.test, answers
        collator = self.collator("", WATCHING, network, teacher)
        shared = self.vocabulary(network, teacher) if teacher is not None else None
        size = self.recipe.training.batch_size
        batches = (collator([rows[i] for i in range(k, min(k + size, len(rows)))]) for k in range(0, len(rows), size))
        scores = scores_of(network.to(self.device), teacher, batches, self.task, shared)
        scores["rows"] = len(rows)
        scores["parameters"] = sum(parameter.numel() for parameter in network.parameters())
        scores["bytes"] = saved_bytes(network, folder.model)
        return Measured(scores)

    def timed(self, network: nn.Module) -> dict[str, Callable[[], Any]]:
        """Return a forward pass over one row."""
        return timed(network.to(self.device), self.collator("", WATCHING, network)([self.texts.test[0]]))

    def finish(self, folder: RunFolder, teacher: nn.Module | None) -> None:
        """Write text.json: one held-out piece, and what the networks of the first seed say of each of its tokens."""
        if teacher is None:
            return  # there is nobody to compare with
        rows = self.texts.test
        lengths = rows.offsets[rows.rows[1:]] - rows.offsets[rows.rows[:-1]]
        alone = np.diff(rows.rows) == 1
        # The fullest row with one text in it, the one in the middle of those.
        places = np.flatnonzero(alone & (lengths == lengths[alone].max())) if alone.any() else np.array([0])
        place = int(places[len(places) // 2])
        row = {name: value[:_LONGEST_PIECE] if name != "index" else value for name, value in rows[place].items()}
        known = read_record(folder, keys=("seeds", "arms"))
        seed = known["seeds"][0]
        networks = {TEACHER: teacher}
        for arm in (arm for arm in (STUDENT, BASELINE) if arm in known["arms"]):
            networks[arm] = self.load(folder.arm(seed, arm).model)
        shared = self.vocabulary(networks[STUDENT], teacher)
        if self.hidden is not None:
            batch = every_token_hidden(row, self.tokenizer.mask_token_id, self.hidden)
        else:
            batch = self.collator("", WATCHING, *networks.values())([row])
        seen = seen_token_by_token(networks, batch, self.task, shared, self.device)
        tokens = [self.tokenizer.decode([int(token)]) for token in row["input_ids"]]
        write_json(folder.text, {"seed": seed, "row": place, "tokens": tokens, **seen})

    # --- words --------------------------------------------------------------------------------------------------------

    def record(self) -> dict[str, Any]:
        """Return what run.json says of the data."""
        return {
            "classes": [],
            "kind": "text",
            "shape": [self.length],
            "features": None,
            "rows": self.rows,
            "tokens": self._tokens(),
            "vocabulary": len(self.tokenizer),
            "omitted": [],
        }

    def summary(self) -> dict[str, Any]:
        """Return what the JSON of a plan says of the data."""
        data = {"rows": self.rows, "tokens": self._tokens(), "vocabulary": len(self.tokenizer)}
        return {"data": {**data, "length": self.length}, "omitted": []}

    def text(self) -> str:
        """Return what a plan says of the data."""
        rows, tokens = self.rows, self._tokens()
        share = "" if self.hidden is None else f", {100 * self.hidden:g}% of them hidden,"
        return (
            f"{counted(tokens['train'], 'token')} to predict{share} in {counted(rows['train'], 'row')} of up to "
            f"{self.length}; {tokens['test']:,} held out in {counted(rows['test'], 'row')}; {len(self.tokenizer):,} ids"
        )

    def _tokens(self) -> dict[str, int]:
        return {"train": self.texts.train.target_count, "test": self.texts.test.target_count}

    def write_test_rows(self, folder: RunFolder) -> None:
        """Write nothing: `text.json` will hold a piece of them."""
        del folder


def _spread(rows: TokenRows, tokens: int) -> TokenRows:
    """Return rows of about so many tokens, at equal distances."""
    count = max(1, len(rows) * tokens // max(1, len(rows.ids)))
    if count >= len(rows):
        return rows
    chosen = np.linspace(0, len(rows) - 1, count).round().astype(np.int64)
    order = np.concatenate([np.arange(rows.rows[place], rows.rows[place + 1]) for place in chosen])
    counts = np.diff(rows.rows)[chosen]
    return rows.in_order(order, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def _width(network: nn.Module) -> int:
    width = vocabulary_width(network)
    if width is None:
        raise ModelError(f"{type(network).__name__} does not say how wide its head is; expected a language model")
    return width


def _leak(network: nn.Module, batch: dict[str, Any]) -> str | None:
    device = next(network.parameters()).device
    try:
        return leak_between_documents(network, {name: value.to(device) for name, value in batch.items()})
    except (RuntimeError, TypeError) as error:
        return f"{type(network).__name__} cannot be asked about rows of several texts ({str(error).splitlines()[0]})"
