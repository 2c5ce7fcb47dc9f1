"""Losses that a model adds to its own in training, by its configuration: an objective has no term for them."""

from __future__ import annotations

from typing import Any

from tutelage.errors import ParameterError
from tutelage.networks._kinds import kind_of
from tutelage.networks._wrappers import config_of, signature_of, unwrapped

_BALANCING = ("router_aux_loss_coef", "aux_loss_coef")
_SWITCH = "output_router_logits"


def check_own_losses(role: str, network: Any) -> None:
    """Raise `ParameterError` for a network that would add a loss of its own, if transformers trained it."""
    kind = kind_of(network)
    if kind is not None:
        # Inside all wrappers, a user's module around one network among them.
        network = kind.network
    while (inside := unwrapped(network)) is not None:
        network = inside
    whole = config_of(network)
    if whole is None:
        return
    config = whole.get_text_config()
    if getattr(config, _SWITCH, False) and _SWITCH in signature_of(network).parameters:
        for name in _BALANCING:
            if weight := getattr(config, name, None):
                raise ParameterError(
                    f"{role} is {type(network).__name__} with {_SWITCH}=True and {name}={weight:g}: transformers adds "
                    "that times the loss that balances its experts, and the objective has no term for it; expected "
                    f"{_SWITCH}=False in its configuration (model.config.{_SWITCH} = False), which trains without"
                )
    if weight := getattr(config, "z_loss_coefficient", None):
        raise ParameterError(
            f"{role} is {type(network).__name__} with z_loss_coefficient={weight:g}: transformers adds that times the "
            "squared log-normaliser of its logits, and the objective has no term for it; expected "
            "z_loss_coefficient=0 in its configuration"
        )
