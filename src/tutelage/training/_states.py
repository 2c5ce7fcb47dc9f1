"""Nested states on the disk, of optimizers, schedules and random numbers, as JSON and safetensors: no pickles.

    NAME.json          {"state": ..., "files": 1}; numbers, strings, lists and null stand for themselves
    NAME.safetensors   its tensors, by number; several files, NAME-1.safetensors and so on, where there is much

What JSON lacks is an object with one key: {"dict": [[key, value], ...]}, {"tuple": [...]}, {"float": "inf"},
{"tensor": 0}, {"array": 1} for numpy's arrays and numbers.
"""

from __future__ import annotations

import functools
import json
import math
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers.trainer_pt_utils import safe_globals

from tutelage import manifest
from tutelage.errors import DamagedDataError

_DTYPES = frozenset(
    {
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
    }
)

# A file is copied to the memory of the host as a whole while it is written.
_LARGEST_FILE = 1 << 30


class _NotPlainError(Exception):
    """A state holds what is no tensor and no number."""


class _Tensors:
    """The tensors of a state, by number; no two of them share memory, which a file of safetensors cannot hold."""

    def __init__(self) -> None:
        self.files: list[dict[str, Tensor]] = []
        self._count = self._bytes = 0
        self._memory: set[int] = set()

    def add(self, tensor: Tensor) -> int:
        size, memory = tensor.numel() * tensor.element_size(), tensor.untyped_storage().data_ptr()
        if not self.files or self._bytes + size > _LARGEST_FILE:
            self.files.append({})
            self._bytes = 0
        number = self._count
        self.files[-1][str(number)] = tensor.clone() if memory in self._memory else tensor
        self._count, self._bytes = number + 1, self._bytes + size
        self._memory.add(memory)
        return number


def save_state(state: Any, folder: Path, name: str) -> None:
    """Write a state. One that holds other things than tensors and numbers is written as torch does, to NAME.pt."""
    tensors = _Tensors()
    try:
        written = _to_json(state, tensors)
    except _NotPlainError:
        manifest.write_by(folder / f"{name}.pt", lambda path: _write_as_torch(state, path))
        return
    text = json.dumps({"state": written, "files": len(tensors.files)})
    manifest.write_bytes(folder / f"{name}.json", (text + "\n").encode())
    for path, held in zip(_files(folder, name, len(tensors.files)), tensors.files, strict=True):
        manifest.write_by(path, functools.partial(safetensors.torch.save_file, held))


def _files(folder: Path, name: str, count: int) -> list[Path]:
    return [folder / (f"{name}-{number}.safetensors" if number else f"{name}.safetensors") for number in range(count)]


def _write_as_torch(state: Any, path: Path) -> None:
    # Of a file that it opens itself, torch does not say what went wrong.
    with path.open("wb") as file:
        torch.save(state, file)


def load_state(folder: Path, name: str, older: str | None = None) -> Any:
    """Return a state that was saved. older: the file in which transformers keeps it, by torch's format.

    Errors: `DamagedDataError` for one that is missing or cannot be read.
    """
    plain = folder / f"{name}.json"
    if plain.is_file():
        try:
            read, tensors = json.loads(plain.read_bytes()), {}
            for path in _files(folder, name, read["files"]):
                tensors.update(safetensors.torch.load_file(path))
            return _from_json(read["state"], tensors)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
            raise DamagedDataError(f"{plain} and what belongs to it cannot be read: {error}") from error
    for file in (folder / f"{name}.pt", *([] if older is None else [folder / older])):
        if file.is_file():
            return _of_torch(file)
    raise DamagedDataError(f"{plain} is missing; training cannot be resumed without it")


def _of_torch(file: Path) -> Any:
    try:
        # Tensors, numbers, and numpy's arrays for states of random numbers: no code.
        with safe_globals():
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # Of bytes that it did not write, torch's reader raises whatever they lead it to.
        raise DamagedDataError(f"{file} cannot be read as tensors and numbers alone: {error}") from error


def _to_json(value: Any, tensors: _Tensors) -> Any:
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if type(value) is list:
        return [_to_json(item, tensors) for item in value]
    if type(value) is tuple:
        return {"tuple": [_to_json(item, tensors) for item in value]}
    if type(value) in (dict, OrderedDict, defaultdict):
        return {"dict": [[_to_json(key, tensors), _to_json(item, tensors)] for key, item in value.items()]}
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufc":
        data = np.frombuffer(value.tobytes(), dtype=np.uint8).copy()
        return {
            "array": tensors.add(torch.from_numpy(data)),
            "dtype": value.dtype.str,
            "shape": None if isinstance(value, np.generic) else list(value.shape),
        }
    if type(value) is Tensor and value.layout == torch.strided and value.dtype in _DTYPES and not value.is_meta:
        # As it lies in memory: the last bit of a sum may depend on the order of its strides.
        strides: tuple[int, ...] = value.stride()
        order = sorted(range(value.dim()), key=lambda axis: -strides[axis])
        lying = value.detach().permute(order)
        if not lying.is_contiguous():
            order, lying = list(range(value.dim())), value.detach()
        number = tensors.add(lying.contiguous())
        return {"tensor": number} if order == sorted(order) else {"tensor": number, "order": order}
    raise _NotPlainError


def _from_json(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_from_json(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(_from_json(item, tensors) for item in value["tuple"])
    if "dict" in value:
        return {_from_json(key, tensors): _from_json(item, tensors) for key, item in value["dict"]}
    if "float" in value:
        return float(value["float"])
    if "array" in value:
        array = np.frombuffer(tensors[str(value["array"])].numpy().tobytes(), dtype=np.dtype(value["dtype"]))
        return array[0] if value["shape"] is None else array.reshape(value["shape"]).copy()
    # A copy: what was read is a view of the file.
    tensor = tensors[str(value["tensor"])].clone()
    order = value.get("order")
    return tensor if order is None else tensor.permute([order.index(axis) for axis in range(len(order))])
