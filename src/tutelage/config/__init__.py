"""Recipes: what a run is made of, as data that is checked before anything heavy is loaded.

A recipe is YAML, validated strictly, with all its problems reported at once. The schema loads no torch: what it needs
to know of the divergences it reads from their source. The names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tutelage.errors import Problem, RecipeError

if TYPE_CHECKING:
    from tutelage.config._data import DigitsData, ImagesData, TableData
    from tutelage.config._load import dump, json_schema, load, recipe_names, recipe_path
    from tutelage.config._models import BertModel, FitSpec, LlamaModel, MLPModel, ModelSpec, SavedModel, TimmModel
    from tutelage.config._recipe import Recipe
    from tutelage.config._terms import TermSpec
    from tutelage.config._texts import PythonData, TextData, TextsSpec, TokenizerSpec
    from tutelage.config._training import TrainingSpec

__all__ = [
    "BertModel",
    "DigitsData",
    "FitSpec",
    "ImagesData",
    "LlamaModel",
    "MLPModel",
    "ModelSpec",
    "Problem",
    "PythonData",
    "Recipe",
    "RecipeError",
    "SavedModel",
    "TableData",
    "TermSpec",
    "TextData",
    "TextsSpec",
    "TimmModel",
    "TokenizerSpec",
    "TrainingSpec",
    "dump",
    "json_schema",
    "load",
    "recipe_names",
    "recipe_path",
]

_HOMES = {
    "_data": ["DigitsData", "ImagesData", "TableData"],
    "_load": ["dump", "json_schema", "load", "recipe_names", "recipe_path"],
    "_models": ["BertModel", "FitSpec", "LlamaModel", "MLPModel", "ModelSpec", "SavedModel", "TimmModel"],
    "_recipe": ["Recipe"],
    "_terms": ["TermSpec"],
    "_texts": ["PythonData", "TextData", "TextsSpec", "TokenizerSpec"],
    "_training": ["TrainingSpec"],
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'tutelage.config' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tutelage.config.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
