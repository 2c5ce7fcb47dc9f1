"""Packages that tutelage can do without: named where they are missing, and where they are installed and broken."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from importlib import metadata
from types import TracebackType

from tutelage.errors import MissingPackageError, TutelageError

_REQUIRED = {"accelerate", "numpy", "safetensors", "torch", "transformers"}
_OWN = {"__main__", "tutelage"}


@contextlib.contextmanager
def importing(purpose: str, install: str) -> Iterator[None]:
    """Explain imports that fail in here. Errors: `MissingPackageError`.

    Args:
        purpose: What the packages are for, the subject of a sentence.
        install: What pip is to install where they are missing.
    """
    try:
        yield
    except TutelageError:
        raise
    except Exception as error:
        broken = broken_package(error)
        if broken is not None:
            raise MissingPackageError(f"{purpose} cannot be had here: {broken}") from error
        if isinstance(error, ModuleNotFoundError):
            raise MissingPackageError(
                f"{purpose} takes {error.name}, which is not installed: pip install '{install}'"
            ) from error
        raise


def broken_package(error: BaseException) -> str | None:
    """Return which installed package is to blame for an error, and what to do; None where no import of one failed.

    transformers imports every optional package that is installed, and tells of one that fails by the name of what was
    wanted from itself. The error that began it was raised while a module was being imported: that is the one.
    """
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    module = _imported_last(error.__traceback__)
    name = module.partition(".")[0]
    if not name or name in _OWN or name in sys.stdlib_module_names:
        return None
    beside = ", ".join(filter(None, (_version(other) for other in ("torch", "transformers") if other != name)))
    reason = " ".join(str(error).split()) or "no message"
    without = "" if name in _REQUIRED else f", or remove it where nothing needs it: pip uninstall {name}"
    return (
        f"{_version(name) or name} is installed and cannot be imported beside {beside} ({type(error).__name__}: "
        f"{reason}); expected versions that fit: pip install --upgrade {name}{without}"
    )


def _imported_last(traceback: TracebackType | None) -> str:
    """Return the name of the module that was being imported when an error was raised, or nothing."""
    found = ""
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code.co_name == "<module>":
            found = str(frame.f_globals.get("__name__", ""))
        traceback = traceback.tb_next
    return found


def _version(name: str) -> str | None:
    """Return an installed package with its version, None for one that is no distribution."""
    for distribution in metadata.packages_distributions().get(name, [name]):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return f"{distribution} {metadata.version(distribution)}"
    return None
