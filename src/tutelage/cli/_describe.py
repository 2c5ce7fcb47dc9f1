"""A recipe in a few words, before anything is loaded: who teaches whom, on what, how often."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tutelage.cli._console import table, width_of
from tutelage.config import (
    BertModel,
    DigitsData,
    ImagesData,
    LlamaModel,
    MLPModel,
    ModelSpec,
    PythonData,
    Recipe,
    SavedModel,
    TableData,
    TextData,
    TextsSpec,
    TimmModel,
)
from tutelage.wording import counted


def describe(recipe: Recipe, folder: Path | None = None) -> str:
    """Return a recipe, and the folder of its run, as aligned lines."""
    rows = [["data", _data(recipe)]]
    if recipe.teacher is not None:
        rows.append(["teacher", _model(recipe.teacher)])
    rows.append(["student", _model(recipe.student)])
    if recipe.baseline:
        rows.append(["baseline", "the same student on the labels alone, for as many steps"])
    rows += [["objective", " + ".join(_term(recipe, name) for name in recipe.objective)]]
    training = recipe.training
    length = _length(training)
    seeds = training.seed_list
    rows.append(["training", f"{length}, {_seeds(seeds)}"])
    if folder is not None:
        rows.append(["folder", str(folder)])
    return table(rows, indent="  ", width=width_of(sys.stderr))


def _data(recipe: Recipe) -> str:
    data = recipe.data
    if isinstance(data, TextsSpec):
        hidden = "" if data.mask is None else f", {100 * data.mask:g}% of which are hidden"
        return _texts(data) + hidden
    if isinstance(data, DigitsData):
        text = "1,797 scans of handwritten digits, bundled with scikit-learn"
    elif isinstance(data, TableData):
        features = "all its other columns" if data.features is None else ", ".join(data.features)
        text = f"the table {data.table}, {data.target!r} learned from {features}"
    else:
        assert isinstance(data, ImagesData)
        text = f"the images in {data.images}"
    if data.labeled is not None:
        text += f"; the student sees {counted(data.labeled, 'label')}"
    if data.omit:
        text += f"; the student sees nothing of class {', '.join(map(str, data.omit))}"
    return text


def _texts(data: TextsSpec) -> str:
    if isinstance(data, PythonData):
        text = "the source of Python's standard library, as it lies on this machine"
    else:
        assert isinstance(data, TextData)
        text = f"the texts in {data.text}"
    if not isinstance(data, TextData) or data.target is None:
        return f"{text}, in rows of {counted(data.length, 'token')}"
    text += f", with classes in {data.target!r}, of up to {counted(data.length, 'token')} each"
    return text if data.labeled is None else f"{text}; the student sees {counted(data.labeled, 'label')}"


def _model(model: ModelSpec) -> str:
    if isinstance(model, MLPModel):
        hidden = " and ".join(map(str, model.mlp.hidden))
        units = "unit" if model.mlp.hidden == [1] else "units"
        text = f"MLP with {hidden} hidden {units}" if hidden else "a linear model"
    elif isinstance(model, TimmModel):
        text = f"{model.timm} of timm" + (", pretrained" if model.pretrained else "")
    elif isinstance(model, LlamaModel):
        text = f"a Llama of {_layers(model.llama)}"
    elif isinstance(model, BertModel):
        text = f"a BERT of {_layers(model.bert)}"
    else:
        assert isinstance(model, SavedModel)
        text = model.model + (f", with adapters of rank {model.lora.rank}" if model.lora is not None else "")
    if model.weights is not None:
        text += f", weights of {model.weights}"
    if model.fit is not None:
        text += f", first fitted on all labels for {_length(model.fit)} (kept for the next run)"
    return text


def _length(training: Any) -> str:
    """Return how long a network is trained: steps or epochs, whichever are given."""
    return counted(training.epochs, "epoch") if training.steps is None else counted(training.steps, "step")


def _layers(sizes: Any) -> str:
    return f"{counted(sizes.layers, 'layer')} of width {sizes.hidden}"


def _term(recipe: Recipe, name: str) -> str:
    term = recipe.objective[name]
    softened = f" at T = {term.temperature:g}" if term.temperature != 1 else ""
    return f"{term.weight:g} {term.kind} to the {term.teacher}{softened}"


def _seeds(seeds: list[int]) -> str:
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if len(seeds) <= 10:
        return f"{len(seeds)} seeds ({', '.join(map(str, seeds))})"
    return f"{len(seeds)} seeds"
