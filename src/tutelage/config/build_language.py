"""From a checked recipe of texts to objects: tokenizer, rows of tokens, and language models of transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM

from tutelage.config._models import BertModel, LlamaModel, ModelSpec, SavedModel
from tutelage.config._recipe import Recipe
from tutelage.config._texts import PythonData, TextData, TextsSpec
from tutelage.config.build import Role, at
from tutelage.data import TokenRows, encode, encode_masked, pack, python_source, read_rows, split_rows, train_tokenizer
from tutelage.errors import ModelError
from tutelage.models import add_lora, load_pretrained, load_tokenizer

Rows = Sequence[dict[str, Any]]
Trainer = Callable[..., Any]
"""As `train_tokenizer`."""


@dataclass(frozen=True, eq=False)
class Texts:
    """Rows of tokens to learn from and rows held out, with the tokenizer that made them."""

    train: TokenRows
    test: TokenRows
    tokenizer: Any

    def digest(self, *, of_all: bool = False) -> str:
        """Return the sha256 of the training rows and the tokenizer; or of all rows."""
        parts = [self.train.digest(), tokenizer_digest(self.tokenizer), *([self.test.digest()] if of_all else [])]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def tokenizer_digest(tokenizer: Any) -> str:
    """Return the sha256 of what a tokenizer knows."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = repr(sorted(tokenizer.get_vocab().items())) if backend is None else backend.to_str()
    return hashlib.sha256(text.encode()).hexdigest()


def texts_of(recipe: Recipe, train: Trainer = train_tokenizer) -> Texts:
    """Return the recipe's texts as rows of tokens. train: makes a tokenizer, as `train_tokenizer` does.

    Errors: those of `tutelage.data`, `RecipeError` for a tokenizer that cannot be had.
    """
    spec = recipe.data
    assert isinstance(spec, TextsSpec), spec
    learned, held_out = _rows(spec)
    tokenizer = _tokenizer(recipe, learned, train)
    rows = [
        _encoded(recipe, spec, part, tokenizer, place)
        for part, place in ((learned, "the texts"), (held_out, "the test"))
    ]
    rows[0] = _limited(rows[0], spec.limit_tokens)
    made, test = (pack(part, spec.length) if spec.packing else part for part in rows)
    return Texts(made, test, tokenizer)


def language_model_of(recipe: Recipe, role: Role, tokenizer: Any, seed: int) -> Any:
    """Return a model of transformers as it is before any training, with adapters where the recipe has some.

    Random weights are drawn from the seed. Errors: `RecipeError` for what does not fit, `DamagedDataError`,
    `MissingPackageError`.
    """
    spec: ModelSpec | None = recipe.student if role == "student" else recipe.teacher
    assert spec is not None, recipe
    with at(role), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(recipe, role, spec, tokenizer)
        _check_length(recipe, model)
        if isinstance(spec, SavedModel) and spec.lora is not None:
            lora = spec.lora
            targets = "all-linear" if lora.targets is None else lora.targets
            model = add_lora(model, rank=lora.rank, alpha=lora.alpha, targets=targets, dropout=lora.dropout)
    return model


def auto_of(recipe: Recipe) -> Literal["causal_lm", "masked_lm"]:
    """Return as what `load_pretrained` reads the models of a recipe."""
    return "masked_lm" if recipe.task == "masked_lm" else "causal_lm"


def tokenizer_of(spec: ModelSpec, default: Any) -> Any:
    """Return the tokenizer that a model came with, or, for one that is made here, the data's."""
    if isinstance(spec, SavedModel):
        return load_tokenizer(spec.model, revision=spec.revision)
    return default


# --- texts ------------------------------------------------------------------------------------------------------------


def _rows(spec: TextsSpec) -> tuple[Rows, Rows]:
    if isinstance(spec, PythonData):
        corpus = python_source(spec.test_fraction)
        return corpus.train, corpus.test
    assert isinstance(spec, TextData), spec
    rows = read_rows(spec.text)
    return (rows, read_rows(spec.test)) if spec.test is not None else split_rows(rows, spec.test_fraction)


def _tokenizer(recipe: Recipe, learned: Rows, train: Trainer) -> Any:
    assert isinstance(recipe.data, TextsSpec), recipe
    spec = recipe.data.tokenizer
    if spec is None:
        with at("student.model"):
            return _fitting(recipe, tokenizer_of(recipe.student, None))
    with at("data.tokenizer"):
        if spec.model is not None:
            return _fitting(recipe, load_tokenizer(spec.model, revision=spec.revision))
        assert spec.train is not None, spec
        return train(_words(learned), spec.train, for_encoder=recipe.task != "causal_lm")


def _fitting(recipe: Recipe, tokenizer: Any) -> Any:
    """Return a tokenizer, or raise `ModelError` if the task needs a token that it lacks."""
    if recipe.task == "masked_lm" and tokenizer.mask_token_id is None:
        raise ModelError(
            "the tokenizer has no mask token, which stands for the tokens that are hidden; expected that of a masked "
            "language model, or `tokenizer: {train: 2048}` in `data`"
        )
    return tokenizer


def _words(rows: Rows) -> list[str]:
    """Return all text of rows of any form, in order."""
    found: list[str] = []
    for row in rows:
        found += [row[name] for name in ("text", "prompt", "completion") if isinstance(row.get(name), str)]
        messages = row.get("messages")
        if isinstance(messages, list):
            found += [turn["content"] for turn in messages if isinstance(turn.get("content"), str)]
    return found


def _encoded(recipe: Recipe, spec: TextsSpec, rows: Rows, tokenizer: Any, place: str) -> TokenRows:
    if recipe.task == "masked_lm":
        with at("data.length"):
            return encode_masked(rows, tokenizer, spec.length, place)
    long = spec.long_completions if isinstance(spec, TextData) else "refuse"
    return encode(rows, tokenizer, spec.length, long_completions=long, place=place)


def _limited(rows: TokenRows, limit: int | None) -> TokenRows:
    """Return documents of about so many tokens, taken from everywhere by a draw that never changes."""
    if limit is None or rows.lengths.sum() <= limit:
        return rows
    order = np.random.default_rng(0).permutation(len(rows.lengths))
    count = max(1, int(np.searchsorted(np.cumsum(rows.lengths[order]), limit, side="right")))
    chosen = np.sort(order[:count])
    return rows.in_order(chosen, np.arange(count + 1, dtype=np.int64))


# --- models -----------------------------------------------------------------------------------------------------------


def _model(recipe: Recipe, role: Role, spec: ModelSpec, tokenizer: Any) -> Any:
    auto = auto_of(recipe)
    if isinstance(spec, SavedModel):
        return load_pretrained(spec.model, auto=auto, revision=spec.revision, dtype=spec.dtype)
    if isinstance(spec, BertModel):
        config: Any = _bert_config(recipe, spec, tokenizer)
    else:
        assert isinstance(spec, LlamaModel), spec
        config = _llama_config(recipe, spec, tokenizer)
    if spec.weights is None:
        return BertForMaskedLM(config) if isinstance(spec, BertModel) else LlamaForCausalLM(config)
    with at(f"{role}.weights"):
        model = load_pretrained(spec.weights, auto=auto)
        for name in ("model_type", *_SIZES):
            found, wanted = getattr(model.config, name, None), getattr(config, name)
            if found != wanted:
                raise ModelError(
                    f"the model in {spec.weights} has {name} {found}, and the recipe's {wanted}; expected equal ones: "
                    "change `{spec.kind}`, or use `model: <folder>`, which takes it as it is"
                )
        return model


_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
)


def _llama_config(recipe: Recipe, spec: LlamaModel, tokenizer: Any) -> LlamaConfig:
    assert isinstance(recipe.data, TextsSpec), recipe
    sizes = spec.llama
    return LlamaConfig(
        vocab_size=max(tokenizer.get_vocab().values()) + 1,
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.key_value_heads or sizes.heads,
        intermediate_size=sizes.intermediate,
        max_position_embeddings=recipe.data.length,
        tie_word_embeddings=True,
        # In a narrow model with the usual 0.02, the tokens drown in what its first layers add to them: at a width of 64
        # and after 0.4 M tokens of Python, 0.04 was 0.4 nats per token ahead.
        initializer_range=0.04,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _bert_config(recipe: Recipe, spec: BertModel, tokenizer: Any) -> BertConfig:
    assert isinstance(recipe.data, TextsSpec), recipe
    sizes = spec.bert
    return BertConfig(
        vocab_size=max(tokenizer.get_vocab().values()) + 1,
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.intermediate,
        max_position_embeddings=recipe.data.length,
        # One as small as these learns too little, and not too much.
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_token_id,
    )


def _check_length(recipe: Recipe, model: Any) -> None:
    assert isinstance(recipe.data, TextsSpec), recipe
    most = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(most, int):
        return
    for module in model.modules():
        positions = getattr(module, "position_embeddings", None)
        # Models of RoBERTa's kind count from the padding's id on, and have that many places fewer.
        if isinstance(positions, torch.nn.Embedding) and positions.padding_idx is not None:
            most -= positions.padding_idx + 1
            break
    if recipe.data.length > most:
        raise ModelError(f"the model takes {most} tokens at most; expected data.length <= {most}")
