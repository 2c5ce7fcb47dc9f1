"""The way in: parse, run the command, turn whatever it raises into one message and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from typer.exceptions import TyperException

from tutelage.cli._app import app
from tutelage.cli._console import open_closed_streams
from tutelage.cli._exits import OK, report_error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    open_closed_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    # It may stand anywhere: whoever sees an error types the command again, with --debug at its end.
    debug = "--debug" in words or os.environ.get("TUTELAGE_DEBUG", "0") not in ("", "0")
    words = [word for word in words if word != "--debug"]
    try:
        code = app(words, prog_name="tutelage", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):
        # Whoever read stdout has seen enough; rich, which draws the help, ends the process then. What is left must not
        # be flushed into the pipe when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # the help has been shown
            return error.exit_code
        return report_error(error, debug=debug)
    except Exception as error:
        return report_error(error, debug=debug)
    return code if isinstance(code, int) else OK
