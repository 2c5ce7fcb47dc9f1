"""The signals that ask a process to end: Ctrl-C, SIGTERM of a scheduler or container, SIGHUP of a closed terminal.

Python turns Ctrl-C into an exception, and lets the others end it at once. Where something is to be saved first, all of
them are to be the same.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

Handler = Callable[[int, FrameType | None], None]


class Terminated(KeyboardInterrupt):
    """A signal other than that of Ctrl-C asked the process to end. signal: its number."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signal = signum


def listen(handler: Handler) -> dict[int, Any]:
    """Call a function at these signals; return the handlers that were there before, for `restore`.

    Only the main thread gets signals: elsewhere nothing is changed. A signal that is ignored, as SIGHUP is under nohup,
    stays so, except that of Ctrl-C, which shells ignore for what they run in the background.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for signum in STOPPING:
            found = signal.getsignal(signum)
            # None: somebody who is not Python listens.
            if found is not None and (found != signal.SIG_IGN or signum == signal.SIGINT):
                before[signum] = signal.signal(signum, handler)
    return before


def restore(before: dict[int, Any]) -> None:
    """Put back the handlers that were there before."""
    for signum, handler in before.items():
        signal.signal(signum, handler)


def pass_on(signum: int, frame: FrameType | None, before: dict[int, Any]) -> None:
    """Do with a signal what would have been done before."""
    handler = before.get(signum, signal.SIG_DFL)
    if callable(handler):
        handler(signum, frame)
    elif signum == signal.SIGINT:
        signal.default_int_handler(signum, frame)
    else:
        os.kill(os.getpid(), signum)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Raise `Terminated` at SIGTERM and SIGHUP, as `KeyboardInterrupt` is raised at Ctrl-C."""
    before = listen(_raise)
    try:
        yield
    finally:
        restore(before)


def code_of(error: KeyboardInterrupt) -> int:
    """Return the exit code of a process that a signal ended: 128 and its number, as shells have it.

    >>> code_of(KeyboardInterrupt()), code_of(Terminated(15))
    (130, 143)
    """
    return 128 + (error.signal if isinstance(error, Terminated) else signal.SIGINT)


def _raise(signum: int, frame: FrameType | None) -> None:
    if signum == signal.SIGINT:
        signal.default_int_handler(signum, frame)
    raise Terminated(signum)
