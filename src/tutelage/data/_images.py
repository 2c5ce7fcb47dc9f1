"""A folder of images, one folder per class, read when a row is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tutelage.data._parts import check_classes, divide, hold_out, sorted_names
from tutelage.data._rows import Data, Rows
from tutelage.errors import DamagedDataError, DataError, MissingPackageError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_GREY = ("1", "L")


def images(
    folder: Path,
    test: Path | None = None,
    test_fraction: float = 0.25,
    size: int | None = None,
    labeled: int | None = None,
    omit: Sequence[str | int] = (),
) -> Data:
    """Return a folder of images as data: values in [0, 1], one channel if all are grey and three otherwise.

    folder: one folder per class, images in it; names that begin with a dot are not looked at. test: such a folder with
    the same classes; without one, `test_fraction` is held out, from each class its share. size: height and width that
    every image is brought to; None if all have one size already. labeled, omit: as for `table`. Errors: `DataError`,
    `DamagedDataError`, `MissingPackageError`.
    """
    found = _by_class(folder)
    classes = sorted_names(set(found))
    held_out = None if test is None else _by_class(test)
    for name in held_out or {}:
        if name not in classes:
            raise DataError(f"{test} has the class {name!r}; expected the classes of {folder}: {list(classes)[:20]}")
    files, labels = _listed(found, classes)
    check_classes(classes, labels, str(folder))
    test_files, test_labels = _listed(held_out, classes) if held_out is not None else ([], labels[:0])
    shape, mode = _common_shape([*files, *test_files], size)
    source = _Files(files, shape, mode)
    if held_out is None:
        places, held = hold_out(labels, round(test_fraction * len(labels)))
        rows, test_rows = Rows(source, labels[places], places), Rows(source, labels[held], held)
    else:
        rows = Rows(source, labels, torch.arange(len(labels)))
        test_rows = Rows(_Files(test_files, shape, mode), test_labels, torch.arange(len(test_labels)))
    return divide(rows, test_rows, classes=classes, shape=shape, kind="image", labeled=labeled, omit=omit)


class _Files:
    """The images of a list of files as float32 (channels, height, width)."""

    def __init__(self, files: Sequence[Path], shape: tuple[int, int, int], mode: str) -> None:
        self.files, self.shape, self.mode = files, shape, mode

    def __getitem__(self, row: int) -> Tensor:
        pillow = _pillow()
        channels, height, width = self.shape
        try:
            with pillow.open(self.files[row]) as image:
                plain = image.convert(self.mode)
                if plain.size != (width, height):
                    plain = plain.resize((width, height), pillow.Resampling.BILINEAR)
                values = np.asarray(plain, dtype=np.float32) / 255
        except (OSError, SyntaxError, ValueError) as error:
            raise DamagedDataError(f"{self.files[row]} cannot be read as an image: {error}") from error
        pixels = torch.from_numpy(values).reshape(height, width, channels)
        return pixels.permute(2, 0, 1).contiguous()


def _by_class(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; expected one with a folder of images per class")
    found: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            raise DataError(f"{entry} lies beside the folders of the classes; expected folders only: move it away")
        found[entry.name] = sorted(file for file in entry.iterdir() if not file.name.startswith("."))
        for file in found[entry.name]:
            if file.suffix.lower() not in SUFFIXES:
                raise DataError(f"{file} is no image; expected {', '.join(SUFFIXES)}: move it away")
        if not found[entry.name]:
            raise DataError(f"{entry} has no images; expected some, or no such folder")
    if not found:
        raise DataError(f"{folder} is empty; expected a folder of images per class")
    return found


def _listed(found: dict[str, list[Path]], classes: tuple[str, ...]) -> tuple[list[Path], Tensor]:
    pairs = [(file, classes.index(name)) for name in classes for file in found.get(name, [])]
    return [file for file, _ in pairs], torch.tensor([label for _, label in pairs], dtype=torch.int64)


def _common_shape(files: Sequence[Path], size: int | None) -> tuple[tuple[int, int, int], str]:
    """Return the shape and colour mode that all files are read with, from their headers."""
    pillow = _pillow()
    grey, first = True, (0, 0)
    for place, file in enumerate(files):
        try:
            with pillow.open(file) as image:
                grey = grey and image.mode in _GREY
                found = image.size
        except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
            raise DamagedDataError(f"{file} cannot be read as an image: {error}") from error
        first = found if place == 0 else first
        if size is None and found != first:
            raise DataError(
                f"{file} is {found[0]} x {found[1]} pixels and {files[0]} {first[0]} x {first[1]}; give `size` to "
                "bring all to one"
            )
    width, height = first if size is None else (size, size)
    return ((1, height, width), "L") if grey else ((3, height, width), "RGB")


def _pillow() -> Any:
    try:
        return importlib.import_module("PIL.Image")
    except ModuleNotFoundError as error:
        raise MissingPackageError("reading images takes Pillow, which is not installed: pip install pillow") from error
