"""What all tests share: one thread, reproducible numbers, and hypothesis without clocks or chance."""

from __future__ import annotations

import gc
import re
from contextlib import contextmanager

import hypothesis
import pytest
import torch
from hypothesis import Phase

# A test that passes must pass again, on any machine: no deadlines, the same examples every time.
hypothesis.settings.register_profile("tutelage", deadline=None, derandomize=True, max_examples=25, database=None)
# Where a law is shown not to hold, the first example will do.
hypothesis.settings.register_profile("exempt", hypothesis.settings.get_profile("tutelage"), phases=[Phase.generate])
hypothesis.settings.load_profile("tutelage")
# On small tensors a second thread gains nothing, and waits for its core whenever another process has it: where cores
# are shared, these tests take twenty times as long with two. test_truth_heads shows that threads change nothing.
torch.set_num_threads(1)
# The laws live beside the test that runs them; their assertions are to be as talkative as those of a test.
pytest.register_assert_rewrite("laws.values", "laws.rows", "laws.gradients", "laws.vocabularies")


def pytest_collection_finish():
    """Spare garbage collections what was imported, which stays: a trainer collects at its end, for half a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def generator() -> torch.Generator:
    """A source of numbers that is the same in every run and for every test, whatever ran before."""
    return torch.Generator().manual_seed(20240229)


@pytest.fixture
def refused():
    """Return a context that wants exactly this error, and in its message what came and what to do about it."""

    @contextmanager
    def context(error, came, remedy):
        assert issubclass(error, ValueError)
        with pytest.raises(error) as caught:
            yield
        assert caught.type is error, repr(caught.value)
        for pattern in (came, remedy):
            assert re.search(pattern, str(caught.value)), f"{pattern!r} is not in: {caught.value}"

    return context
