"""Runs the command line as a user does: as a process, with its two outputs apart."""

import os
import resource
import subprocess
import sys
from dataclasses import dataclass

from tutelage.cli import main


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def environment(**variables):
    """The caller's, without what would change what is written."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TUTELAGE_")}
    for name in ("COLUMNS", "FORCE_COLOR", "PYTHONIOENCODING", "PYTHONWARNINGS"):
        kept.pop(name, None)
    return {**kept, "OMP_NUM_THREADS": "1", **variables}


def tutelage(*words, cwd, python=(), seconds=120, **variables):
    """Run `tutelage WORDS`; python: options of the interpreter before `-m tutelage`."""
    done = subprocess.run(
        [sys.executable, *python, "-m", "tutelage", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(**variables),
        timeout=seconds,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def processor_seconds(words, cwd, *, first_line=False, **variables):
    """Return what a command costs, to its end or to its first line: the best of three.

    The processor's time, and not the clock's: on a machine of its own a command that waits for nothing takes as long,
    and on one that is shared the clock tells how busy the others are.
    """
    best = float("inf")
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with subprocess.Popen(
            [sys.executable, "-m", "tutelage", *words],
            cwd=cwd,
            env=environment(**variables),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            if first_line:
                assert process.stderr.readline().strip(), words
                process.kill()
            process.communicate()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best


def tutelage_here(*words, cwd, capfd, monkeypatch):
    """Run `tutelage WORDS` in this process, where torch is loaded already: what it says and its code are the same."""
    monkeypatch.chdir(cwd)
    capfd.readouterr()
    code = main([str(word) for word in words])
    captured = capfd.readouterr()
    return Done(code, captured.out, captured.err)


def refused(done, code, *said):
    """Check that a command failed as documented: its exit code, nothing on stdout, one message, no traceback."""
    assert done.code == code, done
    assert done.out == "", done
    assert "Traceback" not in done.err, done
    for words in said:
        assert words in done.err, done
    # However many lines there are, they are one message.
    assert sum(line.startswith("tutelage: ") for line in done.err.splitlines()) <= 1, done
