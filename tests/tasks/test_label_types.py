"""Labels of every whole type: -100 stands for no label where the type has it, and an unsigned type has none."""

import numpy as np
import pytest
import torch
from torch import nn

import tutelage as tl
from tiny_texts import tokenizer
from tutelage.errors import DataError, LabelError
from tutelage.tasks import CausalLM, Classification, MaskedLM, SequenceClassification, TokenClassification
from tutelage.training import Evaluation, MixingCollator, TokenCollator, collate

# What -100 becomes in each of them.
UNSIGNED = {torch.uint8: 156, torch.uint16: 65_436, torch.uint32: 2**32 - 100}
SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)
OF_ROWS = (Classification(), SequenceClassification())
OF_TOKENS = (CausalLM(), MaskedLM(), TokenClassification())
HARD = tl.Objective({"hard": tl.Term(tl.ForwardKL(), teacher="labels")})


@pytest.mark.parametrize("task", [*OF_ROWS, *OF_TOKENS], ids=lambda task: type(task).__name__)
@pytest.mark.parametrize("dtype", UNSIGNED, ids=str)
def test_every_value_of_an_unsigned_type_is_a_label(task, dtype):
    values = torch.tensor([7, UNSIGNED[dtype], 0])
    batch = {"labels": values.to(dtype) if task in OF_ROWS else values.to(dtype)[None]}
    labels, known = task.targets(batch)
    skipped = 1 if isinstance(task, CausalLM) else 0
    assert labels.targets.flatten().tolist() == values.tolist()[skipped:]
    assert labels.targets.dtype == torch.int64
    assert bool((known == 1).all())


@pytest.mark.parametrize("dtype", SIGNED, ids=str)
def test_in_a_signed_type_it_is_none(dtype):
    labels, known = Classification().targets({"labels": torch.tensor([3, -100, 0], dtype=dtype)})
    assert labels.targets.tolist() == [3, 0, 0]
    assert known.tolist() == [1, 0, 1]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16], ids=str)
def test_loss_counts_and_accuracy_are_those_of_int64(dtype):
    torch.manual_seed(0)
    student = nn.Linear(4, UNSIGNED[dtype] + 1)
    model = tl.DistillationModel(student, {"teacher": nn.Linear(4, UNSIGNED[dtype] + 1)}, HARD).eval()
    labels = torch.tensor([3, UNSIGNED[dtype], 5])
    batches = [{"inputs": torch.randn(3, 4, generator=torch.Generator().manual_seed(1)), "labels": labels}]
    batches += [{**batches[0], "labels": labels.to(dtype)}]
    found = []
    for batch in batches:
        out, evaluation = model(**batch), Evaluation(model)
        evaluation.add(out, batch)
        found.append((out["loss"].item(), model.term_counts(batch)["hard"].item(), evaluation.metrics(lambda x: x)))
    assert found[0][1] == 3
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_collators_keep_them_apart_from_rows_without_a_label(kind):
    value = UNSIGNED[torch.uint8] if kind is np.uint8 else UNSIGNED[torch.uint16]
    rows = [{"x": 1.0, "labels": kind(value), "index": 0}, {"x": 2.0, "labels": None, "index": 1}]
    assert Classification().targets(collate(rows))[1].tolist() == [1, 0]
    assert collate(rows)["labels"].tolist() == [value, -100]
    mixed = MixingCollator(lambda rows: {**collate(rows), "labels": torch.tensor([value, 1]).to(torch.uint16)})(rows)
    assert mixed["labels"].tolist() == [value, 1, -100, -100]
    tokens = [{"input_ids": [5, 6], "labels": np.array([value, 6], dtype=kind)}]
    tokens += [{"input_ids": [7, 8, 9], "labels": np.array([7, 8, value], dtype=kind)}, {"input_ids": [1]}]
    batch = TokenCollator(tokenizer())(tokens)
    assert batch["labels"].tolist() == [[value, 6, -100], [7, 8, value], [-100] * 3]
    of_rows = TokenCollator(tokenizer(), of_rows=True)([{"input_ids": [5], "labels": kind(value)}, {"input_ids": [6]}])
    assert of_rows["labels"].tolist() == [value, -100]


def test_what_int64_does_not_hold(refused):
    labels = torch.tensor([2**64 - 100], dtype=torch.uint64)
    with refused(LabelError, r"2\*\*63 or more", "int64"):
        Classification().targets({"labels": labels})


@pytest.mark.parametrize(
    ("value", "remedy"), [("good", "tokenize"), (["a", "b"], "data_collator"), ({"a": 1}, "column")]
)
def test_a_column_that_is_no_numbers(value, remedy, refused):
    with refused(DataError, rf"a row has {type(value).__name__} as 'review'", remedy):
        collate([{"x": 1.0, "review": value}])
