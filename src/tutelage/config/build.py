"""From a checked recipe to objects: data, networks, objective, arguments of the trainer.

With `build_language` and `build_transformers` the only module of the config that loads torch. What only shows here,
such as parameters that are each in range and have no meaning together, is a `RecipeError` with the place in the recipe,
as if it had been found while reading.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import TrainingArguments

from tutelage.config._data import DigitsData, ImagesData, TableData
from tutelage.config._models import FitSpec, MLPModel, ModelSpec, SavedModel, TimmModel
from tutelage.config._recipe import Recipe
from tutelage.config._texts import TextsSpec
from tutelage.data import Data, Rows, digits, images, same_classes, table
from tutelage.divergences import ALL, ForwardKL, WholeBatch
from tutelage.errors import (
    CompatibilityError,
    ModelError,
    ModuleError,
    ParameterError,
    Problem,
    RecipeError,
    VocabularyError,
)
from tutelage.models import Standardised, build_model, load_model, load_weights, read_card
from tutelage.objective import Objective, Term
from tutelage.run_folder import BASELINE
from tutelage.training import MixingCollator, collate, uses_cpu, world_size

LINES = 100
"""How many lines a log gets, evenly spread."""
_ROWS_TO_STANDARDISE = 4096
_BATCH_OF_EVALUATION = 256
_MIXED = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
"""What accelerate calls the precisions of a recipe."""
# As `accelerate launch` sets them.
_USE_CPU, _MIXED_PRECISION = "ACCELERATE_USE_CPU", "ACCELERATE_MIXED_PRECISION"

Role = Literal["teacher", "student"]


def data_of(recipe: Recipe) -> Data:
    """Return the recipe's data, read. Errors: those of `tutelage.data`."""
    spec = recipe.data
    if isinstance(spec, DigitsData):
        return digits(labeled=spec.labeled, omit=spec.omit)
    assert isinstance(spec, (TableData, ImagesData)), spec
    common: dict[str, Any] = {
        "test": spec.test,
        "test_fraction": spec.test_fraction,
        "labeled": spec.labeled,
        "omit": spec.omit,
    }
    if isinstance(spec, TableData):
        known = None if needs_labels(recipe) else _classes_of_teacher(recipe)
        own: dict[str, Any] = {"features": spec.features, "missing": spec.missing, "classes": known}
        return table(spec.table, spec.target, **own, **common)
    return images(spec.images, size=spec.size, **common)


def needs_labels(recipe: Recipe) -> bool:
    """Return whether something is trained on labels: a baseline, a teacher that is fitted, or a term of the student."""
    fitted = recipe.teacher is None or recipe.teacher.fit is not None
    terms = [term for term in recipe.objective.values() if term.weight > 0]
    return recipe.baseline or fitted or any(t.teacher == "labels" or ALL[t.kind].needs_labels for t in terms)


def _classes_of_teacher(recipe: Recipe) -> tuple[str, ...] | None:
    """Return the classes that a saved teacher knows, None if nothing says which."""
    spec = recipe.teacher
    place = spec.model if isinstance(spec, SavedModel) else spec.weights if spec is not None else None
    return read_card(Path(place)).classes if place is not None and (Path(place) / "model.json").is_file() else None


def objective_of(recipe: Recipe, arm: str) -> Objective:
    """Return what an arm is trained by: all terms for the student, those to the labels alone for the baseline.

    The baseline's terms keep their weights relative to each other, and sum to 1. Where the recipe has no term to the
    labels it has one, the cross-entropy.
    """
    terms: dict[str, Term] = {}
    for name, spec in recipe.objective.items():
        with at(f"objective.{name}.{spec.kind}"):
            terms[name] = Term(
                ALL[spec.kind](**spec.parameters),
                teacher=spec.teacher,
                weight=spec.weight,
                temperature=spec.temperature,
                scale_by_temperature=spec.scale_by_temperature,
            )
    if arm != BASELINE:
        return Objective(terms)
    hard = {name: term for name, term in terms.items() if term.teacher == "labels" and term.weight > 0}
    total = sum(term.weight for term in hard.values())
    alone = {
        name: Term(term.divergence, "labels", term.weight / total, term.temperature, term.scale_by_temperature)
        for name, term in hard.items()
    }
    return Objective(alone or labels_alone())


def labels_alone() -> dict[str, Term]:
    """Return the terms by which a network learns from labels and nothing else."""
    return {"hard": Term(ForwardKL(), teacher="labels")}


# --- networks ---------------------------------------------------------------------------------------------------------


def network_of(spec: ModelSpec, role: Role, data: Data, seed: int) -> tuple[Standardised, dict[str, Any]]:
    """Return a network as it is before any training, and the architecture that `save_model` wants with it.

    Random weights are drawn from the seed, the inputs standardised on the rows that the network will see. Weights of
    its own are read, and must fit the data. Errors: `RecipeError` for what does not fit, `DamagedDataError`,
    `MissingPackageError`.
    """
    rows = data.fit if role == "teacher" else data.train
    if isinstance(spec, SavedModel):
        with at(f"{role}.model"):
            folder = Path(spec.model)
            if not folder.is_dir():
                raise ModelError(
                    f"{spec.model!r} is no folder here; expected a model that tutelage saved, such as "
                    "seed-0/student/model of a run: models of a hub cannot be classifiers here yet"
                )
            _check_card(folder, data)
            return load_model(folder), read_card(folder).model
    architecture = architecture_of(spec)
    with at(role), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_model(architecture, data.shape, len(data.classes))
    if spec.weights is None:
        network.standardise(_sample(rows))
        return network, architecture
    with at(f"{role}.weights"):
        if (spec.weights / "model.json").is_file():
            _check_card(spec.weights, data)
        load_weights(network, spec.weights)
    return network, architecture


def architecture_of(spec: ModelSpec) -> dict[str, Any]:
    """Return what `build_model` makes a network from."""
    if isinstance(spec, MLPModel):
        return {"mlp": spec.mlp.model_dump()}
    assert isinstance(spec, TimmModel), spec
    return {"timm": spec.timm, "pretrained": spec.pretrained}


def _check_card(folder: Path, data: Data) -> None:
    card = read_card(folder)
    if len(card.classes) != len(data.classes):
        raise ModelError(
            f"the model in {folder} tells {len(card.classes)} classes apart, and the data has {len(data.classes)}; "
            "expected the same classes"
        )
    if not same_classes(card.classes, data.classes):
        raise ModelError(
            f"the model in {folder} knows the classes {list(card.classes)[:20]}, and the data has "
            f"{list(data.classes)[:20]}; expected the same, in one order"
        )
    if card.shape != data.shape:
        raise ModelError(f"the model in {folder} takes inputs of shape {card.shape}; the data has {data.shape}")


def _sample(rows: Rows) -> torch.Tensor:
    """Return inputs from which mean and spread are taken: all, or, of a big data set, as many evenly spread ones."""
    if len(rows) <= _ROWS_TO_STANDARDISE:
        return rows.inputs
    return rows.take(torch.linspace(0, len(rows) - 1, _ROWS_TO_STANDARDISE).long()).inputs


# --- the trainer ------------------------------------------------------------------------------------------------------


def steps_of(recipe: Recipe, rows: int) -> int:
    """Return how many optimiser steps student and baseline take, the student passing over `rows` rows per epoch."""
    training = recipe.training
    if training.steps is not None:
        return training.steps
    assert training.epochs is not None, training
    return training.epochs * math.ceil(math.ceil(rows / training.batch_size) / training.accumulation)


def steps_to_fit(fit: FitSpec, rows: int) -> int:
    """Return how many optimiser steps the fit of a teacher takes."""
    if fit.steps is not None:
        return fit.steps
    assert fit.epochs is not None, fit
    return fit.epochs * math.ceil(rows / fit.batch_size)


def collator_of(recipe: Recipe, arm: str, seed: int) -> Any:
    """Return what makes batches: the student's rows are mixed where the recipe says so, which only a teacher labels."""
    mixes = recipe.training.mix > 0 and arm != BASELINE and recipe.teacher is not None
    return MixingCollator(collate, beta=recipe.training.mix, seed=seed) if mixes else collate


def training_arguments(recipe: Recipe, steps: int, folder: Path, seed: int) -> TrainingArguments:
    """Return the trainer's arguments for student and baseline; folder: of the checkpoints."""
    _check_shared(recipe)
    training = recipe.training
    return _arguments(
        recipe,
        folder,
        steps,
        seed,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        schedule=training.schedule,
        warmup=round(training.warmup * steps),
        gradient_accumulation_steps=training.accumulation,
        max_grad_norm=training.max_grad_norm,
        precision=training.precision,
        eval_strategy="steps",
        eval_steps=math.ceil(steps / training.evaluations),
    )


def fit_arguments(recipe: Recipe, fit: FitSpec, steps: int, folder: Path) -> TrainingArguments:
    """Return the trainer's arguments for the fit of a teacher."""
    return _arguments(
        recipe,
        folder,
        steps,
        fit.seed,
        batch_size=fit.batch_size,
        learning_rate=fit.learning_rate,
        weight_decay=fit.weight_decay,
        schedule="cosine",
        warmup=round(fit.warmup * steps),
    )


def _arguments(
    recipe: Recipe,
    folder: Path,
    steps: int,
    seed: int,
    *,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    schedule: str,
    warmup: int,
    precision: str = "float32",
    **others: Any,
) -> TrainingArguments:
    on_cpu, of_texts = uses_cpu(recipe.training.device), isinstance(recipe.data, TextsSpec)
    _check_device(recipe, on_cpu)
    try:
        arguments = TrainingArguments(
            output_dir=str(folder),
            max_steps=steps,
            per_device_train_batch_size=_share(batch_size),
            # Rows of tokens take as much memory as a whole batch of the others.
            per_device_eval_batch_size=_share(batch_size) if of_texts else _BATCH_OF_EVALUATION,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            lr_scheduler_type="constant_with_warmup" if schedule == "constant" else schedule,
            warmup_steps=warmup,
            seed=seed,
            logging_strategy="steps",
            logging_steps=math.ceil(steps / LINES),
            save_strategy="steps",
            save_steps=math.ceil(steps / recipe.training.checkpoints),
            use_cpu=on_cpu,
            bf16=precision == "bfloat16",
            fp16=precision == "float16",
            # A language model uses every weight in every step; of others that cannot be known.
            ddp_find_unused_parameters=False if recipe.task in ("causal_lm", "masked_lm") else None,
            disable_tqdm=True,
            report_to="none",
            **others,
        )
    except ValueError as error:
        if precision == "float32":
            raise
        # The trainer's own words on what half precision takes.
        raise _refused("training.precision", f"{precision} cannot be used here: {error}") from error
    # A launcher's precision would be that of the teacher's fit too.
    arguments.mixed_precision = _MIXED[precision]
    return arguments


def _check_device(recipe: Recipe, on_cpu: bool) -> None:
    """Raise `RecipeError` for a device or a precision that would be another one here, without a word."""
    training = recipe.training
    if training.device == "cuda" and not torch.cuda.is_available():
        raise _refused("training.device", "torch finds no GPU here; use auto or cpu")
    if training.device == "cuda" and on_cpu:
        raise _refused("training.device", f"{_USE_CPU} asks for the CPU; use auto or cpu, or unset it")
    if training.precision == "float16" and on_cpu:
        raise _refused(
            "training.precision",
            "float16 takes a GPU, and this runs on the CPU; use bfloat16, which a CPU has, or float32",
        )
    launched = os.environ.get(_MIXED_PRECISION, "no")
    if launched not in ("no", _MIXED[training.precision]):
        raise _refused(
            "training.precision",
            f"{training.precision} is asked for, and {launched} by the launcher ({_MIXED_PRECISION}); expected one "
            "of them: leave --mixed_precision out, or change the recipe",
        )


def _refused(place: str, message: str) -> RecipeError:
    return RecipeError([Problem("", None, place, message)])


def _check_shared(recipe: Recipe) -> None:
    """Raise `RecipeError` for what several processes would compute on shares of a batch, and not on a batch."""
    processes = world_size()
    if recipe.training.mix > 0 and recipe.teacher is not None and recipe.training.batch_size <= processes:
        raise _refused(
            "training.mix",
            f"batches of {recipe.training.batch_size} leave a process one row, with nothing to mix it with; expected "
            f"training.batch_size={2 * processes} or more, or training.mix=0",
        )
    for name, spec in recipe.objective.items():
        if processes > 1 and issubclass(ALL[spec.kind], WholeBatch):
            raise _refused(
                f"objective.{name}.{spec.kind}",
                f"it relates all rows of a batch to each other, and each of {processes} processes has a share of them; "
                "expected one process, or another divergence",
            )


def _share(batch_size: int) -> int:
    """Return how many rows of a batch each process takes."""
    processes = world_size()
    if batch_size % processes:
        message = f"{batch_size} rows cannot be shared by {processes} processes; expected a multiple of {processes}"
        raise _refused("training.batch_size", message)
    return batch_size // processes


@contextmanager
def at(place: str) -> Iterator[None]:
    """Turn what an object refuses into a problem of the recipe at this place."""
    try:
        yield
    except (ParameterError, CompatibilityError, ModelError, ModuleError, VocabularyError) as error:
        raise RecipeError([Problem("", None, place, str(error))]) from error
