"""Rows of tokens padded on the left train, and are evaluated, as those padded on the right: every collator."""

import warnings

import language_helpers as lang
import pytest
import torch
import transformers

import tutelage as tl
from tiny_texts import SIZES, gpt2, llama, tokenizer
from tutelage.data import CausalCollator, MaskedCollator
from tutelage.errors import InputWarning
from tutelage.tasks import CausalLM, MaskedLM, TokenClassification, in_order_of, right_padded
from tutelage.training import Evaluation

# A label on every token, the first one, too: nothing stands before that one.
ROWS = [[5, 6, 7, 8, 9, 10], [11, 12], [13, 14, 15, 16], [17, 18, 19]]
HARD = {"hard": tl.Term(tl.ForwardKL(), teacher="labels")}
ROWS = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in ROWS]


def padded(rows, side):
    """A dictionary by hand, without positions."""
    longest = max(len(row["input_ids"]) for row in rows)

    def column(name, filling):
        filled = ([filling] * (longest - len(row[name])) for row in rows)
        pairs = zip(filled, (row[name] for row in rows), strict=True)
        return torch.tensor([pad + ids if side == "left" else ids + pad for pad, ids in pairs])

    batch = {"input_ids": column("input_ids", 1), "attention_mask": column("attention_mask", 0)}
    return {**batch, "labels": torch.where(batch["attention_mask"] == 1, batch["input_ids"], -100)}


def with_target_mask(rows, side):
    batch = padded(rows, side)
    return {**batch, "target_mask": batch["attention_mask"]}


def with_padding(rows, side):
    """transformers' own, and labels on everything, padding as well."""
    batch = transformers.DataCollatorWithPadding(tokenizer(padding_side=side))(rows)
    return {**batch, "labels": batch["input_ids"].clone()}


def for_language_modeling(rows, side):
    return transformers.DataCollatorForLanguageModeling(tokenizer(padding_side=side), mlm=False)(rows)


def causal_collator(rows, side):
    made = [{**row, "index": i, "position_ids": torch.arange(len(row["input_ids"]))} for i, row in enumerate(rows)]
    made = [{**row, "labels": row["input_ids"], "target_mask": [1] * len(row["input_ids"])} for row in made]
    return CausalCollator(1, side=side)(made)


COLLATORS = (padded, with_target_mask, with_padding, for_language_modeling, causal_collator)


@pytest.mark.parametrize(
    ("make", "collator"), [*((gpt2, collator) for collator in COLLATORS), (llama, padded)], ids=lambda it: it.__name__
)
def test_a_step_is_that_of_padding_on_the_right(tmp_path, make, collator):
    steps = {}
    for side in ("right", "left"):
        given = {"data_collator": lambda rows, side=side: collator(rows, side), "task": CausalLM(), "rows": ROWS}
        steps[side] = lang.one_step(tmp_path / side, make(1), make(2), **given)
    line, gradient = steps["right"]
    assert line["hard"] > 0
    lang.check(steps["left"], ({name: line[name] for name in ("loss", "soft", "hard")}, gradient))


def test_it_is_that_of_rows_alone(tmp_path):
    found = lang.one_step(tmp_path, llama(1), llama(2), data_collator=lambda rows: padded(rows, "left"), rows=ROWS)
    soft = hard = count = 0.0
    student, teacher = llama(1).double(), llama(2).double()
    for row in ROWS:
        ids = torch.tensor([row["input_ids"]])
        with torch.no_grad():
            log_q, log_p = (net(input_ids=ids).logits[0, :-1] for net in (student, teacher))
        hard += torch.nn.functional.cross_entropy(log_q, ids[0, 1:], reduction="sum").item()
        log_q, log_p = (log_q / 2).log_softmax(-1), (log_p / 2).log_softmax(-1)
        soft += (log_p.exp() * (log_p - log_q)).sum().item()
        count += ids.shape[1] - 1
    assert found[0]["hard"] == pytest.approx(hard / count, rel=1e-5)
    assert found[0]["soft"] == pytest.approx(soft / count, rel=1e-5)


def bert(cls, seed, **changes):
    torch.manual_seed(seed)
    made = cls(transformers.BertConfig(**SIZES, vocab_size=400, max_position_embeddings=12, **changes)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(10 if parameter.dim() > 1 else 1)
    return made


ENCODERS = {
    "masked": (transformers.BertForMaskedLM, MaskedLM(), {}),
    "classes of tokens": (transformers.BertForTokenClassification, TokenClassification(), {"num_labels": 400}),
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoders(tmp_path, kind):
    cls, task, changes = ENCODERS[kind]
    changes |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    steps = {}
    for side in ("right", "left"):
        given = {"data_collator": lambda rows, side=side: with_target_mask(rows, side), "task": task, "rows": ROWS}
        steps[side] = lang.one_step(tmp_path / side, bert(cls, 1, **changes), bert(cls, 2, **changes), **given)
    line, gradient = steps["right"]
    lang.check(steps["left"], ({name: line[name] for name in ("loss", "soft", "hard")}, gradient))


def test_evaluation_and_predictions(tmp_path):
    kept = {}

    def keep(found):
        logits, labels = torch.tensor(found.predictions), torch.tensor(found.label_ids)
        kept[side] = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        return {}

    class Plain(torch.nn.Module):
        """A network whose logits exist, and whose positions are its own."""

        def __init__(self, seed):
            super().__init__()
            self.inside = gpt2(seed)

        def forward(self, input_ids, attention_mask):
            return self.inside(input_ids=input_ids, attention_mask=attention_mask).logits

    # The first label of each row is none: in the order of a batch it would be predicted from padding.
    def collate(rows):
        batch = padded(rows, side)
        first = batch["attention_mask"].argmax(1, keepdim=True)
        return {**batch, "labels": batch["labels"].scatter(1, first, -100)}

    scores = {}
    for side in ("right", "left"):
        given = {"data_collator": collate, "task": CausalLM(), "rows": ROWS, "eval_dataset": ROWS}
        trainer = lang.trainer_of(tmp_path / side, Plain(1), Plain(2), **given)
        trainer.compute_metrics = keep
        scores[side] = trainer.evaluate()
    assert kept["left"] == pytest.approx(kept["right"].item(), rel=1e-5)
    measured = {name for name in scores["right"] if not name.endswith(("runtime", "per_second", "time"))}
    for name in measured:
        assert scores["left"][name] == pytest.approx(scores["right"][name], rel=1e-5), name


def test_an_evaluation_of_a_model(tmp_path):
    model = tl.DistillationModel(gpt2(1), {"teacher": gpt2(2)}, lang.OBJECTIVE, CausalLM()).eval()
    found = []
    for side in ("right", "left"):
        batch, evaluation = padded(ROWS, side), Evaluation(model)
        with torch.no_grad():
            evaluation.add(model(**batch), batch)
        found.append(evaluation.metrics(lambda total: total))
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_hidden_tokens_padded_on_the_side_of_the_tokenizer(tmp_path):
    rows = [{**row, "index": i} for i, row in enumerate(ROWS)]
    rows = [{**r, "input_ids": torch.tensor(r["input_ids"]), "labels": torch.tensor(r["input_ids"])} for r in rows]
    rows = [{**row, "target_mask": torch.ones(len(row["labels"]), dtype=torch.bool)} for row in rows]
    lines = []
    for side in ("right", "left"):
        collate = MaskedCollator(mask_id=2, pad_id=1, vocabulary=400, side=side, share=0.5)
        networks = [bert(transformers.BertForMaskedLM, seed) for seed in (1, 2)]
        trainer = lang.trainer_of(
            tmp_path / side, networks[0], networks[1], data_collator=collate, rows=rows, eval_dataset=rows
        )
        lines.append(trainer.evaluate())
    assert lines[1]["eval_loss"] == pytest.approx(lines[0]["eval_loss"], rel=1e-5)


# --- without a mask ---------------------------------------------------------------------------------------------------


class Inside(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, input_ids):
        return self.inner(input_ids=input_ids)


def unmasked(side, rows=ROWS):
    batch = padded(rows, side)
    del batch["attention_mask"]
    return batch


@pytest.mark.parametrize("wrap", [lambda network: network, Inside], ids=["bare", "in a user's module"])
def test_padding_on_the_left_without_a_mask_is_named_once(tmp_path, wrap):
    given = {"data_collator": lambda rows: unmasked("left", rows), "task": CausalLM(), "rows": ROWS}
    networks = [wrap(gpt2(seed, pad_token_id=1)) for seed in (1, 2)]
    trainer = lang.trainer_of(tmp_path, *networks, eval_dataset=ROWS, num_train_epochs=2, **given)
    # Neither a second pass nor an evaluation says more.
    with pytest.warns(InputWarning, match="no attention_mask, and rows start with the padding id 1 of GPT2LM") as found:
        trainer.train()
    with warnings.catch_warnings(action="error", category=InputWarning):
        trainer.evaluate()
    assert [warning.category for warning in found].count(InputWarning) == 1


def tokens(seed, **changes):
    return bert(transformers.BertForTokenClassification, seed, num_labels=400, **changes)


@pytest.mark.parametrize("who", ["student", "teacher"])
@pytest.mark.parametrize(
    ("make", "task"), [(gpt2, CausalLM()), (tokens, TokenClassification())], ids=["causal", "classes of tokens"]
)
def test_the_padding_of_either_network_counts(who, make, task):
    networks = {"student": make(1), "teacher": make(2), who: make(3, pad_token_id=1)}
    model = tl.DistillationModel(networks["student"], {"teacher": networks["teacher"]}, lang.OBJECTIVE, task)
    with pytest.warns(InputWarning, match="padding id 1"):
        model(**unmasked("left"), target_mask=torch.ones(4, 6))


BEGUN = [{"input_ids": [1, *row["input_ids"]], "attention_mask": [0, *row["attention_mask"]]} for row in ROWS]
PROMPT = {"input_ids": torch.tensor([[5, 6, 7], [8, 9, 1]]), "labels": torch.tensor([[-100, -100, 7], [-100, 9, -100]])}
HEALTHY = {
    "padded on the right": (unmasked("right"), {}),
    "a prompt that is no target": (PROMPT, {}),
    "labels on all": ({name: unmasked("left")["input_ids"] for name in ("input_ids", "labels")}, {}),
    "a row of padding": (unmasked("right", [{"input_ids": [1], "attention_mask": [0]}, *ROWS]), {}),
    "another id": (unmasked("left"), {"pad_token_id": 2}),
    "no id": (unmasked("left"), {"pad_token_id": None}),
    "a mask": (padded(ROWS, "left"), {}),
    "texts that begin with it": (unmasked("right", BEGUN), {"bos_token_id": 1}),
    "some that do": (unmasked("right", [*ROWS, *BEGUN]), {"eos_token_id": [2, 1]}),
}


@pytest.mark.parametrize("kind", HEALTHY)
def test_what_is_no_padding_on_the_left(recwarn, kind):
    batch, changes = HEALTHY[kind]
    networks = [gpt2(seed, **{"pad_token_id": 1, **changes}) for seed in (1, 2)]
    tl.DistillationModel(networks[0], {"teacher": networks[1]}, lang.OBJECTIVE, CausalLM())(**batch)
    assert not [found for found in recwarn if found.category is InputWarning]


def test_an_id_that_begins_texts_pads_others():
    model = tl.DistillationModel(gpt2(1, pad_token_id=1, bos_token_id=1), {}, tl.Objective(HARD), CausalLM())
    with pytest.warns(InputWarning, match="padding id 1"):
        model(**unmasked("left", BEGUN))


def test_rows_are_moved_as_they_are():
    batch = {**padded(ROWS, "left"), "index": torch.arange(4), "position_ids": torch.arange(6)[None], "name": "x"}
    batch["states"] = torch.randn(4, 6, 3)
    moved = right_padded(batch)
    right = padded(ROWS, "right")
    assert all(torch.equal(moved[name], right[name]) for name in right)
    assert moved["position_ids"][1].tolist() == [4, 5, 0, 1, 2, 3]
    assert torch.equal(moved["states"][3, 0], batch["states"][3, 3])
    assert torch.equal(moved["index"], batch["index"])
    assert moved["name"] == "x"
    assert torch.equal(in_order_of(batch, moved["states"]), batch["states"])
    assert torch.equal(in_order_of(batch, moved["states"][:, :-1])[1, 4], batch["states"][1, 4])
    assert all(right_padded(right)[name] is value for name, value in right.items())  # nothing is copied
    none = {"attention_mask": torch.zeros(2, 3), "input_ids": torch.ones(2, 3)}
    assert torch.equal(right_padded(none)["input_ids"], none["input_ids"])
