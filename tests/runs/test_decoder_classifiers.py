"""A recipe whose teacher is a decoder that classifies texts: it reads their last tokens, whoever pads them."""

import pytest
import torch
import transformers
from labelled_texts import written

from tiny_texts import SIZES, tokenizer
from tutelage.config import load
from tutelage.runs._labelled_texts import LabelledTexts

CHANGES = ["~teacher.bert", "~teacher.fit", "~data.tokenizer.train", "data.labeled=10", "baseline=false"]


def saved_teacher(folder, pad):
    config = transformers.LlamaConfig(**SIZES, vocab_size=400, num_labels=2, pad_token_id=None)
    config.id2label = {0: "argparse", 1: "ast"}
    torch.manual_seed(0)
    model = transformers.LlamaForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10 if parameter.dim() > 1 else 1)
    model.config.pad_token_id = pad
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize("pad", [None, 7])
def test_the_teacher_answers_as_for_each_text_alone(tmp_path, pad):
    teacher = saved_teacher(tmp_path / "teacher", pad)
    named = [f"{key}.model={tmp_path / 'teacher'}" for key in ("teacher", "data.tokenizer")]
    subject = LabelledTexts(load(written(tmp_path, count=20, held=10), [*CHANGES, *named]))
    found = subject.answers(subject.network("teacher", 0))
    rows = [subject.data.test[place]["input_ids"] for place in range(len(subject.data.test))]
    assert len({len(row) for row in rows}) > 1
    with torch.no_grad():
        alone = torch.cat([teacher(input_ids=row[None]).logits for row in rows])
    torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-5 * float(alone.abs().max()))
