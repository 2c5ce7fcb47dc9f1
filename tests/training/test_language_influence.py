"""What a step of a language model may depend on, asked of the whole of it: collator, task, head, objective.

Every place is changed in turn, and those that made a difference are compared with a list written out by hand.
"""

import pytest
import torch
from language_helpers import OBJECTIVE, student, teacher

import tutelage as tl
from tutelage.data import CausalCollator, TokenRows, pack
from tutelage.data._token_rows import Document
from tutelage.models import language_model
from tutelage.tasks import CausalLM
from tutelage.training import TokenCollator

EOS = 1
# A prompt of three and an answer of three with its end; a prompt of one and an answer of two that was cut off.
TEXTS = TokenRows.of(
    [
        Document([11, 12, 13, 14, 15, EOS], [False] * 3 + [True] * 3),
        Document([21, 22, 23], [False] + [True] * 2),
    ]
)


class _Ids:
    pad_token_id = eos_token_id = EOS


COLLATORS = {
    "right": CausalCollator(pad_id=EOS),
    "left": CausalCollator(pad_id=EOS, side="left"),
    "tokenizer": TokenCollator(_Ids()),
}


def model_of(**changes):
    networks = (student(use_cache=False, **changes), teacher(use_cache=False))
    learner, wise = (language_model(network) for network in networks)
    # The teacher says something different where its input is.
    return tl.DistillationModel(learner, {"teacher": wise}, OBJECTIVE, CausalLM()).train()


MODEL = model_of()


def step(batch):
    """The loss, its parts and the whole gradient of one step, exactly."""
    MODEL.zero_grad()
    out = MODEL(normalizer=MODEL.term_counts(batch), **batch)
    out["loss"].backward()
    values = [out["loss"], *out["parts"].values()]
    return torch.stack([value.detach() for value in values]), [p.grad.clone() for p in MODEL.parameters()]


def differs(one, two):
    return not torch.equal(one[0], two[0]) or not all(map(torch.equal, one[1], two[1]))


def influence(batch, name, change):
    """Where a change of one entry changes a step: 1 for each such place."""
    before = step(batch)
    found = torch.zeros_like(batch[name])
    for place in torch.ones_like(batch[name]).nonzero().tolist():
        changed = batch[name].clone()
        changed[tuple(place)] = change(changed[tuple(place)])
        found[tuple(place)] = differs(before, step({**batch, name: changed}))
    return found.tolist()


def another(token):
    return (token + 100) % 400


# Right: | 11 12 13 14 15 end | 21 22 23 pad pad pad |. The last token of a text is read by nobody that is asked.
READ = {"right": [[1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0]], "left": [[1, 1, 1, 1, 1, 0], [0, 0, 0, 1, 1, 0]]}
# The first token of the answer, and its end, are targets; the prompt and the padding, which is the end's id, are not.
TARGETS = {"right": [[0, 0, 0, 1, 1, 1], [0, 1, 1, 0, 0, 0]], "left": [[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1]]}


@pytest.mark.parametrize("by", COLLATORS)
def test_what_is_read(by):
    batch = COLLATORS[by](list(TEXTS))
    assert influence(batch, "input_ids", another) == READ[by if by == "left" else "right"]


@pytest.mark.parametrize("by", COLLATORS)
def test_what_is_learned(by):
    batch = COLLATORS[by](list(TEXTS))
    expected = TARGETS[by if by == "left" else "right"]
    there = batch["labels"] != -100
    assert there.int().tolist() == expected
    found = influence(batch, "labels", lambda token: another(token) if token != -100 else token)
    assert found == expected
    # A target that loses its label, or the teacher's word, counts no more.
    assert influence(batch, "labels", lambda token: -100) == expected
    assert influence(batch, "target_mask", lambda one: 0) == expected


def test_labels_alone_say_what_is_compared():
    batch = COLLATORS["right"](list(TEXTS))
    del batch["target_mask"]
    assert influence(batch, "input_ids", another) == READ["right"]
    assert influence(batch, "labels", lambda token: -100) == TARGETS["right"]
    assert {name: float(count) for name, count in MODEL.term_counts(batch).items()} == {"soft": 5, "hard": 5}
    # Which of two tokens would be asked for tells one place from the next.
    batch["labels"][0, 3] = -100
    assert influence(batch, "labels", lambda token: -100) == [[0, 0, 0, 0, 1, 1], *TARGETS["right"][1:]]
    before = MODEL(normalizer={"soft": 1.0, "hard": 1.0}, **batch)["parts"]["soft"]
    by_mask = {**batch, "target_mask": (batch["labels"] != -100).long()}
    assert torch.equal(before, MODEL(normalizer={"soft": 1.0, "hard": 1.0}, **by_mask)["parts"]["soft"])


def test_a_prompt_that_gets_a_target_is_seen_to_matter():
    """The lists above would be of no use if nothing could change them."""
    batch = COLLATORS["right"](list(TEXTS))
    more = {**batch, "target_mask": batch["target_mask"].clone()}
    more["target_mask"][0, 2] = 1
    assert differs(step(batch), step(more))


# --- packed -----------------------------------------------------------------------------------------------------------

PACKED = pack(TEXTS, 9)
TOGETHER = {documents: CausalCollator(EOS, documents=documents) for documents in ("mask", "positions")}


@pytest.mark.parametrize("documents", TOGETHER)
def test_what_is_read_in_a_packed_row(documents):
    batch = TOGETHER[documents](list(PACKED))
    assert batch["input_ids"].tolist() == [[11, 12, 13, 14, 15, EOS, 21, 22, 23]]
    # The end of the first text would predict the second's first token; it is no target, whatever its label says.
    assert influence(batch, "input_ids", another) == [[1, 1, 1, 1, 1, 0, 1, 1, 0]]
    batch["labels"][0, 6], batch["target_mask"][0, 6] = 21, 1
    assert influence(batch, "labels", lambda token: another(token) if token != -100 else token) == [
        [0, 0, 0, 1, 1, 1, 0, 1, 1]
    ]
    assert influence(batch, "target_mask", lambda one: 0) == [[0, 0, 0, 1, 1, 1, 0, 1, 1]]


@pytest.mark.parametrize("documents", TOGETHER)
def test_a_text_is_not_seen_by_its_neighbour(documents):
    """Only the second text has targets: the first may be anything."""
    batch = TOGETHER[documents](list(PACKED))
    for name, nothing in (("labels", -100), ("target_mask", 0)):
        batch[name][:, :6] = nothing
    assert influence(batch, "input_ids", another) == [[0, 0, 0, 0, 0, 0, 1, 1, 0]]
    # And a mask or positions are what does it.
    plain = {**batch, "attention_mask": torch.ones(1, 9)}
    plain["position_ids"] = torch.arange(9)[None]
    assert influence(plain, "input_ids", another)[0][:6] == [1] * 6


# --- tokens without labels --------------------------------------------------------------------------------------------


def test_only_real_tokens_are_compared_where_a_batch_has_no_labels():
    batch = COLLATORS["tokenizer"]([{"input_ids": row["input_ids"], "labels": None} for row in TEXTS])
    assert (batch["labels"] == -100).all()
    del batch["labels"]
    assert influence(batch, "input_ids", another) == READ["right"]
    assert {name: float(count) for name, count in MODEL.term_counts(batch).items()} == {"soft": 5 + 2, "hard": 0}
