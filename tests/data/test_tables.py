"""Tables: the same rows from every format, and what is wrong with one said by column and row."""

import csv

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from tutelage.data import UNLABELLED, table
from tutelage.data._parts import hold_out
from tutelage.errors import DamagedDataError, DataError

ROWS = 40
RANDOM = np.random.default_rng(7)
WIDTH, HEIGHT = RANDOM.normal(size=ROWS), RANDOM.integers(0, 9, size=ROWS)
KIND = np.array(["cat", "dog", "eel", "dog"] * 10)


def write_csv(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def plain(tmp_path):
    return write_csv(tmp_path / "pets.csv", ["width", "height", "kind"], zip(WIDTH, HEIGHT, KIND, strict=True))


def test_three_formats_are_one_table(plain, tmp_path):
    parquet.write_table(pa.table({"width": WIDTH, "height": HEIGHT, "kind": KIND}), tmp_path / "pets.parquet")
    np.savez(tmp_path / "pets.npz", width=WIDTH, height=HEIGHT, kind=KIND)
    first = table(plain, "kind")
    assert first.classes == ("cat", "dog", "eel")
    assert (first.shape, first.kind, first.features) == ((2,), "table", ("width", "height"))
    assert (len(first.train), len(first.test)) == (30, 10)
    for rows in (first.train, first.test):
        assert rows.inputs.dtype == torch.float32
        assert np.allclose(rows.inputs.numpy(), np.stack([WIDTH, HEIGHT], 1)[rows.index], rtol=1e-6)
        assert [first.classes[label] for label in rows.labels] == KIND[rows.index].tolist()
    for other in ("pets.parquet", "pets.npz"):
        data = table(tmp_path / other, "kind")
        assert data.digest() == first.digest()
        assert data.features == first.features
        assert torch.equal(data.test.index, first.test.index)
    np.savez(tmp_path / "matrix.npz", x=np.stack([WIDTH, HEIGHT], 1), kind=KIND)
    matrix = table(tmp_path / "matrix.npz", "kind")
    assert matrix.features == ("x[0]", "x[1]")
    assert matrix.digest() == first.digest()


def test_columns_that_are_chosen(plain):
    data = table(plain, "kind", features=["height"])
    assert data.features == ("height",)
    assert np.array_equal(data.train.inputs.numpy()[:, 0], HEIGHT[data.train.index])


def test_rows_without_a_label_are_for_the_student_alone(tmp_path):
    kinds = [name if i % 3 else "" for i, name in enumerate(KIND)]
    data = table(write_csv(tmp_path / "a.csv", ["x", "kind"], zip(WIDTH, kinds, strict=True)), "kind")
    unknown = {i for i, name in enumerate(kinds) if not name}
    assert unknown <= set(data.train.index.tolist())
    assert unknown.isdisjoint(data.fit.index.tolist() + data.labelled.index.tolist() + data.test.index.tolist())
    assert {int(i) for i, y in zip(data.train.index, data.train.labels, strict=True) if y == UNLABELLED} == unknown


def test_numbers_as_classes_are_in_their_order(tmp_path):
    numbers = [10, 9, None, 2] * 10
    parquet.write_table(pa.table({"x": WIDTH, "y": pa.array(numbers)}), tmp_path / "a.parquet")
    data = table(tmp_path / "a.parquet", "y", omit=[9])
    assert data.classes == ("2", "9", "10")
    assert data.omitted == (1,)
    assert set(data.train.labels.tolist()) == {UNLABELLED, 0, 2}


def test_a_test_table_of_its_own(plain, tmp_path, refused):
    own = write_csv(tmp_path / "test.csv", ["kind", "height", "width"], [["dog", 1, 2.5], ["cat", 3, 4.5]])
    data = table(plain, "kind", test=own)
    assert len(data.train) == ROWS
    assert data.test.inputs.tolist() == [[2.5, 1.0], [4.5, 3.0]]
    assert data.test.labels.tolist() == [1, 0]
    write_csv(own, ["kind", "height", "width"], [["dog", 1, 2.5], ["owl", 3, 4.5]])
    with refused(DataError, "test.csv: row 2 has the class 'owl'", "expected one of"):
        table(plain, "kind", test=own)
    write_csv(own, ["kind", "height"], [["dog", 1]])
    with refused(DataError, "test.csv has no column 'width'", "height"):
        table(plain, "kind", test=own)


BAD = [
    ("", DataError, "is empty", "expected a header and rows"),
    ("x,kind\n", DataError, "has no rows", "expected"),
    ("x,kind\n1,a\n2\n", DataError, "row 2 has 1 cells", "expected 2"),
    ("x,x,kind\n1,1,a\n", DataError, r"names \['x'\] more than once", "once"),
    ("x,kind\n1,a\nred,b\n", DataError, "column 'x' has 'red' in row 2", "encode the column"),
    ("x,kind\n1,a\n,b\n", DataError, "column 'x' has nothing in row 2", "fill the gap"),
    ("x,kind\n1,a\n nan,b\n", DataError, "column 'x' has nan in row 2", "fill the gap"),
    ("x,kind\n1,a\n1e60,b\n", DataError, "beyond float32", "rescale"),
    ("x,kind\n1,a\n2,a\n", DataError, "one class only, 'a'", "two classes or more"),
    ("x,kind\n1,\n2,\n", DataError, "no labelled row", "two classes or more"),
    ("x,kind\n1,a\n2,a\n3,b\n", DataError, "class 'b' has 1 row", "2 or more"),
    ("x,kinds\n1,a\n2,b\n", DataError, "no column 'kind'", "did you mean 'kinds'"),
    ("kind\na\nb\n", DataError, "no column beside the target", "expected columns"),
    ('x,kind\n1,"a\n', DamagedDataError, "cannot be read as CSV", "unexpected end"),
]


@pytest.mark.parametrize(("text", "error", "came", "remedy"), BAD, ids=[came for _, _, came, _ in BAD])
def test_what_is_wrong_is_said(tmp_path, refused, text, error, came, remedy):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with refused(error, came, remedy):
        table(path, "kind")


def test_files_that_are_no_tables(tmp_path, plain, refused):
    with refused(DataError, "not a file", "csv"):
        table(tmp_path / "none.csv", "kind")
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with refused(DataError, "a .xlsx file", r"\.parquet"):
        table(tmp_path / "a.xlsx", "kind")
    for name in ("a.parquet", "a.npz"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 not really")
        with refused(DamagedDataError, name, "cannot be read"):
            table(tmp_path / name, "kind")
    np.savez(tmp_path / "objects.npz", x=np.array([{}, 1], dtype=object), kind=KIND[:2])
    with refused(DamagedDataError, "without pickles", "plain arrays"):
        table(tmp_path / "objects.npz", "kind")
    np.savez(tmp_path / "cube.npz", x=np.zeros((2, 3, 3)), kind=KIND[:2])
    with refused(DataError, r"shape \(2, 3, 3\)", "flatten"):
        table(tmp_path / "cube.npz", "kind")
    np.savez(tmp_path / "uneven.npz", x=np.zeros(3), kind=KIND[:2])
    with refused(DataError, "different lengths", "one value per row"):
        table(tmp_path / "uneven.npz", "kind")
    (tmp_path / "latin.csv").write_bytes("x,kind\n1,é\n".encode("latin-1"))
    with refused(DamagedDataError, "latin.csv", "UTF-8"):
        table(tmp_path / "latin.csv", "kind")
    with refused(DataError, "target 'kind' stands among the features", "read it off"):
        table(plain, "kind", features=["width", "kind"])


@given(
    counts=st.lists(st.integers(2, 30), min_size=2, max_size=5),
    fraction=st.floats(0.05, 0.9),
    seed=st.integers(0, 10),
)
def test_holding_out_is_a_division_by_class(counts, fraction, seed):
    labels = torch.cat([torch.full((count,), c) for c, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    wanted = round(fraction * len(labels))
    train, test = hold_out(labels, wanted)
    assert sorted(train.tolist() + test.tolist()) == list(range(len(labels)))
    for c, count in enumerate(counts):
        share = int((labels[test] == c).sum())
        assert 1 <= share < count
        assert abs(share - fraction * count) < 2
    if all(1 <= fraction * count < count - 1 for count in counts):
        assert len(test) == wanted
