"""The digits: which images are whose, and that no one sees what is not theirs."""

import hashlib

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from tutelage.data import UNLABELLED, digits
from tutelage.errors import DataError


@pytest.fixture(scope="module")
def raw():
    return load_digits()


def test_the_rows_are_scikit_learns(raw):
    data = digits()
    assert (len(data.train), len(data.fit), len(data.labelled), len(data.test)) == (1200, 1200, 1200, 597)
    assert data.classes == tuple("0123456789")
    assert (data.shape, data.kind) == ((1, 8, 8), "image")
    for rows in (data.train, data.test):
        row = rows[17]
        assert row["inputs"].dtype == torch.float32
        assert np.array_equal(row["inputs"].numpy()[0] * 16, raw.images[row["index"]])
        assert row["labels"] == raw.target[row["index"]]
        assert torch.equal(rows.inputs[17], row["inputs"])
        assert torch.equal(torch.cat(list(rows.batches(100))), rows.inputs)


def test_what_is_held_out_is_held_out_for_all_and_for_ever(raw):
    data = digits(labeled=100, omit=[3])
    seen = set(data.train.index.tolist()) | set(data.fit.index.tolist())
    held = data.test.index.tolist()
    assert seen.isdisjoint(held)
    assert len(seen) + len(held) == 1797
    # Written out for one digit: the figures in the docs are of these very rows, another order is another test set.
    threes = np.flatnonzero(raw.target == 3).tolist()
    threes.sort(key=lambda row: hashlib.sha256(f"hold out:{row}".encode()).digest())
    of_threes = [row for row in held if raw.target[row] == 3]
    assert sorted(threes[: len(of_threes)]) == of_threes
    assert digits().test.index.tolist() == held
    counts, whole = np.bincount(raw.target[held]), np.bincount(raw.target)
    assert np.abs(counts - whole * 597 / 1797).max() < 1


def test_labels_that_the_student_is_told(raw):
    data = digits(labeled=100)
    assert len(data.train) == 1200
    assert torch.bincount(data.labelled.labels).tolist() == [10] * 10
    told = data.train.labels != UNLABELLED
    assert torch.equal(data.train.index[told], data.labelled.index)
    assert np.array_equal(data.labelled.labels.numpy(), raw.target[data.labelled.index])
    assert np.array_equal(data.fit.labels.numpy(), raw.target[data.fit.index])
    uneven = torch.bincount(digits(labeled=103).labelled.labels)
    assert uneven.sum() == 103
    assert uneven.max() - uneven.min() == 1
    # More labels are these labels and others, so that a curve over their number is one of nested sets.
    assert set(data.labelled.index.tolist()) < set(digits(labeled=200).labelled.index.tolist())


def test_an_omitted_digit_is_nowhere_in_the_transfer_set(raw):
    data = digits(omit=[3])
    assert data.omitted == (3,)
    assert 3 not in raw.target[data.train.index]
    assert len(data.train) == 1200 - int((raw.target[data.fit.index] == 3).sum())
    assert 3 in data.fit.labels
    assert 3 in data.test.labels
    assert (
        torch.bincount(digits(labeled=90, omit=[3]).labelled.labels, minlength=10).tolist() == [10] * 3 + [0] + [10] * 6
    )


def test_what_cannot_be(refused):
    with refused(DataError, "labeled: 5 leaves some of the 10 classes", "raise it"):
        digits(labeled=5)
    with refused(DataError, r"labeled: 5000 wants 500 labelled rows", "set it to 11[0-9]0 or less"):
        digits(labeled=5000)
    with refused(DataError, "omit names the class 11", r"the classes are|did you mean"):
        digits(omit=[11])
    with refused(DataError, "leaves no labelled row", "the classes are"):
        digits(omit=range(10))


def test_a_digest_is_of_what_a_teacher_learns_from():
    assert digits().digest() == digits(labeled=100, omit=[3]).digest()
    data = digits()
    data.fit.source[int(data.fit.index[5]), 0, 4, 4] += 1e-3
    assert data.digest() != digits().digest()
