"""Activations by the dotted path of their layer, with hooks that are gone afterwards."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from tutelage.errors import LayerError


def bare_name(name: str) -> str:
    """Return the path of a layer or a weight as it is in the network that was not compiled.

    >>> bare_name("_orig_mod.layers.0._orig_mod.weight")
    'layers.0.weight'
    """
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def find_layer(owner: str, module: nn.Module, path: str) -> nn.Module:
    """Return a layer by its dotted path, with or without what `torch.compile` adds to it.

    Errors: `LayerError`, with the nearest names.
    """
    layers: dict[str, nn.Module] = {}
    for name, layer in module.named_modules():
        layers |= {bare_name(name): layer, name: layer}
    if path in layers:
        return layers[path]
    near = difflib.get_close_matches(path, [name for name in layers if name], n=3, cutoff=0.4)
    listed = near or [name for name in layers if name][:8]
    known = f"{'the nearest are' if near else 'it has'} {listed}" if listed else "it has no layers inside"
    raise LayerError(f"the {owner} ({type(module).__name__}) has no layer {path!r}; {known}")


class Taps(Mapping[str, Tensor]):
    """What the tapped layers gave, by path. Errors: `LayerError` for a layer that did not run, or ran twice."""

    def __init__(self, owner: str, paths: Iterable[str]) -> None:
        self._owner = owner
        self._seen: dict[str, list[Any]] = {path: [] for path in paths}

    def __getitem__(self, path: str) -> Tensor:
        outputs = self._seen[path]
        if len(outputs) != 1:
            raise LayerError(
                f"the layer {path!r} of the {self._owner} ran {len(outputs)} times in one call; expected once: choose "
                "a layer that is used once"
            )
        output = outputs[0]
        if isinstance(output, Mapping):
            output = tuple(output.values())
        if isinstance(output, (tuple, list)):
            output = next((part for part in output if isinstance(part, Tensor)), None)
        if not isinstance(output, Tensor):
            raise LayerError(
                f"the layer {path!r} of the {self._owner} gave {type(outputs[0]).__name__}; expected a tensor, or a "
                "tuple with one"
            )
        return output

    def __iter__(self) -> Iterator[str]:
        return iter(self._seen)

    def __len__(self) -> int:
        return len(self._seen)

    def keep(self, path: str) -> Callable[[nn.Module, Any, Any], None]:
        """Return the hook that notes what one layer gave."""

        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._seen[path].append(output)

        return hook


@contextmanager
def tapped(owner: str, module: nn.Module, paths: Iterable[str]) -> Iterator[Taps]:
    """Gather the outputs of some layers while the block runs. No hook is left, whatever happens in it.

    >>> import torch
    >>> from tutelage.features import tapped
    >>> network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
    >>> with tapped("student", network, ["0"]) as taps:
    ...     output = network(torch.ones(2, 4))
    >>> torch.equal(torch.relu(taps["0"]), output)
    True
    """
    wanted = dict.fromkeys(paths)
    layers = {path: find_layer(owner, module, path) for path in wanted}
    taps, handles = Taps(owner, wanted), []
    try:
        for path, layer in layers.items():
            handles.append(layer.register_forward_hook(taps.keep(path)))
        yield taps
    finally:
        for handle in handles:
            handle.remove()
