"""Which checkpoints of a folder can be gone on from."""

from __future__ import annotations

import json
import re
from pathlib import Path

# What the Trainer writes last: once it can be read, all else is there.
_WRITTEN_LAST = "trainer_state.json"


def is_complete(folder: Path) -> bool:
    """Return whether a checkpoint was written to its end."""
    try:
        state = json.loads((folder / _WRITTEN_LAST).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(state, dict) and "global_step" in state


def last_checkpoint(folder: str | Path) -> Path | None:
    """Return the newest complete checkpoint in a folder, or None. One that a crash left half-written does not count."""
    found = {}
    if Path(folder).is_dir():
        for place in Path(folder).iterdir():
            named = re.fullmatch(r"checkpoint-(\d+)", place.name)
            if named is not None and is_complete(place):
                found[int(named.group(1))] = place
    return found[max(found)] if found else None
