"""A folder that somebody else made is data: it names no code, and nothing in it makes the reader wait."""

import json
import os
import shutil
import time
from functools import partial

import pytest
import torch
import transformers

from tutelage.data import train_tokenizer
from tutelage.errors import DamagedDataError, ModelError
from tutelage.models import compare_tokenizers, load_pretrained, load_tokenizer, named_panics, saved_classes


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A small Llama with its tokenizer."""
    place = tmp_path_factory.mktemp("original")
    tokenizer = train_tokenizer(["def f(x): return x"] * 2, size=260)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=260,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=24,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.fixture
def model(original, tmp_path):
    return shutil.copytree(original, tmp_path / "model")


def change(place, name, **entries):
    file = place / name
    file.write_text(json.dumps({**(json.loads(file.read_text()) if file.is_file() else {}), **entries}))


CODE = [
    ("config.json", {"_attn_implementation": "someone/kernel"}),
    ("config.json", {"attn_implementation": "someone/kernel@main:attend"}),
    ("config.json", {"_attn_implementation_internal": "someone/kernel"}),
    ("config.json", {"attn_implementation": {"": "sdpa", "text_config": "someone/kernel"}}),
    ("config.json", {"attn_implementation": "msa|someone/kernel"}),
    ("config.json", {"attn_implementation": ["someone/kernel"]}),
    ("config.json", {"attn_implementation": "flash_attention_3"}),
    ("config.json", {"_experts_implementation": "someone/kernel"}),
    ("config.json", {"experts_implementation": "sonicmoe"}),
    ("config.json", {"text_config": {"_attn_implementation": "someone/kernel"}}),
    ("config.json", {"per_layer_config": [{"attn_implementation": "someone/kernel"}]}),
    ("config.json", {"text_config": {"auto_map": {"AutoConfig": "mine.Mine"}}}),
    ("generation_config.json", {"custom_generate": "someone/generate"}),
]


@pytest.mark.parametrize(("file", "entries"), CODE, ids=lambda value: value if isinstance(value, str) else str(value))
def test_code_is_refused_by_name(model, refused, file, entries):
    change(model, file, **entries)
    named = next(name for name in ("someone/", "flash_attention_3", "sonicmoe", "AutoConfig") if name in str(entries))
    with refused(ModelError, rf"code of its own \('.*' in {file}: .*{named}", "that transformers has itself"):
        load_pretrained(model, auto="causal_lm")


@pytest.mark.parametrize("name", ["eager", "sdpa", None])
def test_implementations_of_the_library_are_fine(model, name):
    change(model, "config.json", attn_implementation=name, _experts_implementation="eager")
    found = load_pretrained(model, auto="causal_lm")
    assert found.config._attn_implementation == (name or "sdpa")


@pytest.mark.parametrize("entries", [{"num_hidden_layers": 10**7}, {"text_config": {"n_layer": 10**7}}], ids=str)
def test_sizes_that_take_forever_are_refused_at_once(model, refused, entries):
    change(model, "config.json", **entries)
    start = time.process_time()
    for read in (lambda: load_pretrained(model, auto="causal_lm"), lambda: load_tokenizer(model)):
        with refused(ModelError, "layers? is 10,000,000", "expected at most 10,000"):
            read()
    change(model, "config.json", num_labels=10**9, num_hidden_layers=1, text_config=None)
    with refused(ModelError, "num_labels is 1,000,000,000", "expected at most"):
        saved_classes(model)
    assert time.process_time() - start < 1


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
def test_a_pipe_in_the_place_of_a_file(model, refused, name):
    (model / name).unlink(missing_ok=True)
    os.mkfifo(model / name)
    with refused(ModelError, f"{name} is no plain file", "expected one"):
        load_tokenizer(model)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_json_that_is_nested_too_deep(model, refused, name):
    (model / name).write_text("[" * 100_000)
    with refused(DamagedDataError, f"{name} is not JSON", "fetch it again"):
        load_tokenizer(model)


def test_a_pattern_that_the_tokenizer_cannot_apply(model, refused, capfd):
    """The library panics, which is no `Exception` of Python."""
    plain = load_tokenizer(model)
    inside = json.loads((model / "tokenizer.json").read_text())
    slow = {"type": "Split", "pattern": {"Regex": "(x+)+$"}, "behavior": "Isolated", "invert": False}
    (model / "tokenizer.json").write_text(json.dumps({**inside, "pre_tokenizer": slow}))
    tokenizer = load_tokenizer(model)
    with refused(ModelError, "the tokenizer failed .*retry-limit", "Use another tokenizer"), named_panics():
        tokenizer("x" * 10_000 + "!")
    with named_panics():
        assert not compare_tokenizers(plain, tokenizer).same
    capfd.readouterr()  # the library says so on stderr, too


def test_a_file_is_no_model(tmp_path, refused):
    torch.save({}, tmp_path / "model.pth")
    for read in (partial(load_pretrained, auto="causal_lm"), load_tokenizer):
        with refused(
            ModelError, "model.pth is a file; expected the folder.*can run code", "torch.load where you trust it"
        ):
            read(tmp_path / "model.pth")
