"""The files of a run folder: whole or not there, read back as they were written, and distrusted."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import DamagedDataError, RunFolderError
from tutelage.run_folder import (
    RunFolder,
    read_arrays,
    read_json,
    read_lines,
    write_arrays,
    write_json,
    write_text,
    write_whole,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(value=st.dictionaries(st.text(), VALUES))
def test_json_comes_back(value, tmp_path_factory):
    path = tmp_path_factory.mktemp("json") / "a.json"
    write_json(path, value)
    assert read_json(path, keys=tuple(value)) == value


def test_what_cannot_be_written_leaves_what_was_there(tmp_path):
    path = tmp_path / "scores.json"
    write_json(path, {"accuracy": 0.5})

    def half(part):
        part.write_text('{"accu')
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, half)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"accuracy": float("nan")})
    assert read_json(path) == {"accuracy": 0.5}
    assert [entry.name for entry in tmp_path.iterdir()] == ["scores.json"]


@pytest.mark.parametrize(
    ("text", "came"),
    [
        ("", "not JSON"),
        ('{"a": 1', "not JSON"),
        ('{"a": NaN}', "NaN is no JSON number"),
        ("[1]", "holds list"),
        ("[" * 100_000, "not JSON"),
        ('{"b": 1}', r"lacks \['a'\]; it has \['b'\]"),
    ],
)
def test_json_that_is_not_what_was_written(tmp_path, refused, text, came):
    path = tmp_path / "scores.json"
    path.write_text(text)
    with refused(DamagedDataError, came, "scores.json"):
        read_json(path, keys=["a"])


def test_files_that_are_missing_or_no_text(tmp_path, refused):
    with refused(DamagedDataError, "run.json is missing", "belongs to"):
        read_json(tmp_path / "run.json")
    (tmp_path / "run.json").write_bytes(b"\xff\xfe{}")
    with refused(DamagedDataError, "not text", "write it again"):
        read_json(tmp_path / "run.json")


def test_lines_without_the_one_that_is_being_written(tmp_path, refused):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_lines(path) == [{"step": 1}, {"step": 2}]
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with refused(DamagedDataError, "metrics.jsonl:2 is not JSON", "write it again"):
        read_lines(path)


def test_arrays_come_back_and_cut_files_are_noticed(tmp_path, refused):
    path = tmp_path / "evaluation.safetensors"
    logits, labels = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32), np.arange(5)
    write_arrays(path, {"logits": logits, "labels": labels})
    back = read_arrays(path, ["labels", "logits"])
    assert back["logits"].dtype == np.float32
    assert np.array_equal(back["logits"], logits)
    assert np.array_equal(back["labels"], labels)
    with refused(DamagedDataError, r"lacks \['inputs'\]", r"it has \['labels', 'logits'\]"):
        read_arrays(path, ["inputs"])
    whole = path.read_bytes()
    for length in (0, 4, 8, 50, len(whole) - 1):
        path.write_bytes(whole[:length])
        with refused(DamagedDataError, "safetensors", "write it again"):
            read_arrays(path)
    path.unlink()
    with refused(DamagedDataError, "is missing", "labels"):
        read_arrays(path, ["labels"])


def test_the_folder_of_a_run(tmp_path, refused):
    with refused(RunFolderError, "not a folder", "tutelage train"):
        RunFolder.open(tmp_path / "nowhere")
    with refused(RunFolderError, "holds no run.json", "tutelage train"):
        RunFolder.open(tmp_path)
    write_json(tmp_path / "run.json", {})
    run = RunFolder.open(str(tmp_path))
    for seed in (10, 2):
        run.arm(seed, "student").path.mkdir(parents=True)
    (tmp_path / "seed-x").mkdir()
    assert run.seeds() == [2, 10]
    assert run.arms("student") == {}
    write_text(run.arm(10, "student").scores, json.dumps({}))
    assert list(run.arms("student")) == [10]
