"""Runs the command line as a user does: as a process, with its two outputs apart."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import traceback
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


class Forked:
    """The command line in a fork of this process, where torch is loaded already; a context, left when it has ended.

    out, err: descriptors in the place of pipes. `lines` reads what it says, `end` waits and returns code and outputs.
    """

    def __init__(self, *words, cwd, out=None, err=None, prepare=lambda: None, **variables):
        self.words, self.cwd, self.prepare, self.variables = [str(word) for word in words], cwd, prepare, variables
        self.given = {1: out, 2: err}

    def __enter__(self):
        sys.stdout.flush()
        sys.stderr.flush()
        pipes = {number: os.pipe() for number, given in self.given.items() if given is None}
        self.process = os.fork()
        if self.process == 0:
            code = 99
            try:
                for number, given in self.given.items():
                    os.dup2(pipes[number][1] if given is None else given, number)
                for reader, writer in pipes.values():
                    os.close(reader)
                    os.close(writer)
                sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
                os.environ.update(self.variables)
                os.chdir(self.cwd)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                self.prepare()
                code = main(self.words)
                sys.stdout.flush()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        for _, writer in pipes.values():
            os.close(writer)
        self.files = {number: os.fdopen(reader) for number, (reader, _) in pipes.items()}
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
        for file in self.files.values():
            file.close()

    def lines(self):
        """Its lines of talk, as they come."""
        return iter(self.files[2].readline, "")

    def until(self, words):
        """Read its talk up to a line with these words."""
        for line in self.lines():
            if words in line:
                return line
        raise AssertionError(f"it never said {words!r}")

    def kill(self, signum):
        os.kill(self.process, signum)

    def end(self):
        """Wait for its end: code (negative for a signal), stdout, the rest of stderr."""
        err, out = (self.files[number].read() if number in self.files else "" for number in (2, 1))
        code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        return Done(code, out, err)
