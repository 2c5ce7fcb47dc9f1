"""What was summed since the last line of the log goes on, whatever the number of processes."""

import pytest
import torch

from tutelage.errors import DamagedDataError
from tutelage.training._window import Window


def window(values, since=3):
    made = Window(["loss", "soft"], torch.device("cpu"), since)
    made.sums += torch.tensor(values, dtype=torch.float64)
    return made


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [(1, [[4.0, 6.0]]), (2, [[1.0, 2.0], [3.0, 4.0]]), (3, [[4.0, 6.0], [0.0, 0.0], [0.0, 0.0]])],
)
def test_all_sums_are_taken_up_once(tmp_path, ranks, expected):
    for rank, values in enumerate([[1.0, 2.0], [3.0, 4.0]]):
        window(values).save(tmp_path, rank)
    for rank, sums in enumerate(expected):
        read = window([9.0, 9.0], since=0)
        read.load(tmp_path, rank, ranks, at_step=5)
        assert (read.since, read.sums.tolist()) == (3, sums)


def test_a_checkpoint_of_another_trainer_has_no_sums(tmp_path):
    read = window([9.0, 9.0])
    read.load(tmp_path, 0, 1, at_step=5)
    assert (read.since, read.sums.tolist()) == (5, [0.0, 0.0])


@pytest.mark.parametrize("text", ["", "[]", '{"since": 3}', '{"since": 3, "sums": [1]}', '{"since": null, "sums": {}}'])
def test_sums_that_cannot_be_read_are_named(tmp_path, text):
    (tmp_path / "log_window_0.json").write_text(text)
    with pytest.raises(DamagedDataError, match=r"log_window_0\.json cannot be read"):
        window([0.0, 0.0]).load(tmp_path, 0, 1, at_step=5)
