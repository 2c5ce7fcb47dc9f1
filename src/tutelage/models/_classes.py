"""The classes that a saved classifier of texts knows, read from its configuration alone."""

from __future__ import annotations

import os

from tutelage.errors import ModelError
from tutelage.models._optional import optional
from tutelage.models._snapshot import CONFIG, fetch


def saved_classes(model: str | os.PathLike[str], *, revision: str | None = None) -> tuple[str, ...] | None:
    """Return the names of a classifier's classes in the order of its logits, None for a model without such a head.

    model, revision: as `load_pretrained` has them; no weights are fetched. Errors: `ModelError`, `DamagedDataError`,
    `MissingPackageError`.
    """
    transformers = optional("transformers", f"the model {str(model)!r}", "tutelage[train]")
    snapshot = fetch(model, revision, (CONFIG,))
    if not (snapshot.folder / CONFIG).is_file():
        raise ModelError(f"{snapshot.name} holds no {CONFIG}; expected a model that transformers saved")
    settings = snapshot.json(CONFIG)
    snapshot.check_settings(CONFIG)
    if not any("Classification" in str(name) for name in settings.get("architectures") or ()):
        return None
    try:
        config = transformers.AutoConfig.from_pretrained(
            snapshot.folder, local_files_only=True, trust_remote_code=False
        )
        return tuple(str(config.id2label[place]) for place in range(len(config.id2label)))
    except Exception as error:  # of all kinds: a configuration is checked by whoever first stumbles over it
        raise ModelError(
            f"{snapshot.name}: {CONFIG} cannot be read ({type(error).__name__}: {error}); expected one that "
            "transformers knows, with its classes numbered from 0 in id2label"
        ) from error
