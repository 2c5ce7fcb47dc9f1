"""Texts and completions to tokens: what is a target, what is left out, and where a row is cut."""

import logging

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from tiny_texts import tokenizer
from tutelage.data import TokenRows, encode
from tutelage.data._token_rows import Document
from tutelage.errors import DataError, ParameterError, ShapeError

TOKENIZER = tokenizer()
END = TOKENIZER.eos_token_id


def ids(text):
    return TOKENIZER(text)["input_ids"]


def targets(row):
    return row["input_ids"][row["target_mask"]].tolist()


def with_start():
    """A tokenizer that puts a token before a text and another after it, as those of Llama and BERT do."""
    made = tokenizer()
    made.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|pad|> $A <|endoftext|>", special_tokens=[("<|pad|>", made.pad_token_id), ("<|endoftext|>", END)]
    )
    return made


def test_a_text_is_predicted_but_for_its_first_token():
    (row,) = encode([{"text": "def one(): pass"}], TOKENIZER, 64)
    assert row["input_ids"].tolist() == [*ids("def one(): pass"), END]
    assert targets(row) == row["input_ids"].tolist()[1:]
    assert row["labels"].tolist() == [-100, *row["input_ids"].tolist()[1:]]
    assert row["position_ids"].tolist() == list(range(len(row["input_ids"])))


def test_a_completion_is_predicted_from_its_first_token_to_its_end():
    (row,) = encode([{"prompt": "the answer is", "completion": " no"}], TOKENIZER, 64)
    assert row["input_ids"].tolist() == [*ids("the answer is"), *ids(" no"), END]
    assert targets(row) == [*ids(" no"), END]
    twice = {"prompt": "the answer is", "completion": " no<|endoftext|>"}
    (again,) = encode([twice], TOKENIZER, 64)
    assert torch.equal(again["input_ids"], row["input_ids"])


@given(st.text(alphabet="ab \n.jsondef", max_size=20), st.text(alphabet="ab \n.jsondef", min_size=1, max_size=20))
def test_a_prompt_is_tokenised_as_it_would_be_alone(prompt, completion):
    rows = encode([{"prompt": prompt, "completion": completion}], TOKENIZER, 64)
    (row,) = rows
    alone = ids(prompt) if prompt else []
    assert row["input_ids"].tolist()[: len(alone)] == alone
    assert TOKENIZER.decode(row["input_ids"]) == prompt + completion + "<|endoftext|>"
    # Without a prompt the first token is predicted by nothing.
    assert sum(row["target_mask"].tolist()) == len(row["input_ids"]) - max(len(alone), 1)


def test_special_tokens_of_the_tokenizer_stand_before_and_the_end_comes_once():
    text, completion = encode([{"text": "abc"}, {"prompt": "a", "completion": "bc"}], with_start(), 64)
    start = TOKENIZER.pad_token_id
    assert text["input_ids"].tolist() == [start, *ids("abc"), END]
    assert targets(text) == [*ids("abc"), END]
    assert completion["input_ids"].tolist()[0] == start
    assert completion["input_ids"].tolist().count(END) == 1


def test_a_boundary_within_a_token_of_the_whole():
    """A dummy space before every text, as sentencepiece has it, must not come between prompt and completion."""
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(
            tokenizers.models.WordLevel({"▁the": 0, "▁no": 1, "</s>": 2, "▁": 3, "no": 4, "?": 5}, unk_token="?")
        ),
        eos_token="</s>",
    )
    made.backend_tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="always")
    (row,) = encode([{"prompt": "the", "completion": " no"}], made, 16)
    assert row["input_ids"].tolist() == [0, 1, 2]
    # "the" and "no" would be one word: the prompt keeps the ids that it has alone.
    (row,) = encode([{"prompt": "the", "completion": "no"}], made, 16)
    assert row["input_ids"].tolist() == [0, 1, 2]


def test_no_space_comes_between_a_prompt_and_its_completion():
    """Such a tokenizer would put one before a completion that is tokenised for itself."""
    signs = tokenizers.models.BPE({"▁": 0, "a": 1, "b": 2, "</s>": 3}, [])
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(signs), eos_token="</s>")
    made.backend_tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="always")
    (row,) = encode([{"prompt": "a", "completion": "b"}], made, 16)
    assert row["input_ids"].tolist() == [0, 1, 2, 3]
    assert targets(row) == [2, 3]


@pytest.mark.parametrize("length", [2, 3, 5, 64])
def test_each_token_of_a_long_text_is_predicted_once(length):
    text = "import json, functools\n" * 3
    whole = [*ids(text), END]
    rows = encode([{"text": text}], TOKENIZER, length)
    assert [token for row in rows for token in targets(row)] == whole[1:]
    assert all(len(row["input_ids"]) <= length for row in rows)
    for one, two in zip(list(rows)[:-1], list(rows)[1:], strict=True):
        assert one["input_ids"][-1] == two["input_ids"][0]
    (cut,) = encode([{"text": text}], TOKENIZER, length, long_texts="truncate")
    assert cut["input_ids"].tolist() == whole[:length]


def test_long_completions_are_refused_or_dropped_and_counted(refused, caplog):
    fits, long = {"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "b " * 40}
    with refused(DataError, "pets, row 2 has 43 tokens", "long_completions='drop'"):
        encode([fits, long], TOKENIZER, 16, place="pets")
    with caplog.at_level(logging.WARNING, "tutelage.data"):
        texts = [long, fits, {"text": ""}, {"prompt": "a", "completion": ""}]
        rows = encode(texts, TOKENIZER, 16, long_completions="drop")
    assert rows.left_out == {"too long": 1, "empty": 2}
    assert "too long" in caplog.text
    assert [row["input_ids"].tolist() for row in rows] == [[*ids("a"), *ids("b"), END]]
    assert rows[0]["index"] == 0


def test_rows_come_in_order_whatever_their_form():
    texts = [{"text": f"text {n}"} if n % 3 else {"prompt": "text", "completion": f" {n}"} for n in range(600)]
    rows = encode(iter(texts), TOKENIZER, 64)
    assert [TOKENIZER.decode(row["input_ids"]) for row in rows] == [f"text {n}<|endoftext|>" for n in range(600)]


@pytest.mark.parametrize(
    ("row", "came", "remedy"),
    [
        ({"txt": "a"}, r"row 1 has \['txt'\]", "expected one of 'text'"),
        ({"text": "a", "messages": []}, "messages.*text", "not two"),
        ({"prompt": "a"}, r"\['prompt'\]", "completion"),
        ({"text": 3}, "'text' is int", "expected text"),
        ({"prompt": "a", "completion": ["b"]}, "'completion' is list", "expected text"),
        ("a", "row 1 is str", "mapping"),
        ({"text": ""}, "left out were {'empty': 1}", "no row"),
    ],
)
def test_bad_rows_are_named(row, came, remedy, refused):
    with refused(DataError, came, remedy):
        encode([row], TOKENIZER, 16)


def test_bad_arguments_are_named(refused):
    with refused(ParameterError, "length=1", "2 tokens"):
        encode([{"text": "a"}], TOKENIZER, 1)
    with refused(ParameterError, "'cut'", "split"):
        encode([{"text": "a"}], TOKENIZER, 16, long_texts="cut")
    with refused(DataError, "None", "tokenizer.eos_token"):
        encode([{"text": "a"}], tokenizer(eos_token=None), 16)
    with refused(DataError, "1 rows", "no token to predict"):
        TokenRows.of([Document([1, 2], [True, False])])
    with refused(ShapeError, r"\(1,\)", r"\(2,\)"):
        encode([{"text": "a"}, {"text": "b"}], TOKENIZER, 16).with_labels([True])


def test_rows_are_small_in_memory_and_known_by_what_they_hold():
    rows = encode([{"text": "import json"}, {"text": "import re"}], TOKENIZER, 16)
    assert rows.ids.dtype == np.int32
    assert rows.digest() == encode([{"text": "import json"}, {"text": "import re"}], TOKENIZER, 16).digest()
    others = [rows.with_labels([True, False]), encode([{"text": "import re"}, {"text": "import json"}], TOKENIZER, 16)]
    assert len({rows.digest(), *(other.digest() for other in others)}) == 3
    with pytest.raises(IndexError):
        rows[2]
