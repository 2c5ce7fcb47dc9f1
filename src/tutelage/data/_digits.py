"""scikit-learn's bundled scans of handwritten digits: 1,797 images of 8 x 8, 1,200 to train on and 597 held out."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tutelage.data._parts import divide, hold_out
from tutelage.data._rows import Data, Rows
from tutelage.packages import importing

TEST_ROWS = 597


def digits(labeled: int | None = None, omit: Sequence[int] = ()) -> Data:
    """Return the digits, grey values in [0, 1].

    labeled: how many training images keep their label for the student and its baseline, balanced by class; None for
    all. omit: digits of which the student sees no image. Errors: `DataError`, `MissingPackageError`.
    """
    with importing("the data set of digits", "tutelage[demo]"):
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).to(torch.float32).div_(16).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    train, test = hold_out(labels, TEST_ROWS)
    return divide(
        Rows(images, labels[train], train),
        Rows(images, labels[test], test),
        classes=tuple(str(digit) for digit in range(10)),
        shape=(1, 8, 8),
        kind="image",
        labeled=labeled,
        omit=omit,
    )
