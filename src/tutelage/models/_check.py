"""The folder of a model that tutelage saved is checked before it is used; one without a manifest is taken as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tutelage.errors import DamagedDataError
from tutelage.manifest import MANIFEST, finish_swap, has_manifest, verify


def check_saved(folder: Path, only: Callable[[str], bool] | None = None) -> None:
    """Raise `DamagedDataError` if a file of a saved model is not as it was written.

    only: which of its files are about to be read; all of them unless given.
    """
    finish_swap(folder)
    if not has_manifest(folder):
        return
    try:
        verify(folder, "the model", only)
    except DamagedDataError as error:
        raise DamagedDataError(
            f"{error}. Train it again, or copy it again from where it is whole; if it was changed on purpose, remove "
            f"{folder / MANIFEST}"
        ) from error
