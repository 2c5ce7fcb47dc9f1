"""States of optimizers and random numbers come back as they were, to the bit and the stride, and nothing unpickles."""

import math
import pickle
import random
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tutelage.errors import DamagedDataError
from tutelage.training import _states
from tutelage.training._checkpointing import Checkpointing
from tutelage.training._states import load_state, save_state


def assert_same(one, other):
    assert type(one) is type(other) or isinstance(one, dict)
    if isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride())
        assert (
            one.contiguous().view(torch.uint8).equal(other.contiguous().view(torch.uint8))
            if one.dim()
            else one.equal(other)
        )
    elif isinstance(one, (np.ndarray, np.generic)):
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key, value in one.items():
            assert_same(value, other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert_same(mine, theirs)
    else:
        assert one == other or (math.isnan(one) and math.isnan(other))


BASE = torch.arange(24.0).reshape(2, 3, 4)
STATES = {
    "numbers": [0, -1, 2**70, 0.1, -0.0, 1e-308, math.inf, -math.inf, math.nan, True, None, "text \u00e9\ud800"],
    "keys": {0: 1, "0": 2, (1, "a"): 3, None: 4},
    "nested": {"a": [(1, (2.5, [])), {}], "b": OrderedDict(c=())},
    "tensors": [BASE, torch.tensor(3.0), torch.empty(0, 2), torch.tensor([True]), BASE.to(torch.bfloat16), BASE.long()],
    "strides": [
        BASE.permute(2, 0, 1),
        BASE.transpose(0, 1),
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    ],
    "shared": [BASE, BASE, BASE[1]],
    "arrays": [np.arange(5, dtype=np.uint32), np.float32(0.1), np.array(2), np.zeros((0, 3)), np.array([1j])],
    "random": (random.getstate(), np.random.get_state(), torch.get_rng_state()),
}


@pytest.mark.parametrize("kind", STATES)
def test_a_state_comes_back(tmp_path, kind):
    save_state(STATES[kind], tmp_path, "state")
    assert not (tmp_path / "state.pt").exists()
    assert_same(STATES[kind], load_state(tmp_path, "state"))


def test_large_states_are_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(_states, "_LARGEST_FILE", 100)
    state = [torch.arange(n, dtype=torch.float32) for n in (20, 5, 1, 100, 0, 30)]
    save_state(state, tmp_path, "optimizer")
    assert len(list(tmp_path.glob("optimizer*.safetensors"))) == 5
    assert_same(state, load_state(tmp_path, "optimizer"))
    (tmp_path / "optimizer-2.safetensors").unlink()
    with pytest.raises(DamagedDataError, match=r"optimizer\.json and what belongs to it cannot be read"):
        load_state(tmp_path, "optimizer")


def test_what_comes_back_is_no_view_of_the_file(tmp_path):
    save_state([torch.zeros(4)], tmp_path, "state")
    (loaded,) = load_state(tmp_path, "state")
    file = tmp_path / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-16] + b"x" * 16)
    assert loaded.equal(torch.zeros(4))


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adafactor", "LBFGS", "NAdam"])
def test_the_states_of_optimizers(tmp_path, name):
    weight = torch.nn.Parameter(torch.randn(3, 2))
    optimizer = getattr(torch.optim, name)([weight], **({"momentum": 0.9} if name == "SGD" else {}))
    for _ in range(3):

        def loss():
            optimizer.zero_grad()
            value = weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
    save_state(optimizer.state_dict(), tmp_path, "optimizer")
    assert not (tmp_path / "optimizer.pt").exists()
    assert_same(optimizer.state_dict(), load_state(tmp_path, "optimizer"))


class Odd:
    """What is no tensor and no number."""

    def __reduce__(self):
        return (print, ("pickles run code",))


def test_what_is_not_plain_keeps_the_format_of_torch(tmp_path):
    save_state({"state": {1, 2}}, tmp_path, "optimizer")
    assert [path.name for path in tmp_path.iterdir()] == ["optimizer.pt"]
    assert load_state(tmp_path, "optimizer") == {"state": {1, 2}}


def test_no_code_of_a_file_runs(tmp_path, capsys):
    (tmp_path / "optimizer.pt").write_bytes(pickle.dumps(Odd(), protocol=2))
    (tmp_path / "rng_state.pth").write_bytes(pickle.dumps(Odd(), protocol=2))
    torch.save(Odd(), tmp_path / "scheduler.pt")
    for name, older in (("optimizer", None), ("rng_state_0", "rng_state.pth"), ("scheduler", None)):
        with pytest.raises(DamagedDataError, match="cannot be read as tensors and numbers alone"):
            load_state(tmp_path, name, older)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[" * 100_000, "[]", '{"state": 1}', '{"state": 1, "files": "1"}', '{"state": 1, "files": 1}'),
        *(f'{{"files": 0, "state": {state}}}' for state in ('{"tensor": 0}', '{"tuple": 3}', '{"dict": [[1]]}')),
        *(f'{{"files": 0, "state": {state}}}' for state in ('{"array": 0}', '{"other": 1}')),
    ],
)
def test_a_state_that_cannot_be_read_is_named(tmp_path, text):
    (tmp_path / "optimizer.json").write_text(text)
    with pytest.raises(DamagedDataError, match=r"optimizer\.json"):
        load_state(tmp_path, "optimizer")


def test_a_missing_state_is_named(tmp_path):
    with pytest.raises(DamagedDataError, match=r"optimizer\.json is missing"):
        load_state(tmp_path, "optimizer")


@pytest.mark.parametrize("kept", ["one", "list", "none"])
def test_random_numbers_of_a_device(tmp_path, monkeypatch, caplog, kept):
    """Those of this process's device are kept; transformers kept those of all devices where there were several."""
    own, states = torch.arange(16, dtype=torch.uint8), []
    module = SimpleNamespace(get_rng_state=lambda: own, set_rng_state=states.append)
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    here = SimpleNamespace(args=SimpleNamespace(device=torch.device("cuda:1"), process_index=0, world_size=1))
    before = torch.get_rng_state()
    Checkpointing._save_rng_state(here, str(tmp_path))
    if kept != "one":
        written = load_state(tmp_path, "rng_state_0")
        written["cuda"] = [own + 1, own]
        if kept == "none":
            del written["cuda"]
        save_state(written, tmp_path, "rng_state_0")
    drawn = torch.rand(3)
    Checkpointing._load_rng_state(here, str(tmp_path))
    assert torch.get_rng_state().equal(before)
    assert torch.rand(3).equal(drawn)
    assert [state.equal(own) for state in states] == [True] * (kept != "none")
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path} was not written on cuda, and has no random numbers of it"
    ] * (kept == "none")


def test_the_scale_of_gradients(tmp_path, caplog):
    def trainer(scale):
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        return SimpleNamespace(accelerator=SimpleNamespace(scaler=scaler), args=SimpleNamespace(should_save=True))

    other = trainer(2.0)
    Checkpointing._load_scaler(other, str(tmp_path))
    assert "the scale of its gradients starts anew" in caplog.text
    Checkpointing._save_scaler(trainer(8.0), str(tmp_path))
    Checkpointing._load_scaler(other, str(tmp_path))
    assert other.accelerator.scaler.get_scale() == 8.0
