"""Files that are not what they seem: what each reader makes of them, or says of them."""

import json
import logging
import os
import re
import socket
import time
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from tiny_texts import tokenizer
from tutelage.config import load
from tutelage.data import encode, encode_masked, images, labelled_texts, read_rows, split_rows, table, train_tokenizer
from tutelage.data._pixels import read_header, read_pixels
from tutelage.errors import DamagedDataError, DataError, RecipeError, TutelageError
from tutelage.models import load_pretrained

ROWS = [{"text": 'a, "b"\n;c'}, {"text": "d\te"}]


def write(path, rows):
    """Write rows as what the suffix says."""
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=2))
    elif path.suffix in (".jsonl", ".ndjson"):
        path.write_text("\n".join(map(json.dumps, rows)))
    elif path.suffix in (".csv", ".tsv"):
        sign = "," if path.suffix == ".csv" else "\t"
        cells = [list(rows[0]), *(list(row.values()) for row in rows)]
        lines = [sign.join('"' + str(cell).replace('"', '""') + '"' for cell in line) for line in cells]
        path.write_text("\n".join(lines))
    else:
        path.write_text(rows[0]["text"])
    return path


# --- texts: which files, and as what ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv", ".JSONL"])
def test_files_of_rows_are_read_as_rows(tmp_path, suffix):
    written = write(tmp_path / f"rows{suffix.lower()}", ROWS).rename(tmp_path / f"rows{suffix}")
    assert read_rows(written) == ROWS


def test_a_json_file_may_hold_lines_as_well(tmp_path, refused):
    file = tmp_path / "rows.json"
    file.write_text("\n".join(map(json.dumps, ROWS)))
    assert read_rows(file) == ROWS
    file.write_text("[1, 2]")
    with refused(DataError, "rows.json, row 1 is int", "expected an object"):
        read_rows(file)
    file.write_text('[{"text": "a"}')
    with refused(DamagedDataError, "rows.json is no JSON", "delimiter"):
        read_rows(file)
    file.write_text(json.dumps({"data": ROWS}, indent=1))
    with refused(DataError, "one object over several lines", "an array of objects"):
        read_rows(file)


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_a_field_that_comes_twice_is_named(tmp_path, refused, suffix):
    file = tmp_path / f"rows{suffix}"
    row = '{"text": "a", "text": "b"}'
    file.write_text(row if suffix == ".jsonl" else f"[{row}]")
    with refused(DamagedDataError, "'text' comes twice", "is no JSON"):
        read_rows(file)


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".json"])
def test_utf_16_without_a_mark_is_no_text(tmp_path, refused, suffix):
    """Its bytes are UTF-8, with a character of no meaning after each."""
    (tmp_path / f"rows{suffix}").write_bytes('{"text": "a"}'.encode("utf-16-le"))
    with refused(DamagedDataError, "has bytes of 0", "convert it"):
        read_rows(tmp_path / f"rows{suffix}")


def test_long_cells_are_read_whole(tmp_path):
    rows = [{"text": "x" * 200_000, "label": "a"}]
    assert read_rows(write(tmp_path / "rows.csv", rows)) == rows


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.rst", "a.py", "a.C", "a.tex"])
def test_plain_text_is_one_row(tmp_path, name):
    (tmp_path / name).write_text("a\nb")
    assert read_rows(tmp_path / name) == [{"text": "a\nb"}]


@pytest.mark.parametrize("name", ["a.html", "a.xml", "a.yaml", "a.jsonl.gz", "a.zip", "a.arrow", "a.npz", "a.log", "a"])
def test_other_files_are_refused_by_name(tmp_path, refused, name):
    (tmp_path / name).write_text("text")
    remedy = "unpack it" if name.endswith(("gz", "zip")) else "rename it to .txt"
    with refused(DataError, f"{name} is a ", remedy):
        read_rows(tmp_path / name)
    with refused(DataError, f"{name} is a ", remedy):
        read_rows(f"{tmp_path}/a*")


@pytest.mark.parametrize(
    ("names", "came", "pattern"),
    [
        (["train.jsonl", "README.md"], "README.md among its data", "**/*.jsonl"),
        (["data/train-0.parquet", "data/test-0.parquet", "README.md"], "README.md among", "data/train-*.parquet"),
        (["a.txt", "LICENSE.txt"], "LICENSE.txt among its data", "a.txt"),
        (["a.txt", "LICENSE"], "LICENSE among its data", "**/*.txt"),
        (["a.jsonl", "b.parquet"], "several kinds, a.jsonl and b.parquet", "**/*.jsonl"),
        (["a.parquet", "dataset_info.json"], "several kinds", "**/*.parquet"),
        (["train-0.parquet", "test-0.parquet"], "several splits, test-0.parquet and train-0.p", "train-*.parquet"),
        (["a.jsonl", "validation.jsonl"], "several splits", "a.jsonl"),
        (["imdb.train.jsonl", "imdb.dev.jsonl"], "several splits", "imdb.train.jsonl"),
        (["imdb_train.csv", "imdb_test.csv"], "several splits", "imdb_train.csv"),
        (["train/a.txt", "test/a.txt"], "several splits, test/a.txt and train/a.txt", "train/*.txt"),
    ],
)
def test_a_folder_is_of_one_kind_and_one_split(tmp_path, refused, names, came, pattern):
    folder = tmp_path / "data"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name, ROWS)
    with refused(DataError, came, re.escape(f"such as {folder}/{pattern}") + "$"):
        read_rows(folder)
    rows = read_rows(f"{folder}/{pattern}")
    assert rows in (ROWS, ROWS[:1])


def test_folders_of_one_kind_and_split_are_read_whole(tmp_path):
    for folder, names in {
        "shards": ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "more.ndjson"],
        "held": ["test-0.jsonl", "test-1.jsonl"],
        "prose": ["a.txt", "b/contest.md", "latest.rst", "developer.txt"],
        "alone": ["README.md"],
    }.items():
        for name in names:
            file = tmp_path / folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text('{"text": "a"}')
        assert len(read_rows(tmp_path / folder)) == len(names)
    (tmp_path / "prose" / "test.txt").write_text("a")
    assert len(read_rows(f"{tmp_path}/prose/**/*.*")) == 5


# --- what is no regular file ------------------------------------------------------------------------------------------


def special(path, kind):
    """Make something that is no regular file."""
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.relpath(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path.parent / "nothing")


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "folder", "dangling"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, refused, monkeypatch, kind):
    """A fifo that nobody writes to would be read for ever."""
    monkeypatch.chdir(tmp_path)
    start = time.monotonic()
    for name in ("rows.csv", "rows.tsv", "rows.parquet", "rows.npz"):
        special(tmp_path / name, kind)
        with refused(DataError, f"{name} is not a file", "expected a table"):
            table(tmp_path / name, "kind")
    for name in ("rows.jsonl", "rows.json", "notes.txt"):
        special(tmp_path / name, kind)
        with refused(DataError, f"{name} ", "expected"):
            read_rows(tmp_path / name)
        if kind != "folder":
            (tmp_path / f"in-{name}").mkdir()
            special(tmp_path / f"in-{name}" / name, kind)
            with refused(DataError, f"{name} is no regular file", "move it away"):
                read_rows(tmp_path / f"in-{name}")
            with refused(DataError, f"{name} is no regular file", "pattern"):
                read_rows(f"{tmp_path}/in-{name}/*")
    (tmp_path / "pictures" / "a").mkdir(parents=True)
    special(tmp_path / "pictures" / "a" / "0.png", kind)
    with refused(DataError, "0.png is no image", "move it away"):
        images(tmp_path / "pictures")
    special(tmp_path / "recipe.yaml", kind)
    with pytest.raises(RecipeError, match=r"recipe.yaml"):
        load(tmp_path / "recipe.yaml")
    assert time.monotonic() - start < 5


# --- JSON that Python reads and nobody means --------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [60, 500, 950, 100_000])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_deep_json_is_an_error_of_ours(tmp_path, depth, name):
    deep = "[" * depth + "]" * depth
    row = f'{{"text": "a", "other": {deep}}}'
    (tmp_path / name).write_text(row if name == "rows.jsonl" else f"[{row}]")
    with pytest.raises((DataError, DamagedDataError), match=r"nested more than 50 deep|is no JSON"):
        split_rows(read_rows(tmp_path / name), 0.5)


def test_a_model_folder_with_deep_json_is_an_error_of_ours(tmp_path, refused):
    (tmp_path / "config.json").write_text('{"a":' * 100_000)
    with refused(DamagedDataError, "config.json is not JSON", "fetch it again"):
        load_pretrained(tmp_path, auto="causal_lm")


@pytest.mark.parametrize(
    "row", [{"text": "a\ud800b"}, {"prompt": "a", "completion": "\udfff"}, {"messages": [{"content": "\ud83d"}]}]
)
def test_half_a_character_is_named(tmp_path, refused, row):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "\\ud83d\\ude00"}\n' + json.dumps(row))
    with refused(DataError, r"rows.jsonl:2 has '\\ud[89f]", "half of a surrogate pair"):
        read_rows(file)
    file.write_text(file.read_text().split("\n")[0])
    assert read_rows(file) == [{"text": "😀"}]


def test_half_a_character_is_named_by_all_that_take_rows(refused):
    cut = "while \ud83d"
    encoder = train_tokenizer(["while " * 40], 262, for_encoder=True)
    labelled = [{"text": "a", "label": 0}, {"text": cut, "label": 1}]
    talk = tokenizer()
    talk.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    for take in (
        lambda: train_tokenizer(["a", cut], 300),
        lambda: encode([{"text": "a"}, {"text": cut}], tokenizer(), 8),
        lambda: encode([{"prompt": cut, "completion": "a"}], tokenizer(), 8),
        lambda: encode([{"messages": [{"role": "user", "content": cut}]}], talk, 8),
        lambda: encode_masked([{"text": cut}], encoder, 8),
        lambda: labelled_texts(labelled, labelled, encoder, 8),
        lambda: labelled_texts([{**row, "text_pair": cut} for row in labelled[:1]], labelled, encoder, 8),
    ):
        with refused(DataError, r"'\\ud83d' at character 6", "half of a surrogate pair"):
            take()


@pytest.mark.parametrize("name", ["text", "prompt", "completion", "messages"])
def test_null_is_named(refused, name):
    row = {"prompt": "a", "completion": "b"} if name in ("prompt", "completion") else {}
    with refused(DataError, f"row 1: {name!r} is null", "remove the row"):
        encode([{**row, name: None}], tokenizer(), 8)
    encoder = train_tokenizer(["while " * 40], 262, for_encoder=True)
    with refused(DataError, "row 1: 'text' is null", "expected text"):
        encode_masked([{"text": None}], encoder, 8)
    with refused(DataError, "row 1: 'text' is null", "expected text"):
        labelled_texts([{"text": None, "label": 1}], [], encoder, 8)


# --- fields and columns that nobody asked for -------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".csv"])
def test_fields_that_are_not_read_are_told_once(tmp_path, caplog, suffix):
    rows = [{"text": f"while {i}", "label": "ab"[i % 2], "logprobs": "0.5", "hint": "x"} for i in range(4)]
    rows = read_rows(write(tmp_path / f"rows{suffix}", rows))
    encoder = train_tokenizer(["while " * 40], 262, for_encoder=True)
    for read, unread, take in (
        (
            "'text', 'prompt', 'completion', 'messages'",
            "'hint', 'label', 'logprobs'",
            lambda: encode(rows, tokenizer(), 8),
        ),
        ("'text'", "'hint', 'label', 'logprobs'", lambda: encode_masked(rows, encoder, 8)),
        ("'text', 'text_pair', 'label'", "'hint', 'logprobs'", lambda: labelled_texts(rows, rows[:2], encoder, 8)),
    ):
        with caplog.at_level(logging.WARNING, "tutelage.data"):
            take()
        told = [record.getMessage() for record in caplog.records if "not used" in record.getMessage()]
        assert len(told) == 1
        assert f"; only {read} are read" in told[0]
        for name in unread.split(", "):
            assert name in told[0]
        caplog.clear()


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{% endfor %}",
    ],
)
def test_fields_of_messages_that_the_template_does_not_name_are_told(caplog, template):
    talk = tokenizer()
    talk.chat_template = template
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "while", "weight": 0}]
    with caplog.at_level(logging.WARNING, "tutelage.data"):
        encode([{"messages": turns}] * 3, talk, 32)
    assert [r.getMessage() for r in caplog.records] == [
        "the data, messages: not used: 'weight' (3 times); only 'role', 'content' are read"
    ]
    caplog.clear()
    talk.chat_template += "{# weight #}"
    with caplog.at_level(logging.WARNING, "tutelage.data"):
        encode([{"messages": turns}], talk, 32)
    assert not caplog.records


def test_nothing_is_told_where_all_is_read(caplog):
    with caplog.at_level(logging.WARNING, "tutelage.data"):
        encode([{"text": "while True", "prompt": None, "extra": None}], tokenizer(), 8)
    assert not caplog.records


def test_texts_are_held_out_by_what_is_read_of_them():
    """A number of the row or an index must not send equal texts to both sides."""
    rows = [{"text": f"text {i % 40}", "id": i} for i in range(400)]
    train, test = split_rows(rows, 0.3)
    assert not {row["text"] for row in train} & {row["text"] for row in test}
    bare = split_rows([{"text": f"text {i}"} for i in range(40)], 0.3)[1]
    assert {row["text"] for row in test} == {row["text"] for row in bare}


# --- tables: what is a feature ----------------------------------------------------------------------------------------

NOISE = np.random.default_rng(0).normal(size=40)
KIND = ["a"] * 20 + ["b"] * 20


def with_index(path, index, columns):
    """Write a table as pandas writes a data frame whose index is these columns."""
    made = pa.table(columns)
    metadata = {b"pandas": json.dumps({"index_columns": index, "columns": []}).encode()}
    parquet.write_table(made.replace_schema_metadata(metadata), path)
    return path


@pytest.mark.parametrize("name", ["__index_level_0__", "id", "when"])
def test_the_index_of_a_data_frame_is_no_feature(tmp_path, caplog, name):
    columns = {"x": NOISE, "kind": KIND, name: np.arange(40)}
    with caplog.at_level(logging.WARNING, "tutelage.data"):
        data = table(with_index(tmp_path / "rows.parquet", [name], columns), "kind", test=tmp_path / "rows.parquet")
    assert data.features == ("x",)
    assert data.shape == (1,)
    assert f"left out '{name}', the index that pandas wrote" in caplog.text
    # Who asks for it gets it.
    assert table(tmp_path / "rows.parquet", "kind", features=["x", name]).features == ("x", name)
    parquet.write_table(
        pa.table({"x": NOISE, "kind": np.arange(40) % 2, "__index_level_1__": KIND}), tmp_path / "b.parquet"
    )
    assert table(tmp_path / "b.parquet", "kind").features == ("x",)
    assert table(tmp_path / "b.parquet", "__index_level_1__").classes == ("a", "b")
    # A range is described and not written; damaged descriptions are nobody's.
    for index in ([{"kind": "range", "start": 0, "stop": 40, "step": 1}], 3, None):
        assert table(with_index(tmp_path / "c.parquet", index, {"x": NOISE, "kind": KIND}), "kind").features == ("x",)


def test_the_index_of_a_data_frame_is_no_field_of_a_text(tmp_path, caplog):
    columns = {"text": ["a", "b"], "__index_level_0__": [5, 7]}
    with caplog.at_level(logging.WARNING, "tutelage.data"):
        rows = read_rows(with_index(tmp_path / "rows.parquet", ["__index_level_0__"], columns))
    assert rows == [{"text": "a"}, {"text": "b"}]
    assert "the index that pandas wrote" in caplog.text


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "Unnamed: 0.1", " "])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_column_without_a_name_is_refused(tmp_path, refused, name, suffix):
    file, sign = tmp_path / f"rows{suffix}", "," if suffix == ".csv" else "\t"
    lines = [[name, "x", "kind"], *([str(i), str(x), k] for i, (x, k) in enumerate(zip(NOISE, KIND, strict=True)))]
    file.write_text("\n".join(map(sign.join, lines)))
    with refused(DataError, f"column 1 has the name '{name.strip()}'", r"to_csv\(index=False\)"):
        table(file, "kind")
    assert table(file, "kind", features=["x"]).features == ("x",)


def test_a_column_that_counts_the_rows_is_told(tmp_path, caplog):
    np.savez(tmp_path / "a.npz", x=NOISE, row=np.arange(7, 47), other=np.arange(40)[::-1], kind=np.array(KIND))
    with caplog.at_level(logging.WARNING, "tutelage.data"):
        assert table(tmp_path / "a.npz", "kind").features == ("x", "row", "other")
    assert [r.getMessage() for r in caplog.records] == [
        "a.npz: 'row' counts the rows; if it says nothing about them, leave it out of `features`"
    ]


def test_columns_that_come_twice_are_named(tmp_path, refused):
    twice = pa.Table.from_arrays([pa.array(NOISE), pa.array(NOISE), pa.array(KIND)], names=["x", "x", "kind"])
    parquet.write_table(twice, tmp_path / "rows.parquet")
    with refused(DataError, r"the columns \['x'\] more than once", "each column once"):
        table(tmp_path / "rows.parquet", "kind")


def test_durations_are_numbers(tmp_path):
    seconds = pa.array(range(40), pa.duration("ns"))
    parquet.write_table(pa.table({"x": NOISE, "seconds": seconds, "kind": KIND}), tmp_path / "rows.parquet")
    data = table(tmp_path / "rows.parquet", "kind")
    assert data.train.inputs[:, 1].tolist() == data.train.index.tolist()


def test_true_and_false_are_1_and_0_in_every_file(tmp_path):
    even = [row % 2 == 0 for row in range(40)]
    parquet.write_table(pa.table({"x": NOISE, "even": even, "kind": KIND}), tmp_path / "rows.parquet")
    lines = [f"{x},{is_even},{kind}\n" for x, is_even, kind in zip(NOISE, even, KIND, strict=True)]
    (tmp_path / "rows.csv").write_text("".join(["x,even,kind\n", *lines]))
    for name in ("rows.parquet", "rows.csv"):
        rows = table(tmp_path / name, "kind").train
        assert rows.inputs[:, 1].tolist() == [float(row % 2 == 0) for row in rows.index.tolist()]


def test_one_hot_rows_are_told_to_be_classes(tmp_path, refused):
    np.savez(tmp_path / "rows.npz", x=NOISE, kind=np.eye(2, dtype=int)[np.arange(40) % 2])
    with refused(DataError, "'kind' has several values per row", r"kind.argmax\(1\)"):
        table(tmp_path / "rows.npz", "kind")


def test_a_folder_called_like_a_column_adds_none(tmp_path):
    folder = tmp_path / "split=3"
    folder.mkdir()
    parquet.write_table(pa.table({"x": NOISE, "kind": KIND}), folder / "rows.parquet")
    assert table(folder / "rows.parquet", "kind").features == ("x",)


@pytest.mark.parametrize(
    ("suffix", "sign", "seems"), [(".csv", ";", ";"), (".csv", "\t", r"\\t"), (".csv", "|", r"\|"), (".tsv", ",", ",")]
)
def test_another_separator_is_named(tmp_path, refused, suffix, sign, seems):
    file = tmp_path / f"rows{suffix}"
    file.write_text("\n".join(sign.join(line) for line in (["x", "y", "kind"], ["1,5", "2", "a"], ["1", "2", "b"])))
    with refused(DataError, f"separated by '{seems}'", "save it so"):
        table(file, "kind")
    with refused(DataError, f"separated by '{seems}'", "save it so"):
        read_rows(file)


@pytest.mark.parametrize(
    ("column", "came"),
    [
        (pa.array([[1.0, 2.0]] * 40), r"several values in a row, \[1"),
        (pa.array([[1.0]] * 40), "several values in a row"),
        (pa.array([[1.0], None] * 20), "several values in a row"),
        (pa.array([[1.0, 2.0]] * 40, pa.list_(pa.float64(), 2)), "several values in a row"),
        (pa.array([{"a": 1}] * 40), "several values in a row"),
        (pa.array([1_600_000_000] * 40, pa.timestamp("s")), "'2020-09-13 12:26:40.000' in row 1"),
        (pa.array([1_600_000_000_000_000_001] * 40, pa.timestamp("ns")), "'2020-09-13"),
        (pa.array([18_000] * 40, pa.date32()), "'2019-04-14' in row 1"),
        (pa.array(["x", None] * 20), "'x' in row 1"),
        (pa.array(["x", "y"] * 20).dictionary_encode(), "'x' in row 1"),
        (pa.nulls(40), "nan in row 1"),
    ],
)
def test_columns_that_are_no_numbers_are_named(tmp_path, refused, column, came):
    parquet.write_table(pa.table({"x": NOISE, "odd": column, "kind": KIND}), tmp_path / "rows.parquet")
    with refused(DataError, f"column 'odd' has .*{came}", "expected (one|a|)? ?number"):
        table(tmp_path / "rows.parquet", "kind")
    if pa.types.is_nested(column.type):
        with refused(DataError, "row 1 has the class", "several labels"):
            table(tmp_path / "rows.parquet", "odd", features=["x"])


@pytest.mark.parametrize("array", [np.arange(40) * 1j, np.zeros(40, dtype=[("a", "f4")])])
def test_arrays_that_are_no_numbers_are_named(tmp_path, refused, array):
    np.savez(tmp_path / "rows.npz", x=NOISE, odd=array, kind=np.array(KIND))
    with refused(DataError, "'odd' is ", "expected numbers or text"):
        table(tmp_path / "rows.npz", "kind")
    np.savez(tmp_path / "days.npz", x=NOISE, odd=np.array(["2020-01-01"] * 40, dtype="M8[D]"), kind=np.array(KIND))
    with refused(DataError, "column 'odd' has '2020-01-01' in row 1", "expected numbers"):
        table(tmp_path / "days.npz", "kind")


# --- images -----------------------------------------------------------------------------------------------------------


def png(path, pixels, colour):
    """Write a PNG of 16 bits a channel by hand; Pillow writes none in colour."""
    import struct
    import zlib

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = pixels.shape[:2]
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )


@pytest.fixture
def pictures(tmp_path):
    """Return what reads one image as (channels, height, width), among others that `images` needs."""

    def read(name, write, size=None):
        for kind in ("a", "b"):
            (tmp_path / "pictures" / kind).mkdir(parents=True)
        for file in ("a/first", "a/second", "b/first", "b/second"):
            write(tmp_path / "pictures" / f"{file}{name}")
        data = images(tmp_path / "pictures", test=tmp_path / "pictures", size=size)
        assert data.test.inputs.shape[1:] == data.shape
        return data.test.inputs[0].numpy()

    return read


DEEP = np.array([[0, 256, 300], [32768, 65000, 65535]])


@pytest.mark.parametrize("name", [".png", ".tif", "-big.tif"])
def test_grey_of_16_bits_keeps_its_range(pictures, name):
    order = ">u2" if name.startswith("-big") else "<u2"
    found = pictures(name, lambda path: Image.fromarray(DEEP.astype(order)).save(path))
    assert np.allclose(found, DEEP[None] / 65535, atol=1e-6)


def test_colours_of_16_bits_keep_their_range(pictures):
    pixels = np.stack([DEEP, DEEP[::-1], DEEP[:, ::-1]], axis=-1)
    found = pictures(".png", lambda path: png(path, pixels, 2))
    assert np.allclose(found, pixels.transpose(2, 0, 1) / 65535, atol=1 / 255)


def test_16_bits_can_be_resized_and_stand_beside_colours(pictures, tmp_path):
    deep = Image.fromarray(np.full((4, 4), 32768, dtype=np.uint16))
    assert np.allclose(pictures(".png", deep.save, size=2), 32768 / 65535, atol=1e-6)
    Image.new("RGB", (4, 4), "red").save(tmp_path / "pictures" / "b" / "third.png")
    data = images(tmp_path / "pictures", size=2, test=tmp_path / "pictures")
    assert data.shape == (3, 2, 2)
    assert np.allclose(data.test.inputs[0], 32768 / 65535, atol=1e-6)
    assert data.test.inputs[-1][:, 0, 0].tolist() == [1, 0, 0]


@pytest.mark.parametrize("names", [("train", "test"), ("Train", "val", "TEST"), ("validation", "test")])
def test_folders_of_splits_are_no_classes(tmp_path, refused, names):
    for name in names:
        (tmp_path / name / "cat").mkdir(parents=True)
    with refused(DataError, f"holds the folders .*'{names[0]}'", "as `test`"):
        images(tmp_path)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_without_a_range_are_refused(pictures, refused, dtype):
    with refused(DataError, "whose range is not known", "8 or 16 bits"):
        pictures(".tif", lambda path: Image.fromarray(DEEP.astype(dtype)).save(path))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_images_are_upright(pictures, orientation, suffix):
    pixels = np.zeros((16, 32), dtype=np.uint8)
    pixels[:8, :16] = 255  # the top left corner as it is stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = pictures(suffix, lambda path: Image.fromarray(pixels).save(path, exif=exif))
    bright = found.mean(0) > 0.5
    corner = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}[orientation]
    height, width = (16, 32) if orientation < 5 else (32, 16)
    expected = np.zeros((height, width), dtype=bool)
    rows = slice(0, height // 2) if corner[0] == "t" else slice(height // 2, height)
    expected[rows, slice(0, width // 2) if corner[1] == "l" else slice(width // 2, width)] = True
    assert (bright == expected).mean() > 0.95


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_transparent_pixels_are_white_and_opaque_ones_as_they_are(pictures, caplog, mode):
    image = Image.new("RGBA", (2, 1), (0, 51, 0, 255))
    image.putpixel((0, 0), (0, 51, 0, 0))
    if mode == "LA":
        image = image.convert("LA")
    elif mode == "PA":
        image = Image.frombytes("PA", (2, 1), bytes([0, 0, 0, 255]))
        image.putpalette([0, 51, 0])
    elif mode == "P":
        image = Image.frombytes("P", (2, 1), bytes([0, 1]))
        image.putpalette([0, 51, 0, 0, 51, 0])
        image.info["transparency"] = 0
    suffix = ".tif" if mode == "PA" else ".png"
    with caplog.at_level(logging.WARNING, "tutelage.data"):
        found = pictures(suffix, image.save)
    assert found[:, 0, 0].tolist() == [1, 1, 1]
    opaque = [30 / 255] * 3 if mode == "LA" else [0, 0.2, 0]
    assert np.allclose(found[:, 0, 1], opaque, atol=1e-6)
    assert "4 of 8 images can be transparent" in caplog.text or "8 of 8 images can be transparent" in caplog.text


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK"])
def test_modes_of_8_bits_are_read_as_before(pictures, mode):
    colours = np.random.default_rng(0).integers(0, 256, size=(3, 4, 3), dtype=np.uint8)
    image = Image.fromarray(colours).convert(mode)
    found = pictures(".tif" if mode == "CMYK" else ".png", image.save)
    expected = np.asarray(image.convert("L" if mode in ("1", "L") else "RGB"), dtype=np.float32) / 255
    assert np.array_equal(found, expected.reshape(3, 4, -1).transpose(2, 0, 1))


def test_a_file_of_several_images_is_refused(pictures, refused):
    pages = [Image.new("L", (2, 2)), Image.new("L", (2, 2), 255)]
    with refused(DataError, "has 2 images", "a file of its own"):
        pictures(".tif", lambda path: pages[0].save(path, save_all=True, append_images=pages[1:]))


# --- damage -----------------------------------------------------------------------------------------------------------


def mutated(content, random):
    """Return bytes that were cut off, overwritten, taken out or put in."""
    start, count = random.randrange(len(content)), random.randrange(1, 9)
    noise = random.randbytes(count)
    return random.choice(
        [
            content[:start],
            content[:start] + noise + content[start + count :],
            content[:start] + content[start + count :],
            content[:start] + noise + content[start:],
        ]
    )


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about damaged metadata
@pytest.mark.parametrize(
    "suffix", [".csv", ".tsv", ".parquet", ".npz", ".jsonl", ".json", ".txt", ".png", ".jpg", ".tif", ".webp", ".bmp"]
)
def test_damaged_files_give_rows_or_an_error_of_ours(tmp_path, suffix):
    file, random = tmp_path / f"a{suffix}", Random(0)
    is_image = suffix in (".png", ".jpg", ".tif", ".webp", ".bmp")
    if is_image:
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, size=(6, 5, 3), dtype=np.uint8))
        image.save(file, **({"compression": "tiff_lzw"} if suffix == ".tif" else {}))
    elif suffix == ".npz":
        np.savez_compressed(file, x=NOISE, kind=np.array(KIND))
    else:
        write(file, [{"x": str(x), "kind": kind, "text": "é"} for x, kind in zip(NOISE, KIND, strict=True)])
    whole = file.read_bytes()
    for _ in range(120):
        file.write_bytes(mutated(whole, random))
        try:
            if is_image:
                header = read_header(file)
                read_pixels(file, 3, (header.width, header.height), resizes=False)
            elif suffix in (".csv", ".tsv", ".parquet", ".npz"):
                table(file, "kind", features=["x"])
            else:
                read_rows(file)
        except TutelageError:
            pass
