"""Where words go: data to stdout, talk to stderr, each line at once, so that pipes and logs get what they expect."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import shutil
import stat
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# As torchrun, MPICH, Open MPI and MVAPICH2 set them.
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


def is_first() -> bool:
    """Return whether this is the process that talks, of those that a launcher may have started for one run."""
    return _rank() == "0"


def _rank() -> str:
    return next((os.environ[name] for name in _RANKS if name in os.environ), "0")


def say(text: str = "", *, of_any: bool = False) -> None:
    """Write a line of talk: what is going on, what to do next, what went wrong. of_any: whichever process this is."""
    if is_first():
        _line(sys.stderr, text)
    elif of_any:
        _line(sys.stderr, f"process {_rank()}: {text}")


def put(text: str) -> None:
    """Write a line of data: what was asked for."""
    if is_first():
        _line(sys.stdout, text)


def put_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write data for programs. NaN and infinity are no JSON: `allow_nan` would write them all the same."""
    put(json.dumps(value, indent=2, allow_nan=False))


def say_next(*words: str, remark: str = "") -> None:
    """Name the next command, as it can be typed here: in a virtual environment that is not active, with its path."""
    say(f"next: {shlex.join([_program(), *words])}{'     # ' + remark if remark else ''}")


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = (), indent: str = "", width: int | None = None) -> str:
    """Return rows as aligned columns; those in `right` are flush right.

    width: where the last column is broken, to go on under its begin.
    """
    rows = [[printable(cell, one_line=True) for cell in row] for row in rows]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    begin = len(indent) + sum(widths[:-1]) + 2 * (len(widths) - 1)
    room = 2**20 if width is None else max(20, width - begin)
    lines = []
    for *cells, last in rows:
        aligned = [
            cell.rjust(w) if i in right else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(cells, widths, strict=False))
        ]
        if len(widths) - 1 in right:
            last = last.rjust(widths[-1])
        first, *more = [last] if len(last) <= room else textwrap.wrap(last, room)
        lines.append((indent + "  ".join([*aligned, first])).rstrip())
        lines += [" " * begin + line for line in more]
    return "\n".join(lines)


def width_of(stream: Any) -> int | None:
    """Return the columns of a terminal, and None for a file or a pipe, whose lines are better left whole."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def is_terminal() -> bool:
    """Return whether talk goes to a terminal, where a line may be drawn again."""
    return sys.stderr.isatty()


def _program() -> str:
    found, here = shutil.which("tutelage"), Path(sys.executable).parent / "tutelage"
    if found is not None and Path(found).absolute() == here.absolute():
        return "tutelage"
    if not here.is_file():
        return "tutelage"
    return os.path.relpath(here) if here.is_relative_to(Path.cwd()) else str(here)


def printable(text: str, *, one_line: bool = False) -> str:
    r"""Return text with everything that is not seen, such as what moves a terminal's cursor, written out.

    Recipes, data and models come from anybody, and so do the words in them.

    >>> printable("red: \x1b[31m, two\nlines"), printable("a\nb", one_line=True)
    ('red: \\x1b[31m, two\nlines', 'a\\nb')
    """
    kept = "" if one_line else "\n"
    return "".join(sign if sign.isprintable() or sign in kept else ascii(sign)[1:-1] for sign in text)


class Talk:
    """Stderr, for a library that draws there: what cannot be shown is not shown, and nothing fails because of it."""

    def write(self, text: str) -> int:
        """Write as far as there is anybody to read."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush likewise."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def open_closed_streams() -> None:
    """Open what the caller closed (`>&-`), or the first files that are written would get the numbers of the outputs."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115 - to the end


def _line(stream: Any, text: str) -> None:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    # A terminal that cannot show a letter gets a question mark for it, and not a traceback.
    shown = (printable(text) + "\n").encode(encoding, errors="replace")
    try:
        stream.write(shown.decode(encoding))
        stream.flush()
    except OSError as error:
        # Talk that nobody hears stops no work. Data that cannot be written is an error, unless its reader has gone.
        if stream is sys.stdout and not _is_gone(stream, error):
            raise
        _let_go(stream)
    except RuntimeError:
        # A signal came in the middle of another line, and has something to say.
        with contextlib.suppress(OSError, ValueError):
            os.write(stream.fileno(), shown)


def _is_gone(stream: Any, error: OSError) -> bool:
    """Return whether there is nobody at the other end: of a pipe that was closed, or of a terminal."""
    if error.errno != errno.EIO:
        return isinstance(error, BrokenPipeError)
    with contextlib.suppress(OSError, ValueError):
        return stat.S_ISCHR(os.fstat(stream.fileno()).st_mode)
    return False


def _let_go(stream: Any) -> None:
    """Send what else is written to a stream nowhere, what Python still holds back for it included."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
