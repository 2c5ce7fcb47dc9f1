"""Evaluating, predicting, logging and saving change no random state, so they change no student."""

import random

import numpy as np
import pytest
import torch
from training_helpers import make_rows, network, trainer_of
from transformers import TrainerCallback

from tutelage.training import MixingCollator, collate
from tutelage.training._randomness import unchanged_randomness

ROWS, HELD_OUT = make_rows(), make_rows(9)


def draw():
    return random.random(), np.random.rand(), torch.rand(()).item()


class Noisy:
    """Adds noise to a batch, from generators of its own; the last is made on first use, as transformers does it."""

    def __init__(self):
        self.collate = Drawn()
        self.generators = {"numpy": np.random.RandomState(1)}
        self.late = None

    def __call__(self, rows):
        if self.late is None:
            self.late = np.random.default_rng(3)
        batch = self.collate(rows)
        noise = self.late.normal(size=batch["inputs"].shape) + self.generators["numpy"].rand()
        return {**batch, "inputs": batch["inputs"] + torch.from_numpy(noise).float()}


class Drawn:
    def __init__(self):
        self.generator, self.python = torch.Generator().manual_seed(2), random.Random(4)

    def __call__(self, rows):
        batch = collate(rows)
        shift = torch.rand((), generator=self.generator) + self.python.random()
        return {**batch, "inputs": batch["inputs"] + shift + torch.rand(())}


class Rows(torch.utils.data.Dataset):
    """The same rows for training and evaluation, with noise from a generator that the two share."""

    def __init__(self, rows, generator):
        self.rows, self.generator = rows, generator

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, place):
        row = self.rows[place]
        return {**row, "inputs": row["inputs"] + torch.rand((), generator=self.generator)}


class Talks(TrainerCallback):
    """A callback that draws whenever it hears of something, as one that generates a text would."""

    def on_log(self, *args, **kwargs):
        draw()

    on_save = on_evaluate = on_log

    def on_prediction_step(self, *args, **kwargs):
        draw()


class Predicts(TrainerCallback):
    """Predicts at the end of every step."""

    def on_step_end(self, *args, **kwargs):
        self.trainer.predict(HELD_OUT)


OFTEN = {
    "evaluate": {"eval_strategy": "steps", "eval_steps": 1},
    "log": {"logging_steps": 1},
    "save": {"save_strategy": "steps", "save_steps": 1},
    "predict": {},
}


def trained(folder, collator, workers, shared, **given):
    generator = torch.Generator().manual_seed(6)
    rows, held_out = (Rows(ROWS, generator), Rows(HELD_OUT, generator)) if shared else (ROWS, HELD_OUT)
    student = network(1, dropout=0.3)
    predicts = Predicts()
    trainer = trainer_of(
        folder,
        rows,
        student,
        eval_dataset=held_out,
        data_collator=collator,
        callbacks=[Talks(), *([predicts] if given.pop("predicts", False) else [])],
        dataloader_num_workers=workers,
        **{"num_train_epochs": 2, "logging_strategy": "steps", "logging_steps": 5, **given},
    )
    predicts.trainer = trainer
    trainer.train()
    return torch.cat([value.reshape(-1) for value in student.state_dict().values()])


@pytest.mark.parametrize(
    ("workers", "collator", "often"),
    [
        *((0, Noisy, often) for often in OFTEN),
        *((0, collator, "evaluate") for collator in (lambda: collate, lambda: MixingCollator(collate, seed=1))),
        (2, Noisy, "evaluate"),
        (2, Noisy, "predict"),
    ],
)
def test_looking_more_often_changes_no_byte(tmp_path, workers, collator, often):
    """A student with dropout, noise in its batches and its rows, and callbacks that draw."""
    seldom = trained(tmp_path / "seldom", collator(), workers, True)
    given = {**OFTEN[often], "predicts": often == "predict"}
    assert torch.equal(trained(tmp_path / "often", collator(), workers, True, **given), seldom)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("often", OFTEN)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("collator", [Noisy, lambda: collate, lambda: MixingCollator(collate, seed=1)])
def test_looking_more_often_changes_no_byte_in_any_way(tmp_path, workers, collator, often, shared):
    seldom = trained(tmp_path / "seldom", collator(), workers, shared)
    given = {**OFTEN[often], "predicts": often == "predict"}
    assert torch.equal(trained(tmp_path / "often", collator(), workers, shared, **given), seldom)


def test_what_draws_inside_draws_the_same_afterwards():
    noisy = Noisy()
    rows = ROWS[:3]
    draw()
    with unchanged_randomness(torch.device("cpu"), noisy):
        inside = draw(), noisy(rows)["inputs"]
    assert noisy.late is None
    again = draw(), noisy(rows)["inputs"]
    assert again[0] == inside[0]
    assert torch.equal(again[1], inside[1])
