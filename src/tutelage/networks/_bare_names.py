"""State dicts without the prefix that `torch.compile` puts before the names of weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tutelage.features import bare_name
from tutelage.networks._wrappers import is_compiled


def bare_state(module: nn.Module) -> dict[str, Tensor] | None:
    """Return a module's state by the names it has without `torch.compile`; None if no part of it is compiled."""
    if not any(map(is_compiled, module.modules())):
        return None
    return {bare_name(name): value for name, value in module.state_dict().items()}


def keep_bare_names(module: nn.Module) -> None:
    """Make a module give and take its state by the names that its parts have without `torch.compile`.

    Parts may be compiled, or no longer be, between saving and loading. The names of the parts themselves stay.
    """
    module.register_state_dict_post_hook(_give)
    module.register_load_state_dict_pre_hook(_take)
    module.register_load_state_dict_post_hook(_missing)


def _give(module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    if any(map(is_compiled, module.modules())):
        _rename(state, {name: prefix + bare_name(name[len(prefix) :]) for name in state if name.startswith(prefix)})


def _take(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    if any(map(is_compiled, module.modules())):
        named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
        _rename(state, {prefix + bare_name(name): prefix + name for name, _ in named})


def _missing(_module: nn.Module, incompatible: Any) -> None:
    incompatible.missing_keys[:] = map(bare_name, incompatible.missing_keys)


def _rename(state: dict[str, Any], names: Mapping[str, str]) -> None:
    """Rename in place, and in order: others hold the same dictionary."""
    items = [(names.get(name, name), value) for name, value in state.items()]
    state.clear()
    state.update(items)
