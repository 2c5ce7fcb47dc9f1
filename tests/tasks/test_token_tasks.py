"""Tasks without a shift: hidden tokens, classes of tokens, classes of texts, against the losses of transformers."""

import pytest
import torch
import transformers

from tiny_texts import SIZES, gradients, llama, outcome
from tutelage.errors import ModuleError, ShapeError
from tutelage.tasks import MaskedLM, SequenceClassification, TokenClassification

IDS = torch.tensor([[2, 7, 8, 9, 3], [2, 5, 3, 0, 0]])
BATCH = {"input_ids": IDS, "attention_mask": (IDS != 0).long(), "index": torch.tensor([0, 1])}


def bert(kind, seed=0, **sizes):
    torch.manual_seed(seed)
    config = transformers.BertConfig(**SIZES, vocab_size=400, max_position_embeddings=16, **sizes)
    network = getattr(transformers, f"BertFor{kind}")(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
    return network.eval()


@pytest.mark.parametrize(
    ("task", "kind", "labels"),
    [
        (MaskedLM(), "MaskedLM", [[-100, 17, -100, 19, -100], [-100, 15, -100, -100, -100]]),
        (TokenClassification(), "TokenClassification", [[-100, 0, 2, 1, -100], [-100, -100, -100, -100, -100]]),
        (SequenceClassification(), "SequenceClassification", [2, -100]),
    ],
)
def test_the_hard_term_is_the_loss_of_transformers(task, kind, labels):
    student, teacher = bert(kind, 1, num_labels=3), bert(kind, 2, num_labels=3)
    batch = {**BATCH, "labels": torch.tensor(labels)}
    task.check(student)
    out = outcome(task, student, teacher, batch)
    theirs = student(**{name: value for name, value in batch.items() if name != "index"}).loss
    assert out.parts["hard"].item() == pytest.approx(theirs.item(), rel=1e-5)
    # The soft term, position by position.
    weights = task.weights(batch)
    with torch.no_grad():
        p, q = (network(**task.inputs(batch)).logits.double().log_softmax(-1) for network in (teacher, student))
    values = (p.exp() * (p - q)).sum(-1)
    expected = values.mean() if weights is None else (values * weights).sum() / weights.sum()
    assert out.parts["soft"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert all(gradient.isfinite().all() for gradient in gradients(student, out.loss))


def test_which_tokens_count_without_a_label():
    mask, labels = torch.tensor([[0, 0, 1, 0, 0]]), torch.tensor([[-100, 7, -100, -100, -100]])
    attention = torch.tensor([[1, 1, 1, 1, 0]])
    hidden, tokens = MaskedLM(), TokenClassification()
    both = {"attention_mask": attention, "labels": labels}
    assert hidden.weights({**both, "target_mask": mask}).tolist() == mask.tolist()
    assert hidden.weights(both).tolist() == [[0, 1, 0, 0, 0]]
    assert hidden.weights({"attention_mask": attention}).tolist() == attention.tolist()
    # A class that no one told is the teacher's to tell.
    assert tokens.weights(both).tolist() == attention.tolist()
    assert tokens.weights({**both, "target_mask": mask}).tolist() == mask.tolist()
    for task in (hidden, tokens):
        with pytest.raises(ShapeError, match="nothing in the batch says which tokens"):
            task.weights({"labels": labels} if task is tokens else {})
    assert SequenceClassification().weights(both) is None
    assert hidden.targets({}) == tokens.targets({}) == (None, None)


def test_padding_changes_nothing_by_a_bit():
    student, teacher = bert("MaskedLM", 1), bert("MaskedLM", 2)
    batch = {**BATCH, "labels": torch.tensor([[-100, 17, -100, 19, -100], [-100, 15, -100, -100, -100]])}
    out = outcome(MaskedLM(), student, teacher, batch)
    other = outcome(MaskedLM(), student, teacher, {**batch, "input_ids": torch.where(IDS == 0, 99, IDS)})
    assert other.loss.item() == out.loss.item()


@pytest.mark.parametrize(
    ("task", "wrong", "expected"),
    [
        (MaskedLM(), "SequenceClassification", "ForMaskedLM"),
        (TokenClassification(), "MaskedLM", "ForTokenClassification"),
        (SequenceClassification(), "TokenClassification", "ForSequenceClassification"),
    ],
)
def test_networks_that_are_for_another_task_are_refused(task, wrong, expected, refused):
    with refused(ModuleError, f"BertFor{wrong}", expected):
        task.check(bert(wrong))
    with refused(ModuleError, "LlamaForCausalLM", expected):
        task.check(llama())


def test_one_distribution_for_a_text_is_not_one_for_each_token(refused):
    for task in (MaskedLM(), TokenClassification()):
        with refused(ShapeError, r"\(2, 3\)", "batch, length, width"):
            task.student(torch.zeros(2, 3))
