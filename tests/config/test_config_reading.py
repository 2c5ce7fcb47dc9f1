"""YAML is read strictly: small, plain, once each, and with the values that YAML 1.2 gives to words."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from tutelage.config import load
from tutelage.config._reading import MAX_BYTES, MAX_DEPTH, plain, read
from tutelage.errors import RecipeError


def refused(text):
    """Return the message of the one problem a text has, and how long it took to find it."""
    start = time.perf_counter()
    try:
        document = read(text, "r.yaml")
        (message,) = [str(problem) for problem in document.problems.values()]
    except RecipeError as error:
        message = str(error)
    return message, time.perf_counter() - start


REFUSED = {
    "aliases": ("a: &x [1]\nb: *x\n", None),
    "nested": ("a: " + "[" * 3000, f"nested deeper than {MAX_DEPTH} levels"),
    "braces": ("{a: " * 3000, f"nested deeper than {MAX_DEPTH} levels"),
    "blocks": ("\n".join(" " * i + "a:" for i in range(300)), f"nested deeper than {MAX_DEPTH} levels"),
    "python objects": ("a: !!python/object:os.system {}\n", "the tag tag:yaml.org,2002:python/object:os.system"),
    "calls": ("a: !import_call {key: os.getcwd}\n", "the tag !import_call; remove it"),
    "documents": ("a: 1\n---\nb: 2\n", "r.yaml:2: a second document starts here"),
    "versions": ("%YAML 1.1\n---\na: yes\n", "a %-directive"),
    "twice": ("a: 1\nb: 2\na: 3\n", "r.yaml:3: a: the key comes twice, first in line 1"),
    "list as a key": ("? [a, b]\n: 1\n", "a key that is no text"),
    "tabs": ("a:\n\tb: 1\n", "not YAML"),
    "control characters": ("a: \x00\n", "not YAML: unacceptable character"),
    "characters that are none": ('a: "\\UFFFFFFFF"\n', "not YAML"),
    "half characters": ('a: "\\ud83d"\n', "half of a surrogate pair"),
    "many values": ("a: [" + "1, " * 10_001 + "]", "more than 10,000 values"),
    "long numbers": ("a: " + "9" * 5000, "a number of 5,000 digits"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(text, message):
    if message is None:
        problems = [str(problem) for problem in read(text, "r.yaml").problems.values()]
        assert problems == ["r.yaml:1: a: the anchor &x; remove it", "r.yaml:2: b: the alias *x; write the value out"]
        return
    found, seconds = refused(text)
    assert message in found
    assert "\n" not in found
    assert seconds < 5


def test_an_alias_bomb_is_a_matter_of_milliseconds(tmp_path):
    """Nine lines that stand for 10^9 words: nothing is ever expanded."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    start = time.perf_counter()
    with pytest.raises(RecipeError) as caught:
        load(path)
    assert time.perf_counter() - start < 5
    assert "the alias *a8; write the value out" in str(caught.value)


def test_files_that_are_no_text(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes(b"a: \xff\xfe\n")
    with pytest.raises(RecipeError, match="not UTF-8 text: byte 3 is 0xff"):
        load(path)
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(RecipeError, match="larger than 1,048,576 bytes"):
        load(path)
    with pytest.raises(RecipeError, match="a folder; expected the file of a recipe"):
        load(tmp_path)
    with pytest.raises(RecipeError, match="no such file, nor a recipe that comes with tutelage"):
        load(tmp_path / "none.yaml")
    # A byte order mark, as some editors write it, is no part of the first key.
    path.write_bytes("\ufeffa: 1".encode())
    with pytest.raises(RecipeError, match=r"r\.yaml:1: a: unknown key"):
        load(path)


def test_every_setting_has_its_line():
    document = read("a:\n  b: [1,\n    2]\n\n  'c':\n    d: |\n      x\n", "r.yaml")
    lines = {path: place.line for path, place in document.places.items()}
    assert document.value == {"a": {"b": [1, 2], "c": {"d": "x\n"}}}
    assert lines == {
        (): 1, ("a",): 1, ("a", "b"): 2, ("a", "b", 0): 2, ("a", "b", 1): 3, ("a", "c"): 5, ("a", "c", "d"): 6,
    }  # fmt: skip


WORDS = (
    "1e-2 1e-4 1. .5 -0 +1 007 0o17 0x1f no yes on True tRue NULL ~ 12:30:00 .inf -.INF .NaN 1e e1 . 0x --1 inf nan "
    "1e400 -1e400 +.inf 1.5e+3 -.5 0o8 0xg true FALSE null"
)


@pytest.mark.parametrize("word", WORDS.split())
def test_words_mean_what_yaml_1_2_says(word):
    """Beside ruamel.yaml's own reading."""
    want = YAML(typ="safe", pure=True).load(f"[{word}]")[0]
    got = plain(word)
    assert type(got) is type(want)
    assert got == want or got != got


@given(st.text("0123456789.eE+-xo_aFnull~", max_size=8))
def test_words_beside_another_reader(word):
    got = plain(word)
    if isinstance(got, str):
        assert got == word
    elif isinstance(got, (int, float)) and not isinstance(got, bool) and got == got:
        theirs = YAML(typ="safe", pure=True).load(f"- {word}\n")[0]
        assert got == theirs


def test_what_only_other_readers_take_for_more_than_text():
    assert [plain(word) for word in ("1_000", "0b1", "2024-01-01", "<<")] == ["1_000", "0b1", "2024-01-01", "<<"]
