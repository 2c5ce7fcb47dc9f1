"""What the tests of refused input share."""

import re
from contextlib import contextmanager

import pytest


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
