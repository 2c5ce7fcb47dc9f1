"""A run that is stopped at any step and resumed is the run that was not: weights, and every line of the log."""

import itertools
import os
import shutil
import signal
import threading

import pytest
import torch
from training_helpers import make_rows, network, trainer_of
from transformers import TrainerCallback

import tutelage as tl
from tutelage.errors import DamagedDataError, InputError
from tutelage.training import Interruptible, MetricsLog, MixingCollator, collate, last_checkpoint

STEPS = 9  # three epochs of six micro-batches, two to a step

STRATEGIES = {
    "steps": {"logging_steps": 4, "eval_strategy": "steps", "eval_steps": 5},
    "epochs": {"logging_strategy": "epoch", "eval_strategy": "epoch"},
}


def make(folder, callbacks=(), save="steps", **given):
    settings = {
        "num_train_epochs": 3,
        "gradient_accumulation_steps": 2,
        "save_strategy": save,
        "save_steps": 1,
        "warmup_steps": 3,
        "eval_dataset": make_rows(10),
        "data_collator": MixingCollator(collate, 0.5),
        **given,
    }
    return trainer_of(folder, callbacks=[MetricsLog(folder / "metrics.jsonl"), *callbacks], **settings)


def result(trainer, folder):
    assert trainer.state.global_step == STEPS
    return (folder / "metrics.jsonl").read_bytes(), trainer.distillation.state_dict()


def assert_same(one, other):
    assert one[0].decode().split("\n") == other[0].decode().split("\n")
    assert all(torch.equal(value, other[1][name]) for name, value in one[1].items())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_resume_at_every_step(tmp_path, strategy):
    given = STRATEGIES[strategy]
    whole = make(tmp_path / "whole", save="no", **given)
    whole.train()
    expected = result(whole, tmp_path / "whole")
    assert len(expected[0].splitlines()) == {"steps": 3 + 2, "epochs": 3 + 3}[strategy]

    saving = make(tmp_path / "saving", **given)
    saving.train()
    assert_same(result(saving, tmp_path / "saving"), expected)
    for step in range(1, STEPS):
        folder = tmp_path / f"from-{step}"
        shutil.copytree(tmp_path / "saving" / f"checkpoint-{step}", folder / f"checkpoint-{step}")
        # What the first session had logged beyond the checkpoint is on disk when the second begins.
        shutil.copy(tmp_path / "saving" / "metrics.jsonl", folder)
        resumed = make(folder, save="no", **given)
        torch.manual_seed(step)  # whatever was drawn before must not matter
        resumed.train(resume_from_checkpoint=True)
        assert_same(result(resumed, folder), expected)


@pytest.mark.parametrize("length", [{"max_steps": STEPS - 1}, {"num_train_epochs": 3}], ids=["in an epoch", "epochs"])
def test_after_the_last_step_nothing_is_left_to_do(tmp_path, length):
    given = {**STRATEGIES["steps"], **length, "lr_scheduler_type": "constant"}
    saving = make(tmp_path, **given)
    steps = saving.train().global_step
    expected = (tmp_path / "metrics.jsonl").read_bytes(), saving.distillation.state_dict()
    resumed = make(tmp_path, **given)
    assert resumed.train(resume_from_checkpoint=True).global_step == steps
    assert_same(((tmp_path / "metrics.jsonl").read_bytes(), resumed.distillation.state_dict()), expected)


class PressCtrlC(TrainerCallback):
    """Presses Ctrl-C in the middle of a step, or sends another signal."""

    def __init__(self, *steps, by=signal.SIGINT):
        self.steps, self.by = list(steps), by

    def on_step_begin(self, args, state, control, **kwargs):
        while self.steps and state.global_step + 1 == self.steps[0]:
            self.steps.pop(0)
            os.kill(os.getpid(), self.by)


@pytest.mark.parametrize(("strategy", "step"), list(itertools.product(STRATEGIES, [1, 3, 5, 8])))
def test_ctrl_c_and_resume(tmp_path, strategy, step):
    given = STRATEGIES[strategy]
    whole = make(tmp_path / "whole", save="no", **given)
    whole.train()
    folder, told = tmp_path / "stopped", []
    save = {"steps": "no", "epochs": "epoch"}[strategy]
    before = signal.getsignal(signal.SIGINT)
    stopped = make(folder, [Interruptible(lambda: told.append("ctrl-c")), PressCtrlC(step)], save, **given)
    stopped.train()
    assert stopped.interrupted
    assert told == ["ctrl-c"]
    assert stopped.state.global_step == step
    assert signal.getsignal(signal.SIGINT) is before
    assert last_checkpoint(folder).name == f"checkpoint-{step}"
    # The session that was stopped has logged what a run logs that is not stopped, and nothing of its own.
    expected = result(whole, tmp_path / "whole")
    assert expected[0].startswith((folder / "metrics.jsonl").read_bytes())
    resumed = make(folder, [Interruptible()], save="no", **given)
    resumed.train(resume_from_checkpoint=True)
    assert not resumed.interrupted
    assert_same(result(resumed, folder), expected)


def test_the_second_ctrl_c_stops_at_once(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    trainer = make(tmp_path, [Interruptible(), PressCtrlC(2, 2)], save="no")
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.state.global_step == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_in_the_last_step_lets_the_run_end(tmp_path):
    listener = Interruptible()
    trainer = make(tmp_path, [listener, PressCtrlC(STEPS)], save="no")
    trainer.train()
    assert listener.requested
    assert not trainer.interrupted


def test_handlers_are_restored_after_an_error(tmp_path):
    class Fail(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise OSError("no space left")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(OSError, match="no space"):
        make(tmp_path, [Interruptible(), Fail()], save="no").train()
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_training_goes_on(tmp_path):
    trainer = make(tmp_path, [Interruptible()], save="no")
    thread = threading.Thread(target=trainer.train)
    thread.start()
    thread.join()
    assert trainer.state.global_step == STEPS


def test_a_half_written_checkpoint_does_not_count(tmp_path):
    trainer = make(tmp_path, num_train_epochs=1)
    trainer.train()
    assert last_checkpoint(tmp_path).name == "checkpoint-3"
    state = tmp_path / "checkpoint-3" / "trainer_state.json"
    state.write_text(state.read_text()[:40])
    assert last_checkpoint(tmp_path).name == "checkpoint-2"
    with pytest.raises(DamagedDataError, match=r"checkpoint-3/trainer_state.json is cut off: it has 40 bytes"):
        trainer.train(resume_from_checkpoint=tmp_path / "checkpoint-3")
    assert last_checkpoint(tmp_path / "nowhere") is None
    with pytest.raises(InputError, match="no complete checkpoint in"):
        make(tmp_path / "empty").train(resume_from_checkpoint=True)


def test_another_model_or_objective_is_refused(tmp_path):
    make(tmp_path, num_train_epochs=1).train()
    with pytest.raises(InputError, match="do not fit the model"):
        make(tmp_path, student=network(1, hidden=9)).train(resume_from_checkpoint=True)
    other = tl.Objective({"gentle": tl.Term(tl.ForwardKL())})
    with pytest.raises(InputError, match=r"\['hard', 'loss', 'soft'\].*\['gentle', 'loss'\]"):
        make(tmp_path, objective=other).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_other_signals_are_as_ctrl_c(tmp_path, name):
    signum = getattr(signal, name)
    whole = make(tmp_path / "whole", save="no")
    whole.train()
    passed_on = []
    before = signal.signal(signum, lambda *arguments: passed_on.append(arguments[0]))
    try:
        listener = Interruptible()
        stopped = make(tmp_path / "stopped", [listener, PressCtrlC(4, by=signum)], save="no")
        stopped.train()
        assert (stopped.interrupted, listener.signal, stopped.state.global_step) == (True, signum, 4)
        resumed = make(tmp_path / "stopped", save="no")
        resumed.train(resume_from_checkpoint=True)
        assert_same(result(resumed, tmp_path / "stopped"), result(whole, tmp_path / "whole"))
        assert passed_on == []
        # A second one is for whoever listened before.
        make(tmp_path / "twice", [Interruptible(), PressCtrlC(2, 2, by=signum)], save="no").train()
        assert passed_on == [signum]
        signal.signal(signum, signal.SIG_IGN)
        ignoring = make(tmp_path / "ignored", [Interruptible(), PressCtrlC(2, by=signum)], save="no")
        ignoring.train()
        assert not ignoring.interrupted
    finally:
        signal.signal(signum, before)
