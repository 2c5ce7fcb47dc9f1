"""What a command ends with: the exit codes, and one message for each error that says what to do.

    0    it worked
    1    it failed: the disk, a missing package, numbers that are not finite
    2    usage or configuration: the command, the recipe, or what it names cannot be used
    3    a check failed: what was measured again differs from what was recorded
    4    damaged data: a file whose contents are not what was written
    130  interrupted by Ctrl-C
    143  terminated by SIGTERM

What was handed over and cannot be used is 2, and nothing was written. What goes wrong on the way is 1.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import traceback
from pathlib import Path

from typer.exceptions import Abort, TyperException

from tutelage.cli._console import say
from tutelage.errors import (
    BackendError,
    DamagedDataError,
    InfiniteDivergenceError,
    InputError,
    NonFiniteError,
    TutelageError,
)
from tutelage.packages import broken_package
from tutelage.signals import code_of

OK, FAILED, USAGE, CHECK_FAILED, DAMAGED, INTERRUPTED = 0, 1, 2, 3, 4, 130

_EXTRAS = {
    "accelerate": "train",
    "transformers": "train",
    "jinja2": "report",
    "matplotlib": "report",
    "pyarrow": "data",
    "sklearn": "demo",
    "timm": "vision",
}


def explain(error: BaseException) -> tuple[int, str]:
    """Return the exit code for an error, and what is said about it."""
    if isinstance(error, TyperException):
        return error.exit_code, _usage(error)
    if isinstance(error, KeyboardInterrupt):
        return code_of(error), "interrupted"
    if isinstance(error, Abort):
        return INTERRUPTED, "interrupted"
    if isinstance(error, TutelageError):
        return _code(error), str(error)
    broken = broken_package(error)
    if broken is not None:
        return FAILED, broken
    if isinstance(error, ModuleNotFoundError) and (package := (error.name or "").split(".")[0]) in _EXTRAS:
        extra = _EXTRAS[package]
        return FAILED, f"this takes {package}, which is not installed: pip install 'tutelage[{extra}]'"
    if not isinstance(error, OSError) and (match := re.search(r"\(os error (\d+)\)", str(error))):
        # As libraries in Rust tell what the system said.
        error = OSError(int(match[1]), os.strerror(int(match[1])))
    if isinstance(error, OSError) and error.strerror is not None:
        place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return FAILED, f"{place}{error.strerror[:1].lower()}{error.strerror[1:]}; {_remedy(error)}"
    if isinstance(error, MemoryError) or _out_of_memory(error):
        return FAILED, "the memory of this machine is not enough; try a smaller model or training.batch_size"
    name = type(error).__name__
    text = " ".join(str(error).split()) or "no message"
    return FAILED, f"{name}: {text}. tutelage did not expect this; --debug shows where it happened"


def report_error(error: BaseException, *, debug: bool) -> int:
    """Say what went wrong, with a traceback only where it was asked for, and return the exit code."""
    code, text = explain(error)
    if debug:
        say("".join(traceback.format_exception(error)).rstrip(), of_any=True)
    # What one process cannot do another can, so that each speaks of its own errors.
    say(text if "\n" in text else f"tutelage: {text}", of_any=True)
    return code


def _code(error: TutelageError) -> int:
    if isinstance(error, DamagedDataError):
        return DAMAGED
    # Numbers become infinite on the way, whatever the recipe said.
    on_the_way = isinstance(error, (NonFiniteError, InfiniteDivergenceError))
    usable = not isinstance(error, (InputError, BackendError))
    return FAILED if on_the_way or usable else USAGE


def _out_of_memory(error: BaseException) -> bool:
    """Return whether torch got no memory: it says so by a name of its own on a GPU, and in words on a CPU."""
    words = "can't allocate memory" in str(error) and isinstance(error, RuntimeError)
    return words or type(error).__name__ == "OutOfMemoryError"


def _usage(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    command = "tutelage" if context is None else context.command_path
    message = error.format_message().replace("Value error, ", "")
    end = "" if message.endswith(("?", ".")) else "."
    return f"{message[:1].lower()}{message[1:]}{end} See `{command} --help`."


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{_free_space(error)}make room, or choose another place by --out, or TUTELAGE_CACHE for kept teachers"
    if isinstance(error, FileNotFoundError):
        return "check the path"
    if isinstance(error, (PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError)):
        return "choose another place"
    return "see whether the disk is full or the place is read-only"


def _free_space(error: OSError) -> str:
    """Return how much room there is left where a file did not fit, for a message; nothing where nobody knows."""
    if error.filename is None:
        return ""
    try:
        place = Path(os.fsdecode(error.filename)).absolute()
        while not place.is_dir() and place != place.parent:
            place = place.parent
        free = shutil.disk_usage(place).free
    except (OSError, ValueError):
        return ""
    return f"{free / 2**20:,.1f} MiB are free in {place}: "
