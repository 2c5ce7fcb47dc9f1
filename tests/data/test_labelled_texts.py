"""Texts with a class each: their ids are the tokenizer's own, and who is held out is decided by the text alone."""

import keyword
import logging

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from tutelage.data import class_names, labelled_texts, read_rows, split_labelled, train_tokenizer
from tutelage.errors import DataError, ParameterError

WORDS = [*keyword.kwlist]


@pytest.fixture(scope="module")
def encoder():
    return train_tokenizer([" ".join(WORDS)] * 3, 300, for_encoder=True)


def rows_of(count, **common):
    """Return rows of different texts, their classes 'even' and 'odd' in turns."""
    return [{"text": f"{WORDS[i % len(WORDS)]} {i}", "label": ("even", "odd")[i % 2], **common} for i in range(count)]


def test_ids_are_the_tokenizers_own_and_cut_as_it_cuts(encoder, caplog):
    rows = [*rows_of(6), {"text": " ".join(WORDS) * 3, "label": "odd"}]
    with caplog.at_level(logging.WARNING, "tutelage.data"):
        data = labelled_texts(rows, rows[:2], encoder, 16)
    assert "1 of 9 texts are longer than 16 tokens" in caplog.text
    for row, made in zip(rows, data.train, strict=True):
        assert made["input_ids"].tolist() == encoder(row["text"], truncation=True, max_length=16)["input_ids"]
        assert data.classes[made["labels"]] == row["label"]
    assert len(data.train[6]["input_ids"]) == 16
    assert data.train[6]["input_ids"][-1] == encoder.sep_token_id
    assert data.train.texts == [row["text"] for row in rows]
    assert [row["index"] for row in data.test] == [7, 8]


def test_pairs_have_token_types(encoder):
    rows = [{**row, "text_pair": f"while {i}"} for i, row in enumerate(rows_of(4))]
    data = labelled_texts(rows, rows, encoder, 32)
    for row, made in zip(rows, data.train, strict=True):
        expected = encoder(row["text"], row["text_pair"], return_token_type_ids=True)
        assert made["input_ids"].tolist() == expected["input_ids"]
        assert made["token_type_ids"].tolist() == expected["token_type_ids"]
        assert 1 in expected["token_type_ids"]
    assert data.train.texts[1] == f"{WORDS[1]} 1\nwhile 1"
    with pytest.raises(DataError, match="some have none"):
        labelled_texts([*rows, {"text": "a", "label": "odd"}], rows, encoder, 32)


def test_labels_of_all_kinds(encoder, tmp_path):
    rows = rows_of(8)
    rows[3]["label"] = None
    del rows[4]["label"]
    data = labelled_texts(rows, rows[:2], encoder, 16)
    assert data.classes == ("even", "odd")
    assert data.train.labels.tolist() == [0, 1, 0, -100, -100, 1, 0, 1]
    assert (len(data.train), len(data.labelled), len(data.fit), len(data.test)) == (8, 6, 6, 2)
    numbers = [{"text": f"while {i}", "label": label} for i, label in enumerate([10, 2, 2.0, float("nan"), 9])]
    assert class_names(numbers) == ("2", "9", "10")
    assert labelled_texts(numbers, numbers[:1], encoder, 16).train.labels.tolist() == [2, 0, 0, -100, 1]
    assert class_names([{"label": True}, {"label": False}]) == ("False", "True")
    # Whole numbers beside a gap come out of a Parquet file as floats.
    parquet.write_table(pa.table({"text": ["a", "b", "c"], "label": [1, None, 0]}), tmp_path / "rows.parquet")
    assert class_names(read_rows(tmp_path / "rows.parquet")) == ("0", "1")


def test_numbers_count_along_classes_that_are_given(encoder):
    rows = [{"text": f"while {i}", "label": label} for i, label in enumerate([0, 1, "good", 1])]
    data = labelled_texts(rows, rows[:1], encoder, 16, classes=("bad", "good"))
    assert data.train.labels.tolist() == [0, 1, 1, 1]
    # Where classes are numbers themselves, 0 is no place among them.
    with pytest.raises(DataError, match="row 1 has the class '0'"):
        labelled_texts(rows[:2], rows[:1], encoder, 16, classes=("1", "2"))


def test_labels_are_kept_by_class(encoder):
    data = labelled_texts(rows_of(40), rows_of(4), encoder, 16, labeled=6)
    assert data.train.labels[data.train.labels != -100].bincount().tolist() == [3, 3]
    assert (len(data.train), len(data.labelled), len(data.fit)) == (40, 6, 40)


def test_who_is_held_out_is_told_by_the_text():
    rows = rows_of(200)
    train, test = split_labelled(rows, 0.2)
    assert 20 < len(test) < 60
    assert len(train) + len(test) == 200
    again, held = split_labelled([*reversed(rows), *rows[:50]], 0.2)
    texts = {row["text"] for row in test}
    assert {row["text"] for row in held} == texts
    assert not texts & {row["text"] for row in again}
    # A held-out text is not learned from a teacher either.
    unlabelled = [{"text": row["text"], "label": None} for row in rows]
    train, same = split_labelled([*rows, *unlabelled], 0.2)
    assert [row["text"] for row in same] == [row["text"] for row in test]
    assert not texts & {row["text"] for row in train}
    # Only rows with a label can be scored by.
    mixed = [{**row, "label": None} if i % 2 else row for i, row in enumerate(rows)]
    assert all(row["label"] is not None for row in split_labelled(mixed, 0.2)[1])


def test_a_digest_tells_what_changes_what_is_learned(encoder):
    rows, test = rows_of(8), rows_of(2)

    def digest(rows, **changes):
        return labelled_texts(rows, test, encoder, **{"length": 16, **changes}).digest()

    first = digest(rows)
    assert first == digest(rows_of(8))
    assert first != digest(rows, length=17)
    assert first != digest([*rows[:-1], {**rows[-1], "label": "even"}])
    assert first != digest([*rows[:-1], {**rows[-1], "text": "while x"}])
    assert first != digest(rows, classes=("odd", "even"))


def test_an_empty_text_is_a_row_where_there_are_marks(encoder):
    rows = [*rows_of(4), {"text": "", "label": "odd"}]
    assert len(labelled_texts(rows, rows, encoder, 16).train) == 5
    bare = train_tokenizer([" ".join(WORDS)] * 3, 300)
    data = labelled_texts(rows, rows, bare, 16)
    assert (len(data.train), len(data.test)) == (4, 4)
    assert torch.equal(data.test.index, torch.tensor([5, 6, 7, 8]))


def test_bad_rows_are_named(encoder, refused):
    rows = rows_of(4)
    with refused(DataError, "the texts, row 1 has no 'text'", "expected one"):
        labelled_texts([{"body": "a", "label": "odd"}], rows, encoder, 16)
    with refused(DataError, "no row of the texts has 'sentiment'", r"\['label', 'text'\]: name one"):
        labelled_texts(rows, rows, encoder, 16, target="sentiment")
    with refused(DataError, "row 2 has the class 0.5", "a whole number"):
        labelled_texts([rows[0], {"text": "a", "label": 0.5}], rows, encoder, 16)
    with refused(DataError, "the test, row 1 has the class 'new'", r"expected one of \['even', 'odd'\]"):
        labelled_texts(rows, [{"text": "a", "label": "new"}], encoder, 16)
    with refused(DataError, "the test, row 2 has no label", "expected one for each row"):
        labelled_texts(rows, [rows[0], {"text": "a", "label": None}], encoder, 16)
    with refused(DataError, "one class only, 'even'", "two classes or more"):
        labelled_texts(rows[:1], rows[:1], encoder, 16)
    with refused(DataError, "no training row has a label", "expected some"):
        labelled_texts([{"text": "a", "label": None}], rows, encoder, 16, classes=("even", "odd"))
    with refused(DataError, "'text_pair' is int", "expected text"):
        labelled_texts([{**rows[0], "text_pair": 3}], rows, encoder, 16)
    with refused(ParameterError, "length=2", "room for a text beside 2 marks"):
        labelled_texts(rows, rows, encoder, 2)
    with refused(DataError, "of 1 texts with a label", "expected some on both sides"):
        split_labelled(rows[:1], 0.5)
    with refused(ParameterError, "test_fraction=1.5", "a share between"):
        split_labelled(rows, 1.5)
