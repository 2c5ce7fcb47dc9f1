"""Runs about texts with a class each: rows of tokens, and classifiers of transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.config import Recipe
from tutelage.config.build import Role, at
from tutelage.config.build_labelled import labelled_texts_of
from tutelage.config.build_transformers import tokenizer_of, tokenizer_of_teacher, transformer_of
from tutelage.data import TextRows
from tutelage.errors import ModelError
from tutelage.models import compare_tokenizers, load_pretrained, parameter_count
from tutelage.run_folder import ArmFolder, RunFolder, write_json
from tutelage.runs._cache import kept_tokenizer
from tutelage.runs._classification import Classification
from tutelage.runs._language_scores import timed
from tutelage.runs._measured import Measured
from tutelage.runs._saving import OfTransformers, saved_bytes
from tutelage.runs._scores import scores_of
from tutelage.tasks import SequenceClassification, Task, call
from tutelage.training import TokenCollator
from tutelage.vocabulary import VocabularyMap
from tutelage.wording import counted

_ROWS_WATCHED = 2_000
"""How many held-out rows a network is evaluated on while it trains; at its end it is scored on all of them."""
_MOST_ROWS, _MOST_CHARACTERS = 20_000, 240
"""Of how many test rows the texts are kept for a report, and how much of each."""


class LabelledTexts(OfTransformers, Classification):
    """The texts of a recipe as tokens, with their classes, and its classifiers."""

    task: Task | None = SequenceClassification()

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.texts = labelled_texts_of(recipe, kept_tokenizer)
        self.data, self.tokenizer = self.texts.data, self.texts.tokenizer
        self.train, self.labelled, self.fit = self.data.train, self.data.labelled, self.data.fit
        test = self.data.test
        count = min(len(test), _ROWS_WATCHED)
        self.watched = test.take(torch.linspace(0, len(test) - 1, count).round().long())
        self._collator = TokenCollator(self.tokenizer, of_rows=True)

    def digest(self, *, of_all: bool = False) -> str:
        """Return the sha256 of the labelled training rows and the tokenizer; or of all rows."""
        return self.texts.digest(of_all=of_all)

    def network(self, role: Role, seed: int) -> nn.Module:
        """Return a classifier as it is before any training."""
        model: nn.Module = transformer_of(self.recipe, role, self.tokenizer, seed, self.data.classes)
        return model

    def load(self, folder: Path) -> nn.Module:
        """Return the model of a folder, ready to predict."""
        model: nn.Module = load_pretrained(folder, auto="sequence_classification").eval()
        return model

    def vocabulary(self, student: nn.Module, teacher: nn.Module | None) -> VocabularyMap | None:
        """Return None: all classes are compared. Errors: `RecipeError` for a model that reads other tokens."""
        for role, network, spec in (
            ("student", student, self.recipe.student),
            ("teacher", teacher, self.recipe.teacher),
        ):
            if network is None or spec is None:
                continue
            hint = tokenizer_of_teacher(self.recipe) if role == "teacher" else ""
            with at(role):
                _check_reads(role, network, tokenizer_of(spec, self.tokenizer), self.tokenizer, hint)
        return None

    def collator(self, arm: str, seed: int, *networks: nn.Module | None) -> TokenCollator:
        """Return what makes batches."""
        del arm, seed, networks
        return self._collator

    def answers(self, teacher: nn.Module) -> Tensor:
        """Return the teacher's logits on the held-out rows."""
        return self._predict(teacher)

    def score(self, network: nn.Module, folder: ArmFolder, answers: Any) -> Measured:
        """Score a classifier on all held-out rows."""
        labels, logits = self.data.test.labels, self._predict(network)
        scores = scores_of(logits, labels, answers)
        scores["parameters"] = parameter_count(network)
        scores["bytes"] = saved_bytes(network, folder.model)
        return Measured(scores, logits, labels)

    def timed(self, network: nn.Module) -> dict[str, Callable[[], Any]]:
        """Return a forward pass over one row."""
        return timed(network.to(self.device), self._collator([self.data.test[0]]))

    def write_test_rows(self, folder: RunFolder) -> None:
        """Write the beginnings of the held-out texts, so that a report can show them; not of very many."""
        rows = self.data.test
        assert isinstance(rows, TextRows), rows
        if len(rows) <= _MOST_ROWS:
            write_json(folder.test_texts, {"texts": [text[:_MOST_CHARACTERS] for text in rows.texts]})

    def text(self) -> str:
        """Return what a plan says of the data."""
        rows, data = self.rows, self.data
        return (
            f"{counted(rows['train'], 'text')} to train on, {rows['labelled']:,} of them with a label; "
            f"{rows['test']:,} held out; up to {counted(data.shape[0], 'token')} each, {len(data.classes)} classes"
        )

    def _predict(self, network: nn.Module) -> Tensor:
        """Return the logits (N, C) on the held-out rows, float32 on the CPU."""
        task, rows, size = SequenceClassification(), self.data.test, self.recipe.training.batch_size
        network.to(self.device).eval()
        found = []
        with torch.inference_mode():
            for start in range(0, len(rows), size):
                batch = self._collator([rows[place] for place in range(start, min(start + size, len(rows)))])
                inputs = {name: value.to(self.device) for name, value in task.inputs(batch).items()}
                logits = task.student(call(network, inputs))
                assert isinstance(logits, Tensor), logits
                found.append(logits.float().cpu())
        return torch.cat(found)


def _check_reads(role: str, network: nn.Module, own: Any, tokenizer: Any, hint: str) -> None:
    """Raise `ModelError` unless a model means by each id what the tokenizer of the data does, and knows all of them.

    hint: what to do about another tokenizer.
    """
    match = compare_tokenizers(own, tokenizer)
    if not match.same:
        raise ModelError(
            f"the {role}'s tokenizer is not the one that makes tokens of the data, of {match.shared} of whose ids it "
            f"has the same: {match.differences[0]}; expected the same for data, teacher and student{hint}"
        )
    ask: Any = getattr(network, "get_input_embeddings", None)
    embeddings = None if ask is None else ask()
    ids = max(tokenizer.get_vocab().values()) + 1
    if isinstance(embeddings, nn.Embedding) and embeddings.num_embeddings < ids:
        raise ModelError(
            f"the {role} knows {embeddings.num_embeddings} ids and its tokenizer gives {ids}; expected at least as many"
        )
