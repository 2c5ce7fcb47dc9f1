"""Masked language models: which tokens are hidden, how, and that nothing but the row decides."""

import functools
from pathlib import Path

import pytest
import tokenizers
import torch

from tiny_texts import tokenizer
from tutelage.data import MaskedCollator, encode_masked, train_tokenizer
from tutelage.errors import DataError, ParameterError


@pytest.fixture
def bert_like():
    """A tokenizer with a token before a text, one after it, and one that hides: ids 400 to 402."""
    made = tokenizer()
    made.add_special_tokens({"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"})
    made.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", made.cls_token_id), ("[SEP]", made.sep_token_id)]
    )
    return made


def test_each_token_of_a_text_is_in_one_piece(bert_like):
    text = "import json, functools\n" * 3
    whole = bert_like(text, add_special_tokens=False)["input_ids"]
    rows = encode_masked([{"text": text}, {"text": ""}], bert_like, 10)
    assert rows.left_out == {"empty": 1}
    found = []
    for row in rows:
        ids = row["input_ids"].tolist()
        assert (ids[0], ids[-1]) == (bert_like.cls_token_id, bert_like.sep_token_id)
        assert len(ids) <= 10
        assert row["target_mask"].tolist() == [False] + [True] * (len(ids) - 2) + [False]
        found += ids[1:-1]
    assert found == whole


def test_shares_are_those_of_the_paper(bert_like):
    rows = list(encode_masked([{"text": f"import module {n:04} as a, b, c"} for n in range(1500)], bert_like, 64))
    batch = MaskedCollator.of(bert_like)(rows)
    chosen = batch["target_mask"].bool()
    originals = torch.full_like(batch["input_ids"], bert_like.pad_token_id)
    for place, row in enumerate(rows):
        originals[place, : len(row["input_ids"])] = row["input_ids"]
        count = int(row["target_mask"].sum())
        assert chosen[place].sum() == max(1, round(0.15 * count))
    assert torch.equal(batch["input_ids"][~chosen], originals[~chosen])
    assert torch.equal(batch["labels"], torch.where(chosen, originals, -100))
    assert torch.equal(batch["attention_mask"], (originals != bert_like.pad_token_id).long())
    shown, was = batch["input_ids"][chosen], originals[chosen]
    total = len(was)
    hidden, kept = (shown == bert_like.mask_token_id).sum() / total, (shown == was).sum() / total
    assert total > 4000
    # Four standard deviations of a draw of this size.
    assert hidden.item() == pytest.approx(0.8, abs=4 * (0.16 / total) ** 0.5)
    assert kept.item() == pytest.approx(0.1, abs=4 * (0.09 / total) ** 0.5 + 1 / 400)
    random = shown[(shown != was) & (shown != bert_like.mask_token_id)]
    assert not set(random.tolist()) & set(bert_like.all_special_ids)
    assert len(set(random.tolist())) > 150
    # No place is preferred: the first and the last token of the texts among them.
    assert chosen[:, 1].any()
    assert not chosen[:, 0].any()


def test_the_row_alone_decides(bert_like):
    rows = list(encode_masked([{"text": f"import module {n} as abc"} for n in range(8)], bert_like, 32))
    collate = MaskedCollator.of(bert_like, share=0.5)
    together, apart = collate(rows), [collate([row]) for row in reversed(rows)][::-1]
    for place, batch in enumerate(apart):
        length = batch["input_ids"].shape[1]
        for name in ("input_ids", "labels", "target_mask"):
            assert torch.equal(batch[name][0], together[name][place, :length])
    other = MaskedCollator.of(bert_like, share=0.5, seed=1)(rows)
    assert not torch.equal(other["target_mask"], together["target_mask"])
    assert len({str(batch["target_mask"].tolist()) for batch in apart}) > 4


def test_rows_without_labels_hide_tokens_for_the_teacher_alone(bert_like):
    rows = encode_masked([{"text": "import one"}, {"text": "import two"}], bert_like, 32).with_labels([False, True])
    batch = MaskedCollator.of(bert_like)(list(rows))
    assert batch["target_mask"].any(1).tolist() == [True, True]
    assert (batch["labels"] != -100).any(1).tolist() == [False, True]


def test_bad_arguments_are_named(bert_like, refused):
    with refused(ParameterError, "mask_id=None", "a mask token"):
        MaskedCollator.of(tokenizer())
    for wrong in (0, 1.5):
        with refused(ParameterError, f"share={wrong}", "in .0, 1"):
            MaskedCollator.of(bert_like, share=wrong)
    with refused(ParameterError, "special", "ids to draw"):
        MaskedCollator(0, 1, 3, special=[2])
    with refused(ParameterError, "length=2", "room"):
        encode_masked([{"text": "a"}], bert_like, 2)
    with refused(DataError, "row 1", "'text'"):
        encode_masked([{"prompt": "a"}], bert_like, 16)
    with refused(DataError, "1 rows, 1 of them empty", "no text"):
        encode_masked([{"text": ""}], bert_like, 16)


def test_a_tokenizer_made_for_encoders_sets_around_texts_what_bert_does():
    """The truth is the library's own processor for BERT, around the ids of the same texts alone."""
    made = train_tokenizer([Path(functools.__file__).read_text()], 300, for_encoder=True)
    assert len(made) == 300
    assert len({made.cls_token_id, made.sep_token_id, made.pad_token_id, made.mask_token_id}) == 4
    texts = ("def f(x):", "return x  # é")
    ids = made(texts[0], add_special_tokens=False)["input_ids"]
    ours = [dict(made(*some, return_token_type_ids=True)) for some in (texts[:1], texts)]
    made.backend_tokenizer.post_processor = tokenizers.processors.BertProcessing(
        ("[SEP]", made.sep_token_id), ("[CLS]", made.cls_token_id)
    )
    assert ours == [dict(made(*some, return_token_type_ids=True)) for some in (texts[:1], texts)]
    assert ours[0]["input_ids"] == [made.cls_token_id, *ids, made.sep_token_id]
    assert 1 in ours[1]["token_type_ids"]
    assert made.decode(ours[0]["input_ids"], skip_special_tokens=True) == texts[0]
