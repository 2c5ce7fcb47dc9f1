"""Packing: first fit, in order, nothing lost; and what the collators make of rows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.data import CausalCollator, TokenRows, pack
from tutelage.data._token_rows import Document
from tutelage.errors import DataError, ParameterError

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=40)


def rows_of(sizes, labelled=None):
    """Documents whose tokens say where they are from: 100 for each document, and their place."""
    rows = TokenRows.of([Document(range(100 * n, 100 * n + size), [True] * size) for n, size in enumerate([*sizes, 2])])
    return rows if labelled is None else rows.with_labels([*labelled, True])


def first_fit(sizes, capacity):
    """The rule as it is told, row by row."""
    packed = []
    for document, size in enumerate(sizes):
        for row in packed:
            if sum(sizes[other] for other in row) + size <= capacity:
                row.append(document)
                break
        else:
            packed.append([document])
    return packed


@given(SIZES)
def test_each_document_goes_to_the_first_row_with_room(sizes):
    rows = rows_of(sizes)
    packed = pack(rows, 12)
    found = [list(dict.fromkeys((row["input_ids"] // 100).tolist())) for row in packed]
    assert found == first_fit([*sizes, 2], 12)


@given(SIZES, st.randoms(use_true_random=False))
def test_documents_stay_what_they_are(sizes, random):
    labelled = [random.random() < 0.5 for _ in sizes]
    rows = rows_of(sizes, labelled)
    packed = pack(rows, 12)
    assert packed.target_count == rows.target_count == sum(sizes) - len(sizes) + 1
    alone = {(token, mask, label, place) for row in rows for token, mask, label, place in tokens(row)}
    together = [token for row in packed for token in tokens(row)]
    assert len(together) == len(alone)
    assert set(together) == alone
    assert [row["index"] for row in packed] == list(range(len(packed)))
    assert packed.digest() == pack(rows_of(sizes, labelled), 12).digest()


def tokens(row):
    columns = (row[name].tolist() for name in ("input_ids", "target_mask", "labels", "position_ids"))
    return zip(*columns, strict=True)


def test_what_cannot_be_packed_is_named(refused):
    with refused(DataError, "document 1 has 13 tokens", "same length"):
        pack(rows_of([2, 13]), 12)
    with refused(ParameterError, "length=1", "2 tokens"):
        pack(rows_of([1]), 1)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_batch_is_the_rows_and_padding(side):
    rows = rows_of([4, 1])
    batch = CausalCollator(9, side)(list(rows))
    columns = {"input_ids", "position_ids", "target_mask", "labels", "attention_mask"}
    assert set(batch) == {*columns, "index"}
    assert {(batch[name].dtype, batch[name].shape) for name in columns} == {(torch.int64, (3, 4))}
    assert batch["index"].tolist() == [0, 1, 2]
    for place, row in enumerate(rows):
        real = batch["attention_mask"][place].bool()
        assert real.sum() == len(row["input_ids"])
        assert real[0 if side == "right" else -1]
        for name in ("input_ids", "position_ids", "target_mask", "labels"):
            assert batch[name][place][real].tolist() == [int(value) for value in row[name]]
        padding = {"input_ids": 9, "position_ids": 0, "target_mask": 0, "labels": -100}
        for name, value in padding.items():
            assert set(batch[name][place][~real].tolist()) <= {value}


def test_rows_of_one_token_have_a_place_to_predict():
    batch = CausalCollator(0)([rows_of([1])[0]])
    assert batch["input_ids"].shape == (1, 2)
    assert not batch["target_mask"].any()


@pytest.mark.parametrize("side", ["right", "left"])
def test_who_sees_whom_in_a_packed_row(side):
    packed = pack(rows_of([3, 2, 4]), 6)  # three and two with a place left over, four and two
    batch = CausalCollator(0, side, "mask")(list(packed))
    seen = batch["attention_mask"][:, 0] == 0
    assert batch["attention_mask"].dtype == torch.float32
    assert batch["attention_mask"].shape == (2, 1, 6, 6)
    start = 0 if side == "right" else 1
    for query in range(6):
        expected = [
            key
            for key in range(query + 1)
            if any(query in place and key in place for place in (range(start, start + 3), range(start + 3, start + 5)))
        ]
        if query not in range(start, start + 5):
            expected = [query]  # padding, in its own company
        assert seen[0, query].nonzero().squeeze(1).tolist() == expected


def test_positions_alone():
    packed = pack(rows_of([3, 2, 4]), 9)
    batch = CausalCollator(0, documents="positions")([*packed, rows_of([5])[0]])
    assert "attention_mask" not in batch
    assert batch["position_ids"].tolist() == [
        [0, 1, 2, 0, 1, 0, 1, 2, 3],
        [0, 1, 0, 1, 2, 3, 4, 5, 6],
        [0, 1, 2, 3, 4, 0, 1, 2, 3],
    ]


def test_bad_arguments_are_named(refused):
    for wrong in (None, -1, True, 1.0):
        with refused(ParameterError, "pad_id", "end-of-sequence"):
            CausalCollator(wrong)
    with refused(ParameterError, "'top'", "'left'"):
        CausalCollator(0, "top")
    with refused(ParameterError, "'apart'", "'positions'"):
        CausalCollator(0, documents="apart")
