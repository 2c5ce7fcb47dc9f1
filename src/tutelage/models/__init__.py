"""Networks that a recipe can name, and folders of weights that are read without running any code from them."""

from __future__ import annotations

from tutelage.models._build import build_model, parameter_count
from tutelage.models._classes import saved_classes
from tutelage.models._files import ModelCard, load_model, load_weights, read_card, save_model
from tutelage.models._head_model import HeadModel, check_head, language_model
from tutelage.models._heads import FAMILIES, HeadParts, find_head, head_name, is_sharded, vocabulary_width
from tutelage.models._hub import load_pretrained
from tutelage.models._lora import add_lora
from tutelage.models._mlp import ACTIVATIONS, MLP, Standardised
from tutelage.models._tokenizers import TokenizerMatch, align, compare_tokenizers, load_tokenizer, named_panics

__all__ = [
    "ACTIVATIONS",
    "FAMILIES",
    "MLP",
    "HeadModel",
    "HeadParts",
    "ModelCard",
    "Standardised",
    "TokenizerMatch",
    "add_lora",
    "align",
    "build_model",
    "check_head",
    "compare_tokenizers",
    "find_head",
    "head_name",
    "is_sharded",
    "language_model",
    "load_model",
    "load_pretrained",
    "load_tokenizer",
    "load_weights",
    "named_panics",
    "parameter_count",
    "read_card",
    "save_model",
    "saved_classes",
    "vocabulary_width",
]
