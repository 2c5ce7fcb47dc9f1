"""Causal language models: the shift, and what counts. Truth is transformers' own loss, and a loop over positions."""

import math

import pytest
import torch
import transformers

import tutelage as tl
from tiny_texts import SIZES, SOFT_AND_HARD, gpt2, gradients, llama, outcome
from tutelage.data import CausalCollator, TokenRows
from tutelage.data._token_rows import Document
from tutelage.errors import CompatibilityError, DtypeError, ModuleError, ShapeError
from tutelage.tasks import CausalLM

TASK = CausalLM()
PROMPT, LENGTH = 3, 7
# A prompt of three tokens and an answer of three with the end; then one and four; then an answer without a prompt.
DOCUMENTS = [
    Document([11, 12, 13, 14, 15, 16, 1], [False] * 3 + [True] * 4),
    Document([21, 22, 23, 24, 1], [False] + [True] * 4),
    Document([31, 32, 1], [True] * 3),
]
ROWS = TokenRows.of(DOCUMENTS)


def collated(side="right", rows=ROWS, pad_id=0):
    return CausalCollator(pad_id=pad_id, side=side)(list(rows))


@pytest.mark.parametrize("make", [llama, gpt2])
def test_the_hard_term_is_the_loss_of_transformers(make):
    student, teacher, batch = make(1), make(2), collated()
    theirs = student(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]).loss
    out = outcome(TASK, student, teacher, batch)
    assert out.parts["hard"].item() == pytest.approx(theirs.item(), rel=1e-5)


def test_the_soft_term_is_a_loop_over_the_tokens_that_are_predicted():
    student, teacher = llama(1).double(), llama(2).double()
    total, count = 0.0, 0
    for document in DOCUMENTS:
        ids = torch.tensor([document.ids])
        with torch.no_grad():
            p, q = (torch.log_softmax(network(input_ids=ids).logits[0], -1) for network in (teacher, student))
        for place in range(1, len(document.ids)):
            if document.targets[place]:
                # The token at a place is predicted by what stands before it.
                total += sum(
                    math.exp(a) * (a - b) for a, b in zip(*(x[place - 1].tolist() for x in (p, q)), strict=True)
                )
                count += 1
    assert count == 4 + 4 + 2
    out = outcome(TASK, student, teacher, collated())
    assert out.parts["soft"].item() == pytest.approx(total / count, rel=1e-9)


def test_only_positions_before_a_target_get_a_gradient():
    batch = collated()
    logits = torch.randn(3, LENGTH, 400, requires_grad=True, generator=torch.Generator().manual_seed(3))
    teacher = torch.randn(3, LENGTH, 400, generator=torch.Generator().manual_seed(4))
    outcome(TASK, lambda **_: logits, lambda **_: teacher, batch).loss.backward()
    touched = (logits.grad != 0).any(-1)
    # Written out by hand: the last token of the prompt predicts the answer's first, and the end predicts nothing.
    assert touched.int().tolist() == [[0, 0, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize("side", ["right", "left"])
def test_what_must_not_matter_does_not_by_a_bit(make, side):
    student, teacher, batch = make(1), make(2), collated(side)
    out = outcome(TASK, student, teacher, batch)
    before = gradients(student, out.loss)
    padding = batch["attention_mask"] == 0
    changes = {"padding": torch.where(padding, 123, batch["input_ids"])}
    if side == "right":
        # Nothing follows the last token of the longest row: what it says is compared with nothing.
        changes["last"] = batch["input_ids"].clone()
        changes["last"][0, -1] = 123
    for ids in changes.values():
        assert not torch.equal(ids, batch["input_ids"])
        other = outcome(TASK, student, teacher, {**batch, "input_ids": ids})
        assert other.loss.item() == out.loss.item()
        for one, two in zip(before, gradients(student, other.loss), strict=True):
            assert torch.equal(one, two)
    prompt = {**batch, "labels": batch["labels"].clone()}
    prompt["labels"][:, 0] = 77  # a first token that is called a target is none
    assert outcome(TASK, student, teacher, prompt).loss.item() == out.loss.item()


@pytest.mark.parametrize("place", [(0, PROMPT), (0, LENGTH - 1), (1, 1), (2, 1), (2, 2)])
def test_every_target_matters(place):
    """The first token of an answer and the end of it, among others."""
    student, teacher, batch = llama(1), llama(2), collated()
    out = outcome(TASK, student, teacher, batch)
    labels, mask = batch["labels"].clone(), batch["target_mask"].clone()
    labels[place], mask[place] = -100, 0
    assert outcome(TASK, student, teacher, {**batch, "labels": labels}).parts["hard"] != out.parts["hard"]
    assert outcome(TASK, student, teacher, {**batch, "target_mask": mask}).parts["soft"] != out.parts["soft"]


@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_side_that_is_padded_changes_nothing(make, attention):
    student, teacher = make(1, attention), make(2, attention)
    right, left = (outcome(TASK, student, teacher, collated(side)) for side in ("right", "left"))
    assert left.loss.item() == pytest.approx(right.loss.item(), rel=1e-5)
    for one, two in zip(gradients(student, right.loss), gradients(student, left.loss), strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-5 * one.abs().max().item())


def test_hidden_states_are_cut_where_logits_are():
    student, teacher, batch = llama(1), llama(2), collated()

    def states(**inputs):
        return tl.HeadStates(student.model(**inputs).last_hidden_state, student.lm_head.weight)

    dense, lean = outcome(TASK, student, teacher, batch), outcome(TASK, states, teacher, batch)
    assert lean.loss.item() == pytest.approx(dense.loss.item(), rel=1e-5)
    for one, two in zip(gradients(student, dense.loss), gradients(student, lean.loss), strict=True):
        assert torch.allclose(one, two, rtol=1e-3, atol=1e-6 * one.abs().max().item())


def test_rows_without_labels_are_compared_with_the_teacher():
    student, teacher = llama(1), llama(2)
    batch = collated(rows=ROWS.with_labels([False, True, False]))
    assert (batch["labels"] != -100).sum(1).tolist() == [0, 4, 0]
    labelled = outcome(TASK, student, teacher, collated())
    out = outcome(TASK, student, teacher, batch)
    assert out.parts["soft"] == labelled.parts["soft"]
    alone = outcome(TASK, student, teacher, collated(rows=[ROWS[1]]))
    assert out.parts["hard"].item() == pytest.approx(alone.parts["hard"].item(), rel=1e-5)


def test_a_model_of_both_gives_the_same_however_rows_are_split():
    """The micro-batches are of uneven length, and one of them has no label."""
    rows = ROWS.with_labels([True, False, True])
    student, teacher, whole = llama(1), llama(2), collated(rows=rows)
    expected = outcome(TASK, student, teacher, whole)
    wanted = gradients(student, expected.loss)
    model = tl.DistillationModel(student, {"teacher": teacher}, tl.Objective(SOFT_AND_HARD), TASK)
    assert {name: float(count) for name, count in model.term_counts(whole).items()} == {"soft": 10, "hard": 6}
    batches = [collated(rows=[row]) for row in rows]
    counts = [model.term_counts(batch) for batch in batches]
    total = {name: sum(count[name] for count in counts) for name in SOFT_AND_HARD}
    for split in ([whole], batches):
        student.zero_grad()
        found = [model(normalizer=total, **batch) for batch in split]
        sum(out["loss"] for out in found).backward()
        for name, part in expected.parts.items():
            assert sum(out["parts"][name].item() for out in found) == pytest.approx(part.item(), rel=1e-5)
        for one, parameter in zip(wanted, student.parameters(), strict=True):
            assert torch.allclose(one, parameter.grad, rtol=1e-4, atol=1e-5 * one.abs().max().item())


def test_a_batch_without_any_target_is_worth_nothing_and_trains_nothing():
    student, teacher, batch = llama(1), llama(2), collated()
    batch |= {"labels": torch.full_like(batch["labels"], -100), "target_mask": torch.zeros_like(batch["labels"])}
    out = outcome(TASK, student, teacher, batch)
    assert out.loss.item() == 0
    assert all(not gradient.any() for gradient in gradients(student, out.loss))


IDS = torch.tensor([[5, 6, 7, 8]])
MASK = torch.tensor([[0, 1, 1, 0]])
LABELS = torch.tensor([[-100, -100, 7, 8]])


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        ({"target_mask": MASK, "labels": LABELS, "attention_mask": torch.ones(1, 4)}, [1, 1, 0]),
        ({"labels": LABELS, "attention_mask": torch.ones(1, 4)}, [0, 1, 1]),
        ({"attention_mask": torch.tensor([[0, 1, 1, 1]])}, [0, 1, 1]),
        ({"attention_mask": torch.tensor([[1, 1, 1, 0]])}, [1, 1, 0]),
        ({"position_ids": torch.tensor([[0, 1, 0, 1]])}, [1, 0, 1]),
        ({"labels": LABELS, "position_ids": torch.tensor([[0, 1, 0, 1]])}, [0, 0, 1]),
        ({"attention_mask": torch.zeros(1, 1, 4, 4), "position_ids": torch.tensor([[0, 1, 2, 0]])}, [1, 1, 0]),
    ],
)
def test_which_predictions_count_without_a_label(batch, expected):
    weights = TASK.weights({"input_ids": IDS, **batch})
    assert weights.tolist() == [expected]


def test_a_batch_must_say_which_tokens_count():
    with pytest.raises(ShapeError, match="nothing in the batch says which tokens"):
        TASK.weights({"input_ids": IDS})


def test_the_start_of_a_document_is_no_target_whatever_the_labels_say():
    batch = {"input_ids": IDS, "labels": IDS, "position_ids": torch.tensor([[0, 1, 0, 1]])}
    labels, known = TASK.targets(batch)
    assert labels.targets.tolist() == [[6, 7, 8]]
    assert known.tolist() == [[1, 0, 1]]
    labels, known = TASK.targets({"labels": LABELS})
    assert (labels.targets.tolist(), known.tolist()) == ([[0, 7, 8]], [[0, 1, 1]])
    assert TASK.targets({"input_ids": IDS}) == (None, None)


def test_only_inputs_reach_the_networks():
    assert sorted(TASK.inputs(collated())) == ["attention_mask", "input_ids", "position_ids"]


@pytest.mark.parametrize(
    ("network", "config"),
    [
        (transformers.BertForMaskedLM, transformers.BertConfig),
        (transformers.LlamaForSequenceClassification, transformers.LlamaConfig),
    ],
)
def test_networks_that_are_for_another_task_are_refused(network, config, refused):
    wrapped = torch.nn.Module()
    wrapped.model = network(config(**SIZES, vocab_size=400))
    for student in (wrapped.model, wrapped):
        with refused(ModuleError, network.__name__, "such as ...ForCausalLM"):
            TASK.check(student)
    TASK.check(llama())


def test_bad_batches_and_outputs_are_named(refused):
    with refused(ShapeError, r"\(3, 400\)", "batch, length, width"):
        TASK.student(torch.zeros(3, 400))
    with refused(ShapeError, "1 token", "2 or more"):
        TASK.student(torch.zeros(3, 1, 400))
    with refused(CompatibilityError, "TopK", "Logits or HeadStates"):
        TASK.teacher(tl.TopK(torch.zeros(1, 2, 1).long(), torch.zeros(1, 2, 1), tail="renormalize"))
    with refused(DtypeError, "float32", "int64"):
        TASK.targets({"labels": torch.zeros(2, 3)})
    with refused(ShapeError, r"\(3,\)", "batch, length"):
        TASK.targets({"labels": torch.zeros(3).long()})
    with refused(ShapeError, r"\(1, 3\)", r"\(1, 4\)"):
        TASK.weights({"input_ids": IDS, "position_ids": torch.zeros(1, 3)})
    with refused(DtypeError, "list", "a tensor"):
        TASK.weights({"target_mask": [[1, 0]]})
