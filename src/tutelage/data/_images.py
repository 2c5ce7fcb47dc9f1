"""A folder of images, one folder per class, read when a row is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tutelage.data._find import SPLITS
from tutelage.data._labels import MARKS, UNLABELLED, spelled
from tutelage.data._parts import check_classes, divide, hold_out, sorted_names
from tutelage.data._pixels import read_header, read_pixels
from tutelage.data._rows import Data, Rows
from tutelage.data._text_tokens import log
from tutelage.errors import DataError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def images(
    folder: Path,
    test: Path | None = None,
    test_fraction: float = 0.25,
    size: int | None = None,
    labeled: int | None = None,
    omit: Sequence[str | int] = (),
) -> Data:
    """Return a folder of images as data: values in [0, 1], one channel if all are grey and three otherwise.

    Images of 8 and of 16 bits a channel have the same range. They are turned upright as their metadata says, and
    transparent pixels are shown on white, which is logged.

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
    shape = _common_shape([*files, *test_files], size)
    source = _Files(files, shape, resizes=size is not None)
    if held_out is None:
        places, held = hold_out(labels, round(test_fraction * len(labels)))
        rows, test_rows = Rows(source, labels[places], places), Rows(source, labels[held], held)
    else:
        rows = Rows(source, labels, torch.arange(len(labels)))
        test_rows = Rows(
            _Files(test_files, shape, resizes=size is not None), test_labels, torch.arange(len(test_labels))
        )
    return divide(rows, test_rows, classes=classes, shape=shape, kind="image", labeled=labeled, omit=omit)


class _Files:
    """The images of a list of files as float32 (channels, height, width)."""

    def __init__(self, files: Sequence[Path], shape: tuple[int, int, int], *, resizes: bool) -> None:
        self.files, self.shape, self.resizes = files, shape, resizes

    def __getitem__(self, row: int) -> Tensor:
        channels, height, width = self.shape
        pixels = read_pixels(self.files[row], channels, (width, height), resizes=self.resizes)
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _by_class(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; expected one with a folder of images per class")
    names = [entry.name for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    if names and {name.lower() for name in names} <= {"train", "training", *SPLITS}:
        raise DataError(
            f"{folder} holds the folders {names}, which are splits; expected a folder per class: name one split as "
            "`images` and another as `test`"
        )
    found: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            raise DataError(f"{entry} lies beside the folders of the classes; expected folders only: move it away")
        if spelled(entry.name) in (UNLABELLED, *MARKS):
            raise DataError(
                f"{entry} has the name {entry.name!r}, which commonly means a missing label; images need a class each: "
                "rename the folder, or move it away"
            )
        found[entry.name] = sorted(file for file in entry.iterdir() if not file.name.startswith("."))
        for file in found[entry.name]:
            if file.suffix.lower() not in SUFFIXES or not file.is_file():
                raise DataError(f"{file} is no image; expected {', '.join(SUFFIXES)}: move it away")
        if not found[entry.name]:
            raise DataError(f"{entry} has no images; expected some, or no such folder")
    if not found:
        raise DataError(f"{folder} is empty; expected a folder of images per class")
    return found


def _listed(found: dict[str, list[Path]], classes: tuple[str, ...]) -> tuple[list[Path], Tensor]:
    pairs = [(file, classes.index(name)) for name in classes for file in found.get(name, [])]
    return [file for file, _ in pairs], torch.tensor([label for _, label in pairs], dtype=torch.int64)


def _common_shape(files: Sequence[Path], size: int | None) -> tuple[int, int, int]:
    """Return the shape that all files are read with, from their headers."""
    headers = [read_header(file) for file in files]
    first = headers[0]
    for file, found in zip(files, headers, strict=True):
        if size is None and (found.width, found.height) != (first.width, first.height):
            raise DataError(
                f"{file} is {found.width} x {found.height} pixels and {files[0]} {first.width} x {first.height}; give "
                "`size` to bring all to one"
            )
    transparent = sum(found.transparent for found in headers)
    if transparent:
        log.warning("%d of %d images can be transparent; such pixels are shown on white", transparent, len(files))
    height, width = (first.height, first.width) if size is None else (size, size)
    return (1 if all(found.grey for found in headers) else 3, height, width)
