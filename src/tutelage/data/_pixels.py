"""The pixels of an image file as numbers in [0, 1], upright, whatever its mode."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.errors import DamagedDataError, DataError, TutelageError
from tutelage.packages import importing

_GREY = ("1", "L")
_DEEP = ("I;16", "I;16B", "I;16L", "I;16N")
_COLOURS = ("CMYK", "P", "RGB", "RGBX", "YCbCr")
_TRANSPARENT = ("LA", "PA", "RGBA", "RGBa")
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Header:
    """What an image file says before its pixels: the size as it is shown, and how pixels are written."""

    width: int
    height: int
    grey: bool
    transparent: bool


def read_header(file: Path) -> Header:
    """Return the header of an image. Errors: `DamagedDataError`; `DataError` for pixels without a known range."""
    with _opened(file) as image:
        deep = _is_deep(image)
        if not deep and image.mode not in (*_GREY, *_COLOURS, *_TRANSPARENT):
            raise DataError(
                f"{file} has pixels of the kind {image.mode!r}, whose range is not known; expected 8 or 16 bits a "
                "channel, grey or in colour: convert it"
            )
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # photographs with a preview
            raise DataError(f"{file} has {image.n_frames} images; expected one: save each in a file of its own")
        width, height = image.size
        if image.format != "TIFF" and _orientation(image) >= 5:  # the size of a TIFF is that of the upright image
            width, height = height, width
        transparent = image.mode in _TRANSPARENT or "transparency" in image.info
        return Header(width, height, deep or image.mode in _GREY, transparent)


def read_pixels(file: Path, channels: int, size: tuple[int, int], *, resizes: bool) -> np.ndarray:
    """Return an image as float32 (height, width, channels) in [0, 1], brought to this (width, height).

    resizes: whether it may have another size; else that is an error, as the file has changed since it was listed.
    16 bits are scaled to the same range as 8. Transparent pixels are shown on white. Errors: `DamagedDataError`.
    """
    pillow = _pillow("PIL.Image")
    with _opened(file) as image:
        upright = _pillow("PIL.ImageOps").exif_transpose(image)
        if _is_deep(image):
            exact = np.asarray(upright).astype(np.float32)
            plain, most = pillow.fromarray(exact), 65535
        else:
            plain, most = _on_white(upright).convert("L" if channels == 1 else "RGB"), 255
        if plain.size != size and not resizes:
            raise DamagedDataError(
                f"{file} is {plain.size[0]} x {plain.size[1]} pixels; expected {size[0]} x {size[1]}"
            )
        if plain.size != size:
            plain = plain.resize(size, pillow.Resampling.BILINEAR)
        values = np.asarray(plain, dtype=np.float32) / most
    pixels = values.reshape(size[1], size[0], -1)
    return pixels if pixels.shape[2] == channels else np.repeat(pixels, channels, axis=2)


def _on_white(image: Any) -> Any:
    if image.mode not in _TRANSPARENT and "transparency" not in image.info:
        return image
    over = image.convert("RGBA")
    return _pillow("PIL.Image").alpha_composite(_pillow("PIL.Image").new("RGBA", over.size, "white"), over)


def _is_deep(image: Any) -> bool:
    """Return whether an image has 16 bits of grey; older versions of Pillow open such a PNG as 32 bits."""
    return image.mode in _DEEP or (image.mode == "I" and image.format == "PNG")


def _orientation(image: Any) -> int:
    # A PNG whose header has none would be decoded to look for one after its pixels.
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & set(image.info):
        return 1
    return int(image.getexif().get(_ORIENTATION, 1))


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Open an image; what cannot be read in here is a `DamagedDataError`."""
    pillow = _pillow("PIL.Image")
    try:
        # By its name Pillow maps a TIFF into memory, and scrambles it if it is to be turned.
        with file.open("rb") as opened, pillow.open(opened) as image:
            yield image
    except TutelageError:
        raise
    except Exception as error:  # decoders raise what they like
        raise DamagedDataError(f"{file} cannot be read as an image: {error}") from error


def _pillow(module: str) -> Any:
    with importing("reading images", "pillow"):
        return importlib.import_module(module)
