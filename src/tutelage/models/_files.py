"""A network in a folder: weights as safetensors, and a card that says which network they belong to.

Nothing is unpickled and no code is run from such a folder: the card names one of the architectures of this package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tutelage.errors import DamagedDataError, ModelError
from tutelage.manifest import staged, write_by
from tutelage.models._build import build_model
from tutelage.models._check import check_saved
from tutelage.models._mlp import Standardised
from tutelage.models._snapshot import CONFIG, how_to_convert, is_pickle
from tutelage.run_folder import read_json, write_json

WEIGHTS, CARD = "model.safetensors", "model.json"
FORMAT = 1


@dataclass(frozen=True)
class ModelCard:
    """What a folder says of its network: the architecture, the shape of one input, the names of the classes."""

    model: dict[str, Any]
    shape: tuple[int, ...]
    classes: tuple[str, ...]


def save_model(
    module: nn.Module, spec: Mapping[str, Any], folder: Path, *, shape: Sequence[int], classes: Sequence[str]
) -> None:
    """Write a network and its card; the folder appears whole, and takes the place of one that is there.

    spec: what `build_model` makes it from. Errors: `ModelError` if it does not make such a network.
    """
    card: dict[str, Any] = {"format": FORMAT, "model": _plain(spec), "shape": list(shape), "classes": list(classes)}
    with torch.random.fork_rng(devices=[]):
        wanted = build_model(_without_download(card["model"]), shape, len(classes))
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    _check_fit(weights, wanted, "the network to be saved")
    with staged(folder) as staging:
        write_by(staging / WEIGHTS, lambda path: save_file(weights, path))
        write_json(staging / CARD, card)


def load_model(folder: str | Path) -> Standardised:
    """Return the network of a folder, ready to predict.

    Errors: `ModelError` if the folder holds none, `DamagedDataError` if a file in it is not what was written.
    """
    place = Path(folder)
    check_saved(place)
    card = read_card(place)
    with torch.random.fork_rng(devices=[]):
        module = build_model(card.model, card.shape, len(card.classes))
    load_weights(module, place / WEIGHTS)
    return module.eval()


def read_card(folder: Path) -> ModelCard:
    """Return what the folder of a model says of it."""
    if not (folder / CARD).is_file():
        raise ModelError(
            f"{folder} holds no {CARD}; expected the folder of a model, such as seed-0/student/model of a run"
            + _of_timm(folder)
        )
    raw = read_json(folder / CARD, keys=("format", "model", "shape", "classes"))
    if raw["format"] != FORMAT:
        raise ModelError(f"{folder / CARD} has the format {raw['format']!r}; expected {FORMAT}: update tutelage")
    shape, classes, model = raw["shape"], raw["classes"], raw["model"]
    if not (_all(shape, int) and _all(classes, str) and isinstance(model, dict)):
        raise DamagedDataError(
            f"{folder / CARD} is no card of a model: expected a shape, names of classes, and a model"
        )
    return ModelCard(_without_download(model), tuple(shape), tuple(classes))


def load_weights(module: nn.Module, path: Path) -> None:
    """Put the weights of a safetensors file, or of a model folder, into a network of the same architecture."""
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise ModelError(f"{file} is not there; expected weights as safetensors, or the folder of a model")
    if is_pickle(file):
        raise ModelError(f"{file} is not in the format of safetensors; {how_to_convert(file)}")
    check_saved(file.parent, lambda name: name == file.name)
    try:
        weights = load_file(file)
    except (SafetensorError, OSError) as error:
        raise DamagedDataError(f"{file} cannot be read as safetensors: {error}") from error
    _check_fit(weights, module, str(file))
    module.load_state_dict(weights)


def _check_fit(weights: Mapping[str, Tensor], module: nn.Module, place: str) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if found and {f"net.{name}" for name in found} <= set(wanted):
        raise ModelError(
            f"{place} has the weights of timm's network alone, without the mean and spread by which tutelage "
            "standardises inputs; expected weights that tutelage saved: use `pretrained: true` where timm publishes "
            "them, or load them with timm.create_model and pass the network to DistillationTrainer"
        )
    for name, shape in wanted.items():
        if name not in found:
            raise ModelError(f"{place} has no weights for {name!r}; it has {sorted(found)[:8]}: another architecture?")
        if found[name] != shape:
            raise ModelError(
                f"{place}: {name!r} has shape {found[name]}; expected {shape}: another width, input shape or number of "
                "classes"
            )
    extra = sorted(set(found) - set(wanted))
    if extra:
        raise ModelError(f"{place} has weights for {extra[:8]}, which the network lacks: another architecture?")


def _of_timm(folder: Path) -> str:
    """Return what to do with a folder in the layout of timm; nothing for others."""
    try:
        name = json.loads((folder / CONFIG).read_bytes())["architecture"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return ""
    return (
        f". This is a checkpoint of timm: use `timm: {name}` with `pretrained: true` where timm publishes it, or load "
        f"it with timm.create_model({str(name)!r}, checkpoint_path=...) and pass the network to DistillationTrainer"
    )


def _plain(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the spec as JSON gives it back, so that what is written is what was checked."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(spec)))
    except TypeError as error:
        raise ModelError(f"the architecture {dict(spec)!r} cannot be written as JSON: {error}") from error
    return plain


def _without_download(model: dict[str, Any]) -> dict[str, Any]:
    """Return the architecture alone: what has weights in a folder needs none from elsewhere."""
    return {**model, "pretrained": False} if "timm" in model else model


def _all(values: Any, kind: type) -> bool:
    return isinstance(values, list) and len(values) > 0 and all(type(value) is kind for value in values)
