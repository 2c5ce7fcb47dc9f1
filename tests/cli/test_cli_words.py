"""What stands behind the words: exit codes of errors, tables, progress with a clock of our own."""

import contextlib
import errno
import os
import pty
import re
import subprocess
import sys

import pytest
import safetensors
import torch
from cli_process import environment

from tutelage import errors
from tutelage.cli._console import table
from tutelage.cli._describe import describe
from tutelage.cli._exits import explain
from tutelage.cli._progress import Reporter, duration
from tutelage.config import load
from tutelage.run_folder import write_whole


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.RecipeError([errors.Problem("a.yaml", 3, "data", "missing")]), 2),
        (errors.DataError("one class only"), 2),
        (errors.ModelError("10 classes came, expected 2"), 2),
        (errors.RunFolderError("not empty"), 2),
        (errors.BackendError("no such backend"), 2),
        (errors.DamagedDataError("cut off"), 4),
        (errors.MissingPackageError("not installed"), 1),
        (errors.NonFiniteError("the loss is nan at step 3"), 1),
        (errors.InfiniteDivergenceError("infinite at step 3"), 1),
        (errors.DoubleBackwardError("second derivative"), 1),
        (PermissionError(13, "Permission denied", "runs"), 1),
        (OSError(28, "No space left on device"), 1),
        (MemoryError(), 1),
        (KeyboardInterrupt(), 130),
        (RuntimeError("what nobody\nexpected"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_error_has_its_code_and_one_message(error, code):
    found, text = explain(error)
    assert found == code
    assert text
    assert "\n" not in text
    if isinstance(error, errors.TutelageError):
        assert text == str(error)
    if type(error) is RuntimeError:
        assert "RuntimeError: what nobody expected" in text
        assert "--debug" in text


def test_memory_that_is_not_there_is_no_surprise():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    code, text = explain(caught.value)
    assert code == 1
    assert "memory of this machine" in text
    assert explain(torch.OutOfMemoryError("CUDA out of memory"))[1] == text


def test_one_of_a_kind_is_singular():
    changes = ["training.epochs=1", "training.seeds=[7]", "data.labeled=10", "student.mlp.hidden=[1]"]
    text = describe(load("digits-few-labels", [*changes, "teacher.fit.epochs=1"]))
    assert "first fitted on all labels for 1 epoch (" in text
    assert "1 epoch, seed 7" in text
    assert "MLP with 1 hidden unit" in text
    assert not re.search(r"\b1 (?!epoch\b)\w+s\b", text), text
    changes = ["~training.epochs", "training.steps=1", "teacher.fit={steps: 1200}"]
    text = describe(load("digits-few-labels", changes))
    assert "for 1,200 steps (" in text
    assert "1 step, 3 seeds" in text


def test_columns_are_aligned_and_broken_where_the_terminal_ends():
    rows = [["name", "5"], ["longer", "1,000"]]
    assert table(rows, right=(1,)) == "name        5\nlonger  1,000"
    assert table(rows, indent="  ") == "  name    5\n  longer  1,000"
    words = " ".join(["word"] * 20)
    lines = table([["a", words], ["b", "c"]], width=30).splitlines()
    assert all(len(line) <= 30 for line in lines)
    assert [line[:3] for line in lines[1:-1]] == ["   "] * (len(lines) - 2)
    assert " ".join(" ".join(lines).split()) == f"a {words} b c"


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def reporter(clock):
    return Reporter(clock)


def test_a_log_gets_a_line_every_tenth_or_every_ten_seconds(reporter, clock, capsys):
    reporter.begin(1000)
    reporter.start("seed 0 student", 0)
    for step in range(1, 501):
        clock.now += 0.01
        reporter.step("seed 0 student", step, 500, {"loss": 0.5, "soft": 0.25})
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == ["10%", "20%", "30%", "40%", "50%"]
    assert lines[0] == "   10%  seed 0 student, step 100 of 500: loss 0.5, soft 0.25; about 9 s left"

    reporter.finish("seed 0 student", 500, "done", earlier=False)
    for step in range(1, 5):  # slow steps: 6 s each
        clock.now += 6
        reporter.step("seed 0 baseline", step, 500, {"loss": 1.0})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "  seed 0 student: done"
    assert [line.split()[5] for line in lines[1:]] == ["2", "4"]


def test_what_an_earlier_session_did_takes_no_time(reporter, clock, capsys):
    reporter.begin(1000)
    reporter.finish("seed 0 student", 500, "done before", earlier=True)
    reporter.start("seed 1 student", 300)
    for step in range(301, 401):
        clock.now += 1
        reporter.step("seed 1 student", step, 500, {"loss": 1.0})
    last = capsys.readouterr().err.splitlines()[-1]
    # A second each for the 100 steps that are left, and not 900 steps in 100 seconds.
    assert last.endswith("seed 1 student, step 400 of 500: loss 1; about 1 min 40 s left")


def test_the_first_step_of_a_session_says_nothing_of_the_rest(reporter, clock, capsys):
    """It waits for everything to be read and tried once: a rate of it would be off many times over."""
    reporter.begin(1000)
    reporter.finish("teacher", 500, "done before", earlier=True)
    reporter.start("seed 0 student", 100)
    clock.now += 9
    reporter.step("seed 0 student", 101, 500, {"loss": 1.0})
    assert "left" not in capsys.readouterr().err


def test_a_teacher_that_is_fitted_adds_its_steps(reporter, clock, capsys):
    reporter.begin(100)
    reporter.extend(300)
    clock.now += 60
    reporter.step("teacher", 300, 300, {"loss": 1.0})
    assert capsys.readouterr().err.startswith("   75%  teacher, step 300 of 300: loss 1; about 20 s left")


ON_A_TERMINAL = """
from tutelage.cli._progress import Reporter
with Reporter() as reporter:
    reporter.begin(10)
    reporter.step("seed 0 student", 5, 10, {"loss": 0.5})
    reporter.say("[a line] above the bar, which is longer than the terminal is wide, and stays one line all the same")
    reporter.finish("seed 0 student", 10, "done", earlier=False)
"""


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}], ids=["colours", "no colours"])
def test_a_terminal_gets_a_bar_and_colours_unless_it_wants_none(tmp_path, variables):
    mine, its = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", ON_A_TERMINAL],
        cwd=tmp_path,
        env=environment(TERM="xterm-256color", COLUMNS="80", **variables),
        stdout=subprocess.PIPE,
        stderr=its,
        check=False,
    )
    os.close(its)
    seen = b""
    with contextlib.suppress(OSError):  # the other end is closed: all has been read
        while part := os.read(mine, 65536):
            seen += part
    os.close(mine)
    seen = seen.decode()
    assert (done.returncode, done.stdout) == (0, b""), seen
    assert "━" in seen
    assert "[a line] above the bar, which is longer than the terminal is wide, and stays one line all the same" in seen
    assert "  seed 0 student: done" in seen
    # 30 to 37 and 38;5;n are the colours of letters; bars are moved by other codes.
    assert bool(re.search(r"\x1b\[(\d+;)*3[0-8][;m]", seen)) is ("NO_COLOR" not in variables)


def test_times_are_said_as_people_say_them():
    said = [duration(seconds) for seconds in (0, 59.4, 59.6, 3599, 3600, 90000)]
    assert said == ["0 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "25 h 0 min"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_with_the_place_and_what_is_free(tmp_path, number):
    place = tmp_path / "runs" / "model.safetensors"
    code, text = explain(OSError(number, os.strerror(number), str(place)))
    assert code == 1
    assert text.startswith(f"{place}: ")
    assert re.search(rf"; [\d,]+\.\d MiB are free in {re.escape(str(tmp_path))}: make room, or .*--out", text)


def test_a_disk_that_fills_up_while_weights_are_written(tmp_path):
    """safetensors tells it in words of its own."""
    told = safetensors.SafetensorError("Error while serializing: I/O error: disk full (os error 28)")

    def half(part):
        part.write_bytes(b"half")
        raise told

    code, text = explain(told)
    assert (code, text.split(";")[0]) == (1, "no space left on device")
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(tmp_path / "model.safetensors", half)
    assert caught.value.filename == str(tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []
