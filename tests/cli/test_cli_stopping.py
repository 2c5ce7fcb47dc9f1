"""How commands are stopped, and what does not stop them: signals, readers that have gone, outputs that are full."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from cli_process import Forked, environment

from tutelage.cli import main
from tutelage.run_folder import read_json
from tutelage.training import DistillationTrainer

RECIPE = """\
data: {source: digits, labeled: 50}
teacher: {mlp: {hidden: [16]}, fit: {epochs: 2, learning_rate: 1e-2}}
student: {mlp: {hidden: [4]}}
objective: {soft: {forward_kl: {}, temperature: 2}}
training: {steps: 60, evaluations: 2, checkpoints: 1, seeds: 1, learning_rate: 1e-2, device: cpu}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the recipe, a run of it, and a cache with its teacher."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "small.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTELAGE_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        # In this process: all that a fork needs is loaded then.
        assert main(["train", "small.yaml", "--out", "whole"]) == 0
    return folder


@pytest.fixture(autouse=True)
def cache(place, monkeypatch):
    monkeypatch.setenv("TUTELAGE_CACHE", str(place / "cache"))


@pytest.fixture(autouse=True)
def heard():
    """A SIGHUP ends what it reaches, also where `nohup` started the tests and hands down that it is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def student(folder):
    """The bytes of what is the same in equal runs."""
    return [(folder / "seed-0/student" / name).read_bytes() for name in ("model/model.safetensors", "metrics.jsonl")]


# --- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["int", "term", "hup"]
)
def test_a_signal_saves_and_says_how_to_go_on(place, signum, code):
    out = f"stopped-{code}"
    with Forked("train", "small.yaml", "--out", out, "--no-report", cwd=place) as command:
        command.until("student, step")
        command.kill(signum)
        done = command.end()
    assert done.code == code, done
    assert "Traceback" not in done.err
    assert f"is saved in {out}" in done.err
    assert done.err.rstrip().endswith(f"train --resume {out}")
    assert read_json(place / out / "run.json")["status"] == "interrupted"
    with Forked("train", "--resume", out, "--no-report", cwd=place) as command:
        assert "goes on at step" in command.until("goes on")
        assert command.end().code == 0
    assert student(place / out) == student(place / "whole")


def slow():
    """A step that takes a minute: the first signal is not answered before the second comes."""
    step = DistillationTrainer.training_step

    def training_step(self, *args, **kwargs):
        if self.state.global_step == 30:
            os.write(2, b"waiting\n")
            end = time.monotonic() + 60
            while time.monotonic() < end:
                time.sleep(0.01)
        return step(self, *args, **kwargs)

    DistillationTrainer.training_step = training_step


def test_the_second_signal_stops_at_once(place):
    with Forked("train", "small.yaml", "--out", "at-once", cwd=place, prepare=slow) as command:
        command.until("waiting")
        command.kill(signal.SIGTERM)
        command.until("Stopping")
        command.kill(signal.SIGTERM)
        done = command.end()
    assert done.code == 143, done
    assert "Traceback" not in done.err
    assert read_json(place / "at-once" / "run.json")["status"] == "interrupted"


def test_a_signal_before_anything_is_written(place):
    with Forked("train", "small.yaml", "--out", "early", cwd=place) as command:
        command.until("loading PyTorch")
        command.kill(signal.SIGTERM)
        done = command.end()
    assert done.code == 143, done
    assert "Stopped before anything was written" in done.err
    assert not (place / "early").exists()


def test_nohup_is_respected(place):
    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with Forked("train", "small.yaml", "--out", "nohup", "--no-report", cwd=place, prepare=ignore) as command:
        command.until("student, step")
        command.kill(signal.SIGHUP)
        assert command.end().code == 0
    assert student(place / "nohup") == student(place / "whole")


# --- outputs ----------------------------------------------------------------------------------------------------------


def closed_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def full():
    return os.open("/dev/full", os.O_WRONLY)


@pytest.mark.parametrize(
    ("out", "err"),
    [(closed_pipe, None), (None, closed_pipe), (closed_pipe, closed_pipe), (None, full)],
    ids=["stdout", "stderr", "both", "a full log"],
)
def test_a_reader_that_has_gone_stops_no_training(place, tmp_path, out, err):
    outputs = {name: make() for name, make in (("out", out), ("err", err)) if make is not None}
    words = [] if out is err is closed_pipe else ["--no-report"]
    with Forked("train", place / "small.yaml", "--out", "run", *words, cwd=tmp_path, **outputs) as command:
        done = command.end()
    for descriptor in outputs.values():
        os.close(descriptor)
    assert done.code == 0, done
    assert student(tmp_path / "run") == student(place / "whole")
    assert read_json(tmp_path / "run" / "run.json")["status"] == "complete"
    assert (tmp_path / "run" / "report.html").is_file() is (not words)
    if out is None:
        assert "student" in done.out


@pytest.mark.slow
def test_closed_outputs_stop_no_training_and_get_no_file_of_ours(place, tmp_path):
    """With `>&-` the next file that is opened gets the number of stdout, and whatever is printed lands in it."""
    code = f"{sys.executable} -m tutelage train {place / 'small.yaml'} --out run --no-report <&- >&- 2>&-"
    done = subprocess.run(
        ["bash", "-c", code], cwd=tmp_path, env=environment(TUTELAGE_CACHE=str(place / "cache")), check=False
    )
    assert done.returncode == 0
    assert student(tmp_path / "run") == student(place / "whole")


def test_data_that_cannot_be_written_is_an_error(place):
    output = full()
    with Forked("train", "small.yaml", "--dry-run", "--json", cwd=place, out=output) as command:
        done = command.end()
    os.close(output)
    assert done.code == 1
    assert "no space left on device" in done.err


@pytest.mark.parametrize("words", [["ls"], ["schema"], ["env"], ["--help"], ["evaluate", "whole", "--json"]], ids=str)
def test_other_commands_end_quietly(place, words):
    output = closed_pipe()
    with Forked(*words, cwd=place, out=output) as command:
        done = command.end()
    os.close(output)
    assert done.code == 0, done
    assert "Traceback" not in done.err
    assert "roken pipe" not in done.err


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_nothing_in_a_recipe_moves_the_cursor(tmp_path):
    nasty = "\x1b]0;title\x07\x1b[2Jred\r\u202egnp"
    description, table = json.dumps(f"{nasty}\nnext: rm"), json.dumps(f"{nasty}.csv")
    recipe = RECIPE.replace("source: digits", f"table: {table}, target: x")
    (tmp_path / "nasty.yaml").write_text(f"description: {description}\n{recipe}")
    for words, code in ((["validate"], 0), (["train", "--dry-run"], 2), (["train", "--debug"], 2)):
        with Forked(words[0], "nasty.yaml", *words[1:], cwd=tmp_path) as command:
            done = command.end()
        assert done.code == code, done
        for text in (done.out, done.err):
            assert all(sign.isprintable() or sign == "\n" for sign in text), repr(text)
        assert "\\x1b[2Jred\\r\\u202egnp" in done.err
        assert not any(line.startswith("next: rm") for line in done.err.splitlines())
