"""From a checked recipe of texts to models of transformers, with their tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from tutelage.config._models import BertModel, LlamaModel, ModelSpec, SavedModel
from tutelage.config._recipe import Recipe
from tutelage.config._texts import TextsSpec
from tutelage.config.build import Role, at
from tutelage.errors import ModelError
from tutelage.models import add_lora, load_pretrained, load_tokenizer
from tutelage.networks import check_exclusive
from tutelage.tasks import CausalLM, MaskedLM, SequenceClassification, Task, check_teacher


def transformer_of(recipe: Recipe, role: Role, tokenizer: Any, seed: int, classes: Sequence[str] = ()) -> Any:
    """Return a model of transformers as it is before any training, with adapters where the recipe has some.

    classes: the names of a classifier's, in the order of its logits. Random weights are drawn from the seed.
    Errors: `RecipeError` for what does not fit, `DamagedDataError`, `MissingPackageError`.
    """
    spec: ModelSpec | None = recipe.student if role == "student" else recipe.teacher
    assert spec is not None, recipe
    with at(role), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(recipe, role, spec, tokenizer, classes)
        # Before a teacher is fitted, and not by the trainer alone.
        task = _TASKS[auto_of(recipe)]
        task.check(model) if role == "student" else check_teacher(task, role, model)
        if classes:
            _name_classes(role, model, tokenizer, classes)
        _check_length(recipe, model)
        if isinstance(spec, SavedModel) and spec.lora is not None:
            lora = spec.lora
            targets = "all-linear" if lora.targets is None else lora.targets
            model = add_lora(model, rank=lora.rank, alpha=lora.alpha, targets=targets, dropout=lora.dropout)
    return model


Auto = Literal["causal_lm", "masked_lm", "sequence_classification"]
_TASKS: dict[Auto, Task] = {
    "causal_lm": CausalLM(),
    "masked_lm": MaskedLM(),
    "sequence_classification": SequenceClassification(),
}


def auto_of(recipe: Recipe) -> Auto:
    """Return as what `load_pretrained` reads the models of a recipe."""
    assert recipe.task != "classification", recipe
    return recipe.task


def tokenizer_of(spec: ModelSpec, default: Any) -> Any:
    """Return the tokenizer that a model came with, or, for one that is made here, the data's."""
    if isinstance(spec, SavedModel):
        return load_tokenizer(spec.model, revision=spec.revision)
    return default


def tokenizer_of_teacher(recipe: Recipe) -> str:
    """Return how to take the teacher's tokenizer where one is trained for a student without; nothing elsewhere."""
    data, teacher = recipe.data, recipe.teacher
    trained = isinstance(data, TextsSpec) and data.tokenizer is not None and data.tokenizer.train is not None
    if not trained or not isinstance(teacher, SavedModel):
        return ""
    own = f"`tokenizer: {{model: {teacher.model}}}`"
    return f". One that is trained on the data is not the teacher's: use {own} in `data`"


def _model(recipe: Recipe, role: Role, spec: ModelSpec, tokenizer: Any, classes: Sequence[str]) -> Any:
    auto = auto_of(recipe)
    if isinstance(spec, SavedModel):
        # Who is trained may get a new head; a teacher that is not would teach what its random one says.
        new = len(classes) if classes and (role == "student" or spec.fit is not None) else None
        return load_pretrained(spec.model, auto=auto, revision=spec.revision, dtype=spec.dtype, classes=new)
    if isinstance(spec, BertModel):
        config: Any = _bert_config(recipe, spec, tokenizer)
        config.id2label = dict(enumerate(classes))
        made: Any = BertForSequenceClassification if classes else BertForMaskedLM
    else:
        assert isinstance(spec, LlamaModel), spec
        config, made = _llama_config(recipe, spec, tokenizer), LlamaForCausalLM
    if spec.weights is None:
        return made(config)
    with at(f"{role}.weights"):
        model = load_pretrained(spec.weights, auto=auto)
        for name in ("model_type", *_SIZES):
            found, wanted = getattr(model.config, name, None), getattr(config, name, None)
            if found != wanted:
                raise ModelError(
                    f"the model in {spec.weights} has {name} {found}, and the recipe's {wanted}; expected equal ones: "
                    f"change `{spec.kind}`, or use `model: <folder>`, which takes it as it is"
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


def _name_classes(role: str, model: Any, tokenizer: Any, classes: Sequence[str]) -> None:
    """Write the classes into a classifier's configuration, so that they are saved with it."""
    config = model.config
    if config.num_labels != len(classes):
        raise ModelError(
            f"the {role} tells {config.num_labels} classes apart, and the data has {len(classes)}: "
            f"{list(classes)[:20]}; expected as many"
        )
    check_exclusive(f"the {role}", config)
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: number for number, name in enumerate(classes)}
    if config.pad_token_id is None:
        # Decoders look for a row's last token by it.
        config.pad_token_id = tokenizer.pad_token_id


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
