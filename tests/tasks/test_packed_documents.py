"""Documents that share a row: none sees another, whatever a network is built of, or the network is told apart."""

import pytest
import torch

from tiny_texts import gpt2, gradients, llama, mistral, outcome
from tutelage.data import CausalCollator, TokenRows, pack
from tutelage.data._token_rows import Document
from tutelage.errors import DataError, ShapeError
from tutelage.tasks import CausalLM, leak_between_documents

TASK = CausalLM()
DOCUMENTS = [
    Document([10 * n + i for i in range(1, size + 1)], [True] * size) for n, size in enumerate((7, 5, 4, 6, 1))
]
APART = TokenRows.of(DOCUMENTS)
PACKED = pack(APART, 12)
NETWORKS = [
    pytest.param(make, attention, id=f"{make.__name__}-{attention}")
    for make in (llama, gpt2, mistral)
    for attention in ("eager", "sdpa")
]


def collated(rows, documents, side="right"):
    return CausalCollator(0, side, documents)(list(rows))


def test_the_rows_of_these_tests():
    assert [row["position_ids"].tolist() for row in PACKED] == [
        [*range(7), *range(5)],
        [*range(4), *range(6), 0],
    ]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("documents", ["mask", "positions"])
@pytest.mark.parametrize(("make", "attention"), NETWORKS)
def test_one_document_changes_nothing_in_another(make, attention, documents, side):
    network = make(1, attention, use_cache=False)
    batch = collated(PACKED, documents, side)
    assert leak_between_documents(network, batch) is None
    # The same by hand, and backwards: the gradient of one document's logits is 0 in the others' embeddings.
    inputs = TASK.inputs(batch)
    embedded = network.get_input_embeddings()(inputs.pop("input_ids")).detach().requires_grad_()
    logits = network(inputs_embeds=embedded, **inputs).logits
    logits[0, 7:12].square().sum().backward()
    assert not embedded.grad[0, :7].any()
    assert not embedded.grad[0, 12:].any()
    assert not embedded.grad[1].any()
    assert embedded.grad[0, 7:12].any(-1).all()


@pytest.mark.parametrize("documents", ["mask", "positions"])
@pytest.mark.parametrize(("make", "attention"), NETWORKS)
def test_a_packed_loss_is_that_of_the_documents(make, attention, documents):
    student, teacher = (make(seed, attention, use_cache=False) for seed in (1, 2))
    alone = outcome(TASK, student, teacher, collated(APART, None))
    packed = outcome(TASK, student, teacher, collated(PACKED, documents))
    assert PACKED.target_count == APART.target_count == 6 + 4 + 3 + 5
    for name, value in alone.parts.items():
        assert packed.parts[name].item() == pytest.approx(value.item(), rel=1e-4)
    for one, two in zip(gradients(student, alone.loss), gradients(student, packed.loss), strict=True):
        assert torch.allclose(one, two, rtol=1e-3, atol=1e-4 * one.abs().max().item())


def test_a_target_at_each_boundary():
    """The gradient stops before a document's end and starts at its first token: written out by hand."""
    batch = collated(PACKED, "positions")
    logits = torch.randn(2, 12, 400, requires_grad=True)
    teacher = torch.randn(2, 12, 400)
    outcome(TASK, lambda **_: logits, lambda **_: teacher, batch).loss.backward()
    touched = (logits.grad != 0).any(-1)
    assert touched.int().tolist() == [[1] * 6 + [0] + [1] * 4 + [0], [1] * 3 + [0] + [1] * 5 + [0] * 3]


def test_a_network_that_lets_documents_see_each_other_is_told():
    for network in (llama(1), gpt2(1)):
        # Outside training transformers fills a cache, and overlooks positions that start again.
        assert "use_cache" in leak_between_documents(network, collated(PACKED, "positions"))
        assert leak_between_documents(network, collated(PACKED, "mask")) is None
        plain = {**collated(PACKED, "positions"), "attention_mask": torch.ones(2, 12)}
        assert leak_between_documents(network, plain) is not None
        assert not network.training


def test_a_network_is_asked_without_dropout_and_left_as_it_was():
    network = gpt2(1, resid_pdrop=0.5).train()
    assert leak_between_documents(network, collated([PACKED[0]], "mask")) is None
    assert network.training


def test_a_window_is_not_lost_to_a_mask():
    batch = collated(PACKED, "mask")
    assert "window of 4" in leak_between_documents(mistral(1, sliding_window=4, use_cache=False), batch)
    assert leak_between_documents(mistral(1, sliding_window=12), batch) is None
    network = mistral(1, "sdpa", sliding_window=4, use_cache=False)
    assert leak_between_documents(network, collated(PACKED, "positions")) is None


def test_what_cannot_be_told_is_refused(refused):
    with refused(DataError, "row 0 has several documents", "documents='mask'"):
        collated(PACKED, None)
    with refused(ShapeError, "two documents", "packed rows"):
        leak_between_documents(llama(), collated(APART, "positions", "right") | {"position_ids": torch.ones(5, 7)})
    with refused(ShapeError, "lacks", "packed rows"):
        leak_between_documents(llama(), {"input_ids": torch.ones(1, 4).long()})
