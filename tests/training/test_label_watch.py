"""A term on labels that no row has is an error, whoever makes the batches; rows and batches without labels are not."""

import logging

import pytest
import torch
import transformers
from torch import nn
from torch.utils.data import IterableDataset
from training_helpers import OBJECTIVE, lines_of, make_rows, network, trainer_of
from transformers import DataCollatorWithPadding, default_data_collator

import tutelage as tl
from tiny_texts import SIZES, tokenizer
from tutelage.errors import DataError, ModuleError
from tutelage.tasks import CausalLM
from tutelage.training import _label_watch
from tutelage.training._label_watch import LabelWatch

SOFT = tl.Objective({"soft": OBJECTIVE.terms["soft"]})


def bert(seed, cls=transformers.BertForSequenceClassification, **changes):
    torch.manual_seed(seed)
    config = transformers.BertConfig(**SIZES, vocab_size=400, max_position_embeddings=16, num_labels=3, **changes)
    return cls(config).eval()


def texts(name, count=6):
    return [{"input_ids": [5 + i, 6, 7], "attention_mask": [1, 1, 1], name: i % 3} for i in range(count)]


def by_hand(rows):
    """A collator of the user's own that keeps what it is given."""
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


COLLATORS = {
    "the default": {},
    "a tokenizer's": {"processing_class": tokenizer()},
    "with padding": {"data_collator": DataCollatorWithPadding(tokenizer())},
    "transformers' default": {"data_collator": default_data_collator},
    "by hand": {"data_collator": by_hand},
}


# transformers' default takes a list for "label_ids", and no number.
NAMED = [(collator, name) for collator in COLLATORS for name in ("label", "label_ids", "target")]
NAMED.remove(("transformers' default", "label_ids"))


@pytest.mark.parametrize(("collator", "name"), NAMED)
def test_labels_under_another_name(tmp_path, collator, name, refused):
    renames = collator in ("with padding", "transformers' default") and name.startswith("label")
    trainer = trainer_of(tmp_path, texts(name), bert(1), bert(2), max_steps=2, **COLLATORS[collator])
    if renames:
        right = trainer_of(tmp_path, texts("labels"), bert(1), bert(2), max_steps=2)
        right.train()
        trainer.train()
        assert [line["hard"] for line in lines_of(trainer)] == [line["hard"] for line in lines_of(right)]
        assert lines_of(trainer)[0]["hard"] > 0
        return
    with refused(DataError, r"no row of the data set has a label, and the terms \['hard'\]", rf"rename '{name}'"):
        trainer.train()


@pytest.mark.parametrize("objective", [OBJECTIVE, tl.Objective({"hard": OBJECTIVE.terms["hard"]})], ids=["two", "hard"])
def test_no_labels_at_all(tmp_path, objective, refused):
    rows = [{"inputs": row["inputs"]} for row in make_rows()]
    for given in (rows, [{**row, "labels": None} for row in rows], [(row["inputs"], -100) for row in rows]):
        with refused(DataError, "no row of the data set has a label", "give 'labels', a class for each row"):
            trainer_of(tmp_path, given, objective=objective).train()
    with refused(ModuleError, r"the batch has \['inputs', 'target'\]", "rename the columns"):
        trainer_of(tmp_path, [{**row, "target": 1} for row in rows], objective=SOFT).train()


def test_a_divergence_that_needs_labels(tmp_path, refused):
    objective = tl.Objective({"decoupled": tl.Term(tl.DecoupledKD())})
    with refused(DataError, r"the terms \['decoupled'\] need them", "labels"):
        trainer_of(tmp_path, [{"inputs": row["inputs"]} for row in make_rows()], objective=objective).train()


@pytest.mark.parametrize("kind", ["soft alone", "watched"])
def test_where_no_term_needs_them(tmp_path, kind):
    watched = tl.Objective({**SOFT.terms, "hard": tl.Term(tl.ForwardKL(), teacher="labels", weight=0.0)})
    rows = [{"inputs": row["inputs"]} for row in make_rows()]
    trainer = trainer_of(tmp_path, rows, objective=SOFT if kind == "soft alone" else watched, max_steps=2)
    trainer.train()
    assert lines_of(trainer)[0]["soft"] > 0


def test_a_loop_of_ones_own(refused):
    model = tl.DistillationModel(bert(1), {"teacher": bert(2)}, OBJECTIVE)
    batch = by_hand(texts("label_ids"))
    with refused(DataError, r"no 'labels', which the terms \['hard'\] need, and 'label_ids'", "rename the column"):
        model(**batch)
    batch["labels"] = batch["label_ids"]
    assert model(**batch)["parts"]["hard"] > 0
    del batch["labels"], batch["label_ids"]
    assert model(**batch)["parts"]["hard"] == 0  # one batch of many may have none
    soft = tl.DistillationModel(bert(1), {"teacher": bert(2)}, SOFT)
    assert soft(**by_hand(texts("label")))["loss"] > 0


# --- labels in some rows ----------------------------------------------------------------------------------------------


def test_few_labels_train_as_before(tmp_path, monkeypatch):
    """The first step has none, and the look at the others changes no number that is drawn."""
    rows, found = make_rows(labelled=(23,)), []
    for row in rows[:23]:
        row.pop("labels")

    class Drawing(torch.utils.data.Dataset):
        def __len__(self):
            return len(rows)

        def __getitem__(self, place):
            return {**rows[place], "inputs": rows[place]["inputs"] + 0.1 * torch.randn(6)}

    for looks in (True, False):
        with monkeypatch.context() as patch:
            if not looks:
                patch.setattr(LabelWatch, "_judge", lambda *_: None)
            trainer = trainer_of(tmp_path, Drawing(), train_sampling_strategy="sequential", num_train_epochs=1)
            trainer.train()
        found.append([(line["hard"], line["soft"]) for line in lines_of(trainer)])
    assert found[0] == found[1]
    assert [hard > 0 for hard, _ in found[0]] == [False] * 5 + [True]


def test_more_rows_than_are_looked_at(tmp_path, monkeypatch, caplog, refused):
    monkeypatch.setattr(_label_watch, "_ROWS_LOOKED_AT", 3)
    given = {"train_sampling_strategy": "sequential", "num_train_epochs": 1}
    with caplog.at_level(logging.WARNING, "tutelage"):
        trainer = trainer_of(tmp_path, make_rows(labelled=(17,)), **given)
        trainer.train()
    assert lines_of(trainer)[4]["hard"] > 0
    assert sum("no row of the first step has a label" in message for message in caplog.messages) == 1
    for epochs in (1, 2):
        trainer = trainer_of(tmp_path, make_rows(labelled=()), **{**given, "num_train_epochs": epochs})
        with refused(DataError, "in a whole epoch no row had a label", "leave these terms out"):
            trainer.train()
        assert trainer.state.global_step == 6
    # A part of an epoch says nothing.
    trainer_of(tmp_path, make_rows(labelled=()), **{**given, "max_steps": 5}).train()


class Stream(IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def test_a_stream(tmp_path, refused):
    for labelled, steps in (((20,), 6), ((2,), 6)):
        trainer = trainer_of(tmp_path, Stream(make_rows(labelled=labelled)), max_steps=steps)
        trainer.train()
        assert trainer.state.global_step == steps
    with refused(DataError, "in a whole epoch no row had a label", "'labels' in some rows"):
        trainer_of(tmp_path, Stream(make_rows(labelled=())), max_steps=6).train()
    with refused(DataError, r"no 'labels', which the terms \['hard'\] need, and 'label'", "rename the column"):
        trainer_of(tmp_path, Stream(texts("label", 30)), bert(1), bert(2), max_steps=6).train()


def test_labels_that_a_collator_makes(tmp_path):
    """The first batch has none by chance; that the rows have no column says nothing."""
    calls = []

    def collate(rows):
        calls.append(len(rows))
        labels = torch.tensor([row["mark"] if len(calls) > 1 else -100 for row in rows])
        return {"inputs": torch.stack([row["inputs"] for row in rows]), "labels": labels}

    rows = [{"inputs": row["inputs"], "mark": i % 4} for i, row in enumerate(make_rows())]
    trainer = trainer_of(tmp_path, rows, data_collator=collate, max_steps=3)
    trainer.train()
    assert [line["hard"] > 0 for line in lines_of(trainer)] == [False, True, True]


def test_a_rank_without_labels_is_none_where_others_have_them():
    model = tl.DistillationModel(network(1), {"teacher": network(2)}, OBJECTIVE)
    watch = LabelWatch(model)
    counts = {"soft": torch.tensor(8.0), "hard": torch.tensor(1.0)}  # on all ranks
    watch.see(counts, [{"inputs": torch.zeros(4, 6)}], 0.0, None)
    watch.see({**counts, "hard": torch.tensor(0.0)}, [{"inputs": torch.zeros(4, 6)}], 2.0, None)
    watch.end(3.0)


# --- columns ----------------------------------------------------------------------------------------------------------


def test_columns_that_nobody_reads_are_told_once(tmp_path, caplog):
    rows = [{**row, "weather": 1.0, "topic": 2} for row in texts("labels")]
    with caplog.at_level(logging.WARNING, "tutelage"):
        trainer_of(tmp_path, rows, bert(1), bert(2), num_train_epochs=2).train()
    told = [message for message in caplog.messages if "no network reads" in message]
    assert len(told) == 1
    assert "['topic', 'weather']" in told[0]


def test_columns_that_a_network_reads_are_its_own(tmp_path, caplog):
    class Own(nn.Module):
        def __init__(self, seed):
            super().__init__()
            self.inside = bert(seed)

        def forward(self, input_ids, attention_mask, label_ids):
            assert label_ids.shape == (len(input_ids),)
            return self.inside(input_ids=input_ids, attention_mask=attention_mask).logits

    class Any(Own):
        def forward(self, **given):
            return super().forward(given["input_ids"], given["attention_mask"], given["target"])

    own = [{**row, "label_ids": 1} for row in texts("labels")]
    flags = [{**row, "token_type_ids": [0] * 3, "output_attentions": True} for row in texts("labels")]
    anything = [{**row, "target": 1} for row in texts("labels")]
    with caplog.at_level(logging.WARNING, "tutelage"):
        for rows, make in ((own, Own), (anything, Any)):
            trainer = trainer_of(tmp_path, rows, make(1), make(2), max_steps=1)
            trainer.train()
            assert lines_of(trainer)[0]["hard"] > 0
    model = tl.DistillationModel(bert(1), {"teacher": Own(2)}, OBJECTIVE)
    assert model.unread(flags[0]) == model.unread(own[0]) == []
    assert caplog.messages == []


def test_a_language_model(tmp_path, refused):
    rows = [{"input_ids": [5, 6, 7], "attention_mask": [1, 1, 1], "target": [5, 6, 7]}] * 4
    student, teacher = (transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=400, **GPT2)) for _ in range(2))
    with refused(DataError, "no row of the data set has a label", "rename 'target'"):
        trainer_of(tmp_path, rows, student, teacher, task=CausalLM()).train()


GPT2 = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
