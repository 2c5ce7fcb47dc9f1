"""Where words go: data to stdout, talk to stderr, each line at once, so that pipes and logs get what they expect."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def is_first() -> bool:
    """Return whether this is the process that talks, of those that a launcher may have started for one run."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str = "", *, of_any: bool = False) -> None:
    """Write a line of talk: what is going on, what to do next, what went wrong. of_any: whichever process this is."""
    if is_first():
        _line(sys.stderr, text)
    elif of_any:
        _line(sys.stderr, f"process {os.environ['RANK']}: {text}")


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


def _line(stream: Any, text: str) -> None:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    # A terminal that cannot show a letter gets a question mark for it, and not a traceback.
    stream.write(text.encode(encoding, errors="replace").decode(encoding) + "\n")
    stream.flush()
