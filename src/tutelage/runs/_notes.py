"""What the parts of a run log, told as its notes: whoever runs it should know, and nobody may read a log."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from transformers.utils import logging as transformers_logging

from tutelage.runs._events import Note
from tutelage.runs._training import OnEvent


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers from drawing bars: of files that are read in an instant, they stand between a run's lines."""
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            transformers_logging.enable_progress_bar()


@contextlib.contextmanager
def noted(tell: OnEvent) -> Iterator[None]:
    """Tell each warning that tutelage logs in here as a note, once: a network is made more than once in a run."""
    handler, log = _Notes(tell), logging.getLogger("tutelage")
    log.addHandler(handler)
    try:
        with without_bars():
            yield
    finally:
        log.removeHandler(handler)


class _Notes(logging.Handler):
    def __init__(self, tell: OnEvent) -> None:
        super().__init__(logging.WARNING)
        self.tell = tell
        self.told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self.told:
            self.told.add(text)
            self.tell(Note(text))
