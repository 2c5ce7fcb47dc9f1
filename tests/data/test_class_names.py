"""Labels: one rule for all files of what a class is called, and of what means that a row has none."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from tutelage.data import UNLABELLED, class_names, images, labelled_texts, read_rows, table, train_tokenizer
from tutelage.data._labels import MARKS, class_name, class_names_of
from tutelage.errors import DataError

NAN = float("nan")


def text_of(label):
    """Return a label as pandas writes it into a CSV."""
    return "" if label is None or label != label else str(label)


def write_table(path, labels):
    """Write a table of these labels beside a feature, as what the suffix says."""
    x = [math.sin(i) for i in range(len(labels))]
    if path.suffix in (".csv", ".tsv"):
        sign = "\t" if path.suffix == ".tsv" else ","
        lines = [f"{value}{sign}{text_of(label)}\n" for value, label in zip(x, labels, strict=True)]
        path.write_text(f"x{sign}kind\n" + "".join(lines))
    elif path.suffix == ".parquet":
        parquet.write_table(pa.table({"x": x, "kind": pa.array(labels, from_pandas=False)}), path)
    else:
        np.savez(path, x=np.array(x), kind=np.array(labels))
    return path


def write_texts(path, labels):
    """Write texts with these labels, as what the suffix says."""
    rows = [{"text": f"while {i}", "label": label} for i, label in enumerate(labels)]
    if path.suffix in (".jsonl", ".ndjson"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1))
    elif path.suffix == ".parquet":
        parquet.write_table(pa.table({"text": [r["text"] for r in rows], "label": pa.array(labels)}), path)
    else:
        sign = "\t" if path.suffix == ".tsv" else ","
        path.write_text(f"text{sign}label\n" + "".join(f"{r['text']}{sign}{text_of(r['label'])}\n" for r in rows))
    return path


TABLES = (".csv", ".tsv", ".parquet", ".npz")
TEXTS = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv")


@pytest.fixture(scope="module")
def encoder():
    return train_tokenizer(["while " * 40], 262, for_encoder=True)


# Labels of two classes in turns, and the number of rows without one.
KINDS = {
    "text": (["a", "b"] * 6, ("a", "b"), 0),
    "numbers": ([10, 9] * 6, ("9", "10"), 0),
    "floats": ([1.0, 0.0] * 6, ("0", "1"), 0),
    "booleans": ([True, False] * 6, ("False", "True"), 0),
    "gaps in floats": ([1.0, 0.0, NAN] * 4, ("0", "1"), 4),
    "the mark of PyTorch": ([1, 0, -100] * 4, ("0", "1"), 4),
    "and as floats": ([1.0, 0.0, -100.0] * 4, ("0", "1"), 4),
}


@pytest.mark.parametrize("suffix", TABLES)
@pytest.mark.parametrize("kind", KINDS)
def test_tables_of_all_formats_have_the_same_classes(tmp_path, kind, suffix):
    labels, classes, missing = KINDS[kind]
    data = table(write_table(tmp_path / f"rows{suffix}", labels), "kind")
    assert data.classes == classes
    assert int((data.train.labels == UNLABELLED).sum()) == missing
    assert [data.classes[y] for y in data.fit.labels] == [class_name(labels[i]) for i in data.fit.index.tolist()]


@pytest.mark.parametrize("suffix", TEXTS)
@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_all_formats_have_the_same_classes(tmp_path, encoder, kind, suffix):
    labels, classes, missing = KINDS[kind]
    rows = read_rows(write_texts(tmp_path / f"rows{suffix}", labels))
    data = labelled_texts(rows, [row for row in rows if class_name(row["label"]) is not None], encoder, 16)
    assert data.classes == classes
    assert int((data.train.labels == UNLABELLED).sum()) == missing


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_null_is_a_missing_label(tmp_path, encoder, suffix):
    for labels in (["a", None, "b"] * 4, [1, None, 0] * 4):
        data = table(write_table(tmp_path / f"rows{suffix}", labels), "kind")
        assert int((data.train.labels == UNLABELLED).sum()) == 4
        rows = read_rows(write_texts(tmp_path / f"texts{suffix}", labels))
        assert len(class_names(rows)) == 2


@pytest.mark.parametrize("train", TABLES)
@pytest.mark.parametrize("test", TABLES)
def test_a_class_is_the_same_in_training_and_test_files(tmp_path, train, test):
    """Whole numbers and floats, booleans and how they are spelled."""
    for ours, theirs in (([1, 0] * 3, [1.0, 0.0, 1.0]), (["TRUE", "false"] * 3, [True, False, True])):
        first = write_table(tmp_path / f"train{train}", ours)
        data = table(first, "kind", test=write_table(tmp_path / f"test{test}", theirs))
        assert data.test.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize("mark", MARKS)
def test_marks_of_missing_labels_are_no_classes(tmp_path, encoder, refused, mark):
    labels = ["a", "b", mark] * 4
    asked = r"missing: \[" + (mark if mark == "-1" else f"'{mark}'")
    file = write_table(tmp_path / "rows.csv", labels)
    with refused(DataError, f"row 3 has the label {mark}", asked):
        table(file, "kind")
    data = table(file, "kind", missing=[mark])
    assert data.classes == ("a", "b")
    assert int((data.train.labels == UNLABELLED).sum()) == 4
    assert len(table(file, "kind", missing=[]).classes) == 3
    rows = [{"text": f"while {i}", "label": label} for i, label in enumerate(labels)]
    with refused(DataError, f"row 3 has the label {mark}", asked):
        labelled_texts(rows, rows[:2], encoder, 16)
    assert labelled_texts(rows, rows[:2], encoder, 16, missing=[mark]).classes == ("a", "b")


@pytest.mark.parametrize("suffix", TABLES)
def test_minus_one_is_never_a_class_unasked(tmp_path, refused, suffix):
    for labels in ([-1, 1] * 4, [-1.0, 0.0, 1.0] * 4, ["-1", "1"] * 4):
        file = write_table(tmp_path / f"rows{suffix}", labels)
        with refused(DataError, "has the label -1", r"missing: \[\]"):
            table(file, "kind")
        assert table(file, "kind", missing=[]).classes[0] == "-1"
        if len(set(labels)) == 3:
            assert table(file, "kind", missing=[-1]).classes == ("0", "1")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64", "int8", "int64", "float16", "float32"])
@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_no_value_of_an_unsigned_type_means_no_label(tmp_path, dtype, suffix):
    """What -100 and -1 become in such a type is a class like any other."""
    unsigned = dtype.startswith("u")
    wrapped = [int(np.array(-number).astype("int64").astype(dtype)) for number in (100, 1)] if unsigned else [7, 9]
    labels = np.array([*wrapped, 3] * 4, dtype=dtype)
    file = tmp_path / f"rows{suffix}"
    if suffix == ".npz":
        np.savez(file, x=np.arange(12.0), kind=labels)
    else:
        parquet.write_table(pa.table({"x": np.arange(12.0), "kind": labels}), file)
    data = table(file, "kind")
    assert data.classes == tuple(str(name) for name in sorted([*wrapped, 3]))
    assert not (data.train.labels == UNLABELLED).any()


@pytest.mark.parametrize(
    ("label", "came"),
    [
        (0.5, "0.5, and regression is not supported"),
        ("2.50", "2.50, and regression is not supported"),
        (math.inf, "inf, and regression is not supported"),
        ([1, 2], r"\[1, 2\], and rows with several labels"),
        ({"a": 1}, "rows with several labels"),
        (b"\xff", "not text in UTF-8"),
        (object(), "an? object"),
    ],
)
def test_what_no_class_is_called(refused, label, came):
    with refused(DataError, f"f.csv: row 2 has the class .*{came}", "expected text, a whole number, or null"):
        class_names_of(["a", label], "f.csv")


@pytest.mark.parametrize("suffix", TABLES)
def test_fractions_are_classes_where_that_is_asked_for(tmp_path, refused, suffix):
    file = write_table(tmp_path / f"rows{suffix}", [1.5, 2.0, 0.5] * 4)
    with refused(DataError, "row 1 has the class 1.5", r"`missing: \[\]` makes every number a class"):
        table(file, "kind")
    assert table(file, "kind", missing=[]).classes == ("0.5", "1.5", "2")
    assert table(file, "kind", missing=["0.5"]).classes == ("1.5", "2")


def test_one_way_to_write_a_boolean(refused):
    with refused(DataError, "labels True and 1", "expected one way"):
        class_names_of([True, False, 1], "f.jsonl")
    with refused(DataError, r"missing has \[1\]", "whole numbers"):
        class_names_of(["a"], "f.jsonl", missing=[[1]])


def test_names_that_only_look_like_marks_are_classes():
    names = ["none", "NONE", "unknown", "na", "-2", "01", "+1", "1e5", "v2.5", "3.11.0", "-100a"]
    assert class_names_of(names, "f") == names
    assert class_names_of(["-0.0", "007", "1.", "10.00", -0.0], "f") == ["0", "007", "1", "10", "0"]
    numbers = [
        np.int64(1),
        np.uint8(255),
        np.float32(2),
        np.longdouble(3),
        np.bool_(True),
        np.str_("a"),
        np.float16(NAN),
    ]
    assert [class_name(number) for number in numbers] == ["1", "255", "2", "3", "True", "a", None]


@pytest.mark.parametrize("name", ["-100", "-1", "NaN", "null"])
def test_a_folder_of_images_without_label_is_refused(tmp_path, refused, name):
    for folder in ("y", "z", name):
        (tmp_path / folder).mkdir()
    with refused(DataError, f"'{name}', which commonly means a missing label", "rename the folder"):
        images(tmp_path)
