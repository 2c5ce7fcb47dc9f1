"""The precision and the processes that were asked for, or an error: on a machine without a GPU nothing else is used."""

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from training_helpers import make_rows, trainer_of
from transformers import TrainingArguments

from tutelage.errors import ParameterError
from tutelage.training import connect_processes, uses_cpu, world_size
from tutelage.training._ddp import warn_of_batch_statistics
from tutelage.training._world import connected

without_gpu = pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has a GPU")


@pytest.fixture
def computed():
    """The types in which linear layers answered, in training and in evaluation."""
    found = {True: set(), False: set()}

    def note(module, inputs, output):
        if isinstance(module, nn.Linear):
            found[module.training].add(output.dtype)

    handle = register_module_forward_hook(note)
    yield found
    handle.remove()


def test_bfloat16_on_a_cpu_is_bfloat16(tmp_path, computed):
    """In training, and in evaluation within and after it."""
    trainer = trainer_of(
        tmp_path, bf16=True, max_steps=2, eval_strategy="steps", eval_steps=1, eval_dataset=make_rows(5)
    )
    trainer.train()
    trainer.evaluate()
    assert computed == {True: {torch.bfloat16}, False: {torch.bfloat16}}
    assert next(trainer.distillation.student.parameters()).dtype == torch.float32


@without_gpu
def test_float16_on_a_cpu_is_refused(tmp_path, monkeypatch, refused):
    with refused(ParameterError, r"TrainingArguments\.fp16.* on a CPU", "expected a GPU, bf16=True, or neither"):
        trainer_of(tmp_path, fp16=True)
    # As accelerate launch --mixed_precision fp16 asks for it.
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with refused(ParameterError, "--mixed_precision fp16", "expected a GPU"):
        trainer_of(tmp_path)


@pytest.mark.parametrize("name", ["fp16_full_eval", "bf16_full_eval"])
def test_an_evaluation_that_rounds_the_weights_is_refused(tmp_path, refused, name):
    with refused(ParameterError, name, "rounds the weights"):
        trainer_of(tmp_path, **{name: True})


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.fixture
def launcher(monkeypatch):
    """A setter of environment variables that also forgets those which accelerate sets on the way."""
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    # Otherwise accelerate sets the number of threads, and warns of it.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield monkeypatch.setenv
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("connect", [connected, lambda arguments: connect_processes("cpu")])
@pytest.mark.parametrize("variable", ["WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"])
def test_processes_that_cannot_be_connected_do_not_train_alone(tmp_path, launcher, refused, variable, connect):
    """Nobody says here where the first of them is."""
    arguments = TrainingArguments(str(tmp_path), report_to="none")
    launcher(variable, "2")
    assert world_size() == 2
    with refused(ParameterError, f"{variable}=2.* cannot be connected", f"torchrun .*unset {variable}"):
        connect(arguments)


def test_what_is_no_number_of_processes(launcher, refused):
    launcher("WORLD_SIZE", "two")
    with refused(ParameterError, "WORLD_SIZE='two'", "a number of processes"):
        world_size()


def test_arguments_that_know_of_one_process_beside_a_gpu(tmp_path, launcher, monkeypatch, refused):
    """MPI starts several, and accelerate looks for LOCAL_RANK where there is a GPU."""
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cuda"))
    launcher("OMPI_COMM_WORLD_SIZE", "2")
    assert not uses_cpu()
    with refused(ParameterError, r"OMPI_COMM_WORLD_SIZE=2\) 2 processes, and TrainingArguments sees 1", "torchrun"):
        connected(arguments)


def test_tasks_of_slurm_that_train_alone_are_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    trainer_of(tmp_path)
    assert "SLURM started 4 tasks" in caplog.text
    assert "torchrun" in caplog.text


@pytest.mark.parametrize(
    ("device", "found", "size", "expected"),
    [
        ("auto", None, "1", True),
        ("auto", "cuda", "1", False),
        ("auto", "cuda", "4", False),
        ("cpu", "cuda", "1", True),
        ("auto", "mps", "1", False),
        ("auto", "mps", "2", True),
    ],
)
def test_where_networks_are_trained(monkeypatch, device, found, size, expected):
    monkeypatch.setattr(
        torch.accelerator, "current_accelerator", lambda check_available: None if found is None else torch.device(found)
    )
    monkeypatch.setenv("WORLD_SIZE", size)
    assert uses_cpu(device) is expected


def test_layers_that_see_a_share_of_the_batch_are_told(caplog):
    warn_of_batch_statistics(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.SyncBatchNorm(2)))
    assert not caplog.text
    warn_of_batch_statistics(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    assert "layers of the student, 1 among them, normalise over the rows" in caplog.text
    assert "convert_sync_batchnorm" in caplog.text
