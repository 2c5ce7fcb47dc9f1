"""Tokenizers: the same by content or not at all, and what is compared of two heads that are padded."""

from __future__ import annotations

import json
import logging
import shutil
import sysconfig
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers

import tutelage as tl
from tutelage.errors import DamagedDataError, ModelError, VocabularyError
from tutelage.models import align, compare_tokenizers, load_tokenizer

SIZE = 400


def train(text: str, *, digits: bool = False, end: str = "<end>") -> transformers.PreTrainedTokenizerFast:
    """A byte-level BPE trained on a text."""
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    split = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    if digits:
        split = tokenizers.pre_tokenizers.Sequence([tokenizers.pre_tokenizers.Digits(individual_digits=True), split])
    bpe.pre_tokenizer, bpe.decoder = split, tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=["<end>", "<turn>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([text], trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=end)


@pytest.fixture(scope="module")
def sources():
    place = Path(sysconfig.get_paths()["stdlib"])
    return [(place / name).read_text(encoding="utf-8") for name in ("textwrap.py", "bisect.py")]


@pytest.fixture(scope="module")
def saved(sources, tmp_path_factory):
    place = tmp_path_factory.mktemp("tokenizer")
    train(sources[0]).save_pretrained(place)
    return place


@pytest.fixture
def tokenizer(saved):
    return transformers.AutoTokenizer.from_pretrained(saved)


def changed(tokenizer, change):
    """The same tokenizer with its JSON changed."""
    inside = json.loads(tokenizer.backend_tokenizer.to_str())
    change(inside)
    again = tokenizers.Tokenizer.from_str(json.dumps(inside))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=again, eos_token="<end>")


def test_the_same_under_another_name(saved, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "copy")
    match = compare_tokenizers(load_tokenizer(saved), load_tokenizer(tmp_path / "copy"))
    assert (match.same, match.shared, match.differences) == (True, SIZE, [])


def test_another_tokenizer_of_the_same_size(sources, refused):
    mine, theirs = train(sources[0]), train(sources[1])
    assert len(mine) == len(theirs) == SIZE
    match = compare_tokenizers(mine, theirs)
    assert not match.same
    agree = {number for token, number in mine.get_vocab().items() if theirs.get_vocab().get(token) == number}
    assert 258 <= match.shared == len(agree) < SIZE
    first = min(set(range(SIZE)) - agree)
    assert match.differences[0].startswith(f"id {first} is {mine.convert_ids_to_tokens(first)!r} for the student")
    with refused(
        VocabularyError, rf"{SIZE} tokens and the teacher's {SIZE}, of which {len(agree)}.*id {first}", "same tokenizer"
    ):
        align(mine, theirs, SIZE, SIZE)


def swap_two_ids(inside):
    vocabulary = inside["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]


def lose_a_merge(inside):
    inside["model"]["merges"].pop(3)


def split_digits(inside):
    digits = {"type": "Digits", "individual_digits": True}
    inside["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, inside["pre_tokenizer"]]}


def lower_case(inside):
    inside["normalizer"] = {"type": "Lowercase"}


def join_accents(inside):
    inside["normalizer"] = {"type": "NFC"}


def prefix_a_space(inside):
    inside["pre_tokenizer"]["add_prefix_space"] = True


def forget_a_mark(inside):
    inside["added_tokens"] = [token for token in inside["added_tokens"] if token["content"] != "<turn>"]


@pytest.mark.parametrize(
    ("change", "came"),
    [
        (swap_two_ids, "id 66 is 'a' for the student and 'b'"),
        (lose_a_merge, "the student reads"),
        (lower_case, "the student reads 'The quick"),
        (join_accents, "the student reads 'cafe"),
        (prefix_a_space, "the student reads 'The quick"),
        (forget_a_mark, "the student reads '<end> <turn>"),
    ],
)
def test_what_ids_alone_do_not_show(tokenizer, change, came, refused):
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    theirs = changed(tokenizer, change)
    match = compare_tokenizers(tokenizer, theirs)
    assert not match.same
    assert came in match.differences[0]
    with refused(VocabularyError, came, "the same tokenizer"):
        align(tokenizer, theirs, SIZE, SIZE)


def test_numbers_cut_another_way(sources):
    text = " ".join(map(str, range(3000)))  # so that numbers of several digits are tokens
    mine = train(text)
    match = compare_tokenizers(mine, changed(mine, split_digits))
    assert match.shared == SIZE
    assert not match.same
    assert "the student reads '0 1 12 123" in match.differences[0]


def test_a_token_more_is_another_tokenizer(saved, tokenizer):
    longer = transformers.AutoTokenizer.from_pretrained(saved)
    longer.add_tokens(["<more>"])
    match = compare_tokenizers(tokenizer, longer)
    assert (match.same, match.shared) == (False, SIZE)
    assert match.differences[0] == f"id {SIZE} is nothing for the student and '<more>' for the teacher"


def test_another_end_of_text_is_said_and_no_reason(saved, sources):
    mine, theirs = train(sources[0]), train(sources[0], end="<turn>")
    match = compare_tokenizers(mine, theirs)
    assert match.same
    assert match.differences == ["the student's eos_token is '<end>' and the teacher's '<turn>'"]
    assert match.differences[0] in align(mine, theirs, SIZE, SIZE)[1]


def test_heads_of_one_width_are_compared_whole(tokenizer):
    assert align(tokenizer, tokenizer, SIZE, SIZE) == (
        None,
        "same tokenizer and heads of one width: all 400 outcomes are compared",
    )
    vocabulary, said = align(tokenizer, tokenizer, 448, 448)
    assert vocabulary is None
    assert "all 448 outcomes are compared, 48 of them padding" in said


@pytest.mark.parametrize(("student", "teacher"), [(SIZE, 448), (448, SIZE), (416, 512), (512, 416)])
def test_padded_heads_either_way(tokenizer, student, teacher):
    """Whatever stands in the padding: the divergence is that of the tokenizer's ids, and padding gets no gradient."""
    vocabulary, said = align(tokenizer, tokenizer, student, teacher)
    assert f"(student {student}, teacher {teacher}): the {SIZE} ids" in said
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(3, student, generator=generator).requires_grad_()
    p = torch.randn(3, teacher, generator=generator)
    expected = tl.divergence(q[:, :SIZE], p[:, :SIZE])
    junk_q, junk_p = q.detach().clone(), p.clone()
    junk_q[:, SIZE:], junk_p[:, SIZE:] = 50.0, -3.0
    junk_q.requires_grad_()
    found = tl.divergence(junk_q, junk_p, vocabulary=vocabulary)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert not junk_q.grad[:, SIZE:].any()
    assert junk_q.grad[:, :SIZE].any()


def test_heads_narrower_than_their_tokenizer(tokenizer, refused):
    with refused(VocabularyError, "teacher's head has 399 outcomes and its tokenizer the ids 0 to 399", "at least 400"):
        align(tokenizer, tokenizer, SIZE, SIZE - 1)
    with refused(VocabularyError, "student's head has 300 outcomes", "resize_token_embeddings"):
        align(tokenizer, tokenizer, 300, SIZE)


def test_ids_count_and_not_tokens(tokenizer):
    """Ids may have gaps: what the head must have is the largest."""
    gapped = changed(tokenizer, lambda inside: inside["model"]["vocab"].update({"~~~~": 430}))
    assert len(gapped.get_vocab()) == SIZE + 1
    assert align(gapped, gapped, 448, 480)[0].length == 431


# --- loading --------------------------------------------------------------------------------------------------------


def test_a_tokenizer_without_padding_pads_with_its_end(saved, caplog):
    with caplog.at_level(logging.WARNING, "tutelage"):
        found = load_tokenizer(saved)
    assert found.pad_token == found.eos_token == "<end>"
    assert caplog.text.count("has no padding token; its end-of-text token '<end>' pads") == 1
    padded = found(["a b", "a"], padding=True)
    assert padded["attention_mask"][1] == [1] + [0] * (len(padded["attention_mask"][0]) - 1)


def test_a_padding_token_of_its_own_is_kept(tokenizer, tmp_path, caplog):
    tokenizer.pad_token = "<turn>"
    tokenizer.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, "tutelage"):
        assert load_tokenizer(tmp_path).pad_token == "<turn>"
    assert caplog.text == ""


def test_folders_without_a_usable_tokenizer(saved, tmp_path, refused):
    with refused(ModelError, "holds no tokenizer", "save_pretrained"):
        load_tokenizer(tmp_path)
    place = shutil.copytree(saved, tmp_path / "copy")
    settings = json.loads((place / "tokenizer_config.json").read_text())
    (place / "tokenizer_config.json").write_text(
        json.dumps(settings | {"auto_map": {"AutoTokenizer": ["mine.Mine", None]}})
    )
    (place / "mine.py").write_text("raise SystemExit('this was run')")
    with refused(ModelError, "code of its own.*AutoTokenizer", "never run"):
        load_tokenizer(place)
    (place / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": None}))
    with refused(ModelError, "neither a padding nor an end-of-text token", "set tokenizer.pad_token"):
        load_tokenizer(place)
    whole = (place / "tokenizer.json").read_text()
    (place / "tokenizer.json").write_text(whole[:-20])
    with refused(DamagedDataError, "tokenizer.json is not JSON", "fetch it again"):
        load_tokenizer(place)
    (place / "tokenizer.json").write_text(json.dumps({"version": "1.0"}))
    with refused(ModelError, "cannot be loaded", "that transformers knows"):
        load_tokenizer(place)
