"""Mixtures: between their parts, without labels, the same in every run."""

import pytest
import torch
from torch.utils.data import DataLoader
from training_helpers import make_rows

from tutelage.errors import DtypeError, ParameterError, ShapeError
from tutelage.training import MixingCollator, collate

ROWS = make_rows(12)


def test_the_rows_come_first_and_the_mixtures_have_no_labels():
    plain, batch = collate(ROWS), MixingCollator(collate, 0.4)(ROWS)
    for name in ("inputs", "labels", "index"):
        assert torch.equal(batch[name][:12], plain[name])
    assert set(batch["labels"][12:].tolist()) == {-100}
    assert set(batch["index"][12:].tolist()) == {-1}
    assert batch["inputs"].dtype == torch.float32


def test_each_mixture_lies_between_its_row_and_another():
    batch = MixingCollator(collate, 1.0)(ROWS)
    rows, mixtures = batch["inputs"][:12].double(), batch["inputs"][12:].double()
    partners = []
    for row, mixture in zip(rows, mixtures, strict=True):
        # (mixture - row) = (1 - s) (partner - row): along the line to exactly one of the rows, and between the two.
        on_the_way = []
        for j, partner in enumerate(rows):
            way = partner - row
            if way.norm() == 0:
                hit = (mixture - row).norm() < 1e-5
            else:
                share = (mixture - row) @ way / (way @ way)
                hit = -1e-6 <= share <= 1 + 1e-6 and (row + share * way - mixture).norm() < 1e-5
            if hit:
                on_the_way.append(j)
        assert on_the_way
        partners.append(on_the_way)
    assert sorted(p[0] for p in partners if len(p) == 1) == sorted({p[0] for p in partners if len(p) == 1})


def test_shares_are_beta_distributed():
    """Rows of 0 and 1: a mixture's value is its share. Mean 1/2 and variance 1 / (4 (2 beta + 1)) for Beta(b, b)."""
    for beta in (0.3, 2.0):
        shares = []
        for start in range(0, 40_000, 400):
            rows = [{"inputs": torch.tensor([float(i % 2)]), "index": start + i} for i in range(400)]
            batch = MixingCollator(collate, beta)(rows)
            mixed = batch["inputs"][400:, 0]
            shares.append(mixed)
        values = torch.cat(shares)
        between = values[(values > 0) & (values < 1)]  # half of the partners are of the same kind
        assert abs(values.mean() - 0.5) < 0.01
        assert abs(between.var() - 1 / (4 * (2 * beta + 1))) < 0.006


def test_it_depends_on_the_seed_and_the_rows_alone():
    collator = MixingCollator(collate, 0.4)
    one = collator(ROWS)["inputs"]
    torch.manual_seed(3)
    assert torch.equal(collator(ROWS)["inputs"], one)
    assert torch.equal(MixingCollator(collate, 0.4)(ROWS)["inputs"], one)
    assert not torch.equal(MixingCollator(collate, 0.4, seed=1)(ROWS)["inputs"], one)
    turned = ROWS[1:] + ROWS[:1]
    assert not torch.equal(collator(turned)["inputs"][12:].sort(0).values, one[12:].sort(0).values)


def test_workers_change_nothing():
    collator = MixingCollator(collate, 0.4)
    alone, workers = (
        [batch["inputs"] for batch in DataLoader(ROWS, batch_size=5, collate_fn=collator, num_workers=count)]
        for count in (0, 2)
    )
    assert all(torch.equal(one, other) for one, other in zip(alone, workers, strict=True))


def test_images_and_single_rows():
    images = [{"inputs": torch.rand(1, 8, 8), "index": i} for i in range(3)]
    assert MixingCollator(collate, 0.4)(images)["inputs"].shape == (6, 1, 8, 8)
    assert "labels" not in MixingCollator(collate, 0.4)(images)
    one = MixingCollator(collate, 0.4)(images[:1])["inputs"]
    torch.testing.assert_close(one[0], one[1])


def test_what_cannot_be_mixed(refused):
    with refused(DtypeError, "'ids' is a tensor of torch.int64", "floating-point"):
        MixingCollator(collate, 0.4)([{"ids": [1, 2], "index": 0}])
    with refused(ShapeError, "no 'index'", "each row's number"):
        MixingCollator(collate, 0.4)([{"x": 1.0}])
    for beta in (0, -1.0, float("nan"), float("inf"), "0.4", True):
        with pytest.raises(ParameterError, match="expected a finite number > 0"):
            MixingCollator(collate, beta)
