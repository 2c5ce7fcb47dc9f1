"""The last batches of several ranks: every row of an epoch counts once, whatever accelerate fills them up with."""

import logging

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, DataLoader, RandomSampler
from training_helpers import make_rows, network, trainer_of

from tutelage.errors import DataError
from tutelage.training._repeats import EMPTY, check_some, epoch_of, without_repeats


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_row_counts_once(size, ranks, split):
    for length in range(1, 40):
        sampler = BatchSampler(range(length), size * ranks if split else size, drop_last=False)
        seen = []
        for rank in range(ranks):
            shard = BatchSamplerShard(sampler, ranks, rank, split_batches=split)
            *full, last = shard
            assert len(last) == size
            assert epoch_of(DataLoader(make_rows(length), batch_sampler=shard), ranks) == (length, size)
            kept = without_repeats({"rows": torch.tensor(last)}, size, length, rank, ranks)
            # What is left out is still a batch: a rank that called nothing would let the others wait.
            assert len(kept["rows"]) >= 1
            seen += [row for batch in full for row in batch]
            seen += [] if EMPTY in kept else kept["rows"].tolist()
        assert sorted(seen) == list(range(length)), (length, seen)


def test_mixtures_go_with_their_rows():
    """Four rows, of which the second rank has one to count, and their four mixtures."""
    batch = {"inputs": torch.arange(8), "n": 3}
    kept = without_repeats(batch, 4, 13, 1, 2)
    assert kept["inputs"].tolist() == [0, 4]
    assert kept["n"] == 3
    assert EMPTY in without_repeats(batch, 4, 11, 1, 2)
    assert without_repeats(batch, 4, 16, 1, 2) is batch


def test_as_many_as_are_drawn():
    drawn = RandomSampler(range(10), replacement=True, num_samples=7)
    assert epoch_of(DataLoader(make_rows(10), batch_size=2, sampler=drawn), 1) == (7, 2)
    assert epoch_of(DataLoader(make_rows(10), batch_size=None), 2) is None


def test_batches_that_do_not_tell_are_left_and_that_is_said(tmp_path, caplog, monkeypatch):
    trainer = trainer_of(tmp_path, make_rows(10), network(1))
    loader = trainer.get_train_dataloader()
    state = trainer.accelerator.gradient_state
    monkeypatch.setattr(type(state), "end_of_dataloader", True)
    monkeypatch.setattr(type(state), "active_dataloader", loader)
    monkeypatch.setattr(type(trainer.accelerator), "num_processes", 2)
    batch = {"inputs": torch.zeros(1, 6), "labels": torch.zeros(1, dtype=torch.int64)}
    with caplog.at_level(logging.WARNING, "tutelage"):
        assert trainer._without_repeats(batch) is batch
    assert "may count twice" in caplog.text


def test_a_rank_without_even_a_repeat(refused):
    check_some(1, 4)
    with refused(DataError, "fewer rows than there are processes, 4", "add rows, or use a data set with a length"):
        check_some(0, 4)
