"""Files of text, the standard library's source, and the tokenizer that is trained on it."""

import json
import logging
import pathlib
import random
import subprocess
import sys

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from tiny_texts import tokenizer
from tutelage.data import python_source, read_rows, split_rows, train_tokenizer
from tutelage.errors import DamagedDataError, DataError, ParameterError

TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b\u2028c"}]
ROWS = [{"messages": TALK}, {"messages": TALK[:1]}]


def test_one_content_in_all_formats(tmp_path):
    lines = tmp_path / "talk.jsonl"
    # A line separator within a string is no end of a line of JSON.
    lines.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n", encoding="utf-8")
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "talk.parquet")
    assert read_rows(lines) == ROWS
    assert read_rows(str(tmp_path / "talk.parquet")) == ROWS


def test_folders_and_patterns_come_in_the_order_of_names(tmp_path):
    for name in ("b.txt", "a/z.md", "a/c.txt", ".hidden/x.txt", ".x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    texts = [{"text": "a/c.txt"}, {"text": "a/z.md"}, {"text": "b.txt"}]
    assert read_rows(tmp_path) == texts
    (tmp_path / "c.jsonl").write_text('{"prompt": "p", "completion": "c"}')
    assert read_rows(f"{tmp_path}/**/*.txt") == [texts[0], texts[2]]
    assert read_rows(f"{tmp_path}/*.*") == [texts[2], {"prompt": "p", "completion": "c"}]


@pytest.mark.parametrize(
    ("name", "content", "error", "came"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": ', DamagedDataError, "a.jsonl:2 is no JSON"),
        ("a.jsonl", b"[" * 100_000, DamagedDataError, "a.jsonl:1 is no JSON"),
        ("a.jsonl", b"[1]", DataError, "a.jsonl:1 is list"),
        ("a.jsonl", b"\n", DataError, "has no rows"),
        ("a.txt", b"\xff\xfe\x00", DamagedDataError, "a.txt is not text"),
        ("a.parquet", b"PAR1", DamagedDataError, "a.parquet cannot"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, error, came, refused):
    (tmp_path / name).write_bytes(content)
    with refused(error, came, "."):
        read_rows(tmp_path / name)
    with refused(DataError, "absent", "expected one"):
        read_rows(tmp_path / "absent*.txt")


def test_a_row_is_held_out_by_what_it_holds():
    rows = [{"text": f"row {n}"} for n in range(400)]
    train, test = split_rows(rows, 0.25)
    assert 60 < len(test) < 140
    assert sorted(row["text"] for row in train + test) == sorted(row["text"] for row in rows)
    mixed = random.Random(0).sample(rows, 200)
    assert all(row in test for row in split_rows(mixed + mixed, 0.25)[1])
    assert all(row in train for row in split_rows(mixed + mixed, 0.25)[0])


def test_parts_are_never_empty(refused):
    with refused(DataError, "of 1 rows", "more rows"):
        split_rows([{"text": "a"}], 0.1)
    for wrong in (0, 1, -0.5):
        with refused(ParameterError, f"{wrong}", "0.1"):
            split_rows([{"text": "a"}], wrong)


@pytest.fixture
def library(tmp_path):
    for number in range(60):
        (tmp_path / f"module_{number:02}.py").write_bytes(b"x = %d\r\n" % number)
    for folder in ("site-packages", "test", "inner/tests", "inner/__pycache__"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "left_out.py").write_text("left = out")
    (tmp_path / "inner" / "kept.py").write_text("kept = 1\n")
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\n\xe9")
    (tmp_path / "notes.txt").write_text("no source")
    return tmp_path


def test_a_library_is_read_in_a_fixed_order_and_without_what_is_not_its_source(library, caplog):
    with caplog.at_level(logging.WARNING, "tutelage.data"):
        corpus = python_source(0.3, library)
    rows = [*corpus.train, *corpus.test]
    assert {row["file"] for row in rows} == {"inner/kept.py", *(f"module_{n:02}.py" for n in range(60))}
    assert {row["text"] for row in rows} == {"kept = 1\n", *(f"x = {n}\n" for n in range(60))}
    assert corpus.skipped == ("latin.py",)
    assert "latin.py" in caplog.text
    for part in (corpus.train, corpus.test):
        assert [row["file"] for row in part] == sorted(row["file"] for row in part)
    assert 8 < len(corpus.test) < 30


def test_a_file_more_moves_no_other(library):
    before = python_source(0.3, library)
    (library / "module_00a.py").write_text("x = 'new'\n")
    after = python_source(0.3, library)
    assert len(after.train) + len(after.test) == len(before.train) + len(before.test) + 1
    assert set(map(str, before.train)) <= set(map(str, after.train))
    assert set(map(str, before.test)) <= set(map(str, after.test))


def test_another_name_moves_no_file(library):
    before = python_source(0.3, library)
    for file in sorted(library.glob("module_*.py")):
        file.rename(file.with_name(f"renamed_{file.name}"))
    after = python_source(0.3, library)
    assert {row["text"] for row in after.test} == {row["text"] for row in before.test}


def test_a_folder_without_source_is_named(tmp_path, refused):
    with refused(DataError, "0 Python files", "standard library"):
        python_source(root=tmp_path)


def test_the_standard_library_is_there():
    corpus = python_source()
    names = {row["file"] for row in [*corpus.train, *corpus.test]}
    assert {"json/decoder.py", "functools.py", "asyncio/tasks.py"} <= names
    assert not any("site-packages" in name or name.startswith("test/") for name in names)
    letters = [sum(len(row["text"]) for row in part) for part in (corpus.train, corpus.test)]
    assert letters[0] > 5e6
    assert 0.01 < letters[1] / sum(letters) < 0.15


@given(st.text(max_size=30))
def test_any_text_comes_back_as_it_was(text):
    made = tokenizer()
    assert made.decode(made(text)["input_ids"]) == text


def test_the_same_texts_give_the_same_tokenizer():
    """Here and in another process, where sets and dictionaries of text have another order."""
    program = (
        "import json, pathlib; from tutelage.data import train_tokenizer;"
        "text = pathlib.Path(json.__file__).read_text();"
        "print(train_tokenizer([text], 300).backend_tokenizer.to_str())"
    )
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout
    here = train_tokenizer([pathlib.Path(json.__file__).read_text()], 300).backend_tokenizer.to_str()
    assert json.loads(there) == json.loads(here)


def test_a_tokenizer_that_cannot_be_made_is_named(refused):
    with refused(ParameterError, "size=257", "258 or more"):
        train_tokenizer(["a"], 257)
    with refused(DataError, "a vocabulary of 2[0-9][0-9]", "more text"):
        train_tokenizer(["a b"], 300)


def test_what_a_tokenizer_of_ours_has():
    made = train_tokenizer(["the cat sat on the mat, the cat sat"], 264)
    assert len(made) == 264
    assert (made.eos_token, made.pad_token) == ("<|endoftext|>", "<|pad|>")
    assert made.eos_token_id != made.pad_token_id
