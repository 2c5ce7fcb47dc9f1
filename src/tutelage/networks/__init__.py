"""What a network is, whatever it is wrapped in: asked here by recipes and by the trainer alike."""

from __future__ import annotations

from tutelage.networks._bare_names import bare_state, keep_bare_names
from tutelage.networks._classes import (
    are_named,
    are_placeholders,
    check_exclusive,
    check_outputs,
    class_names,
    class_places,
)
from tutelage.networks._columns import LIKE_LABELS, reads
from tutelage.networks._kinds import Kind, kind_of
from tutelage.networks._modes import check_mode
from tutelage.networks._own_losses import check_own_losses
from tutelage.networks._wrappers import config_of, is_compiled, signature_of, unwrapped

__all__ = [
    "LIKE_LABELS",
    "Kind",
    "are_named",
    "are_placeholders",
    "bare_state",
    "check_exclusive",
    "check_mode",
    "check_outputs",
    "check_own_losses",
    "class_names",
    "class_places",
    "config_of",
    "is_compiled",
    "keep_bare_names",
    "kind_of",
    "reads",
    "signature_of",
    "unwrapped",
]
