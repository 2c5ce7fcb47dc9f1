"""Activations by path: what is gathered, and that no hook is left."""

import pytest
import torch
from torch import nn

from tutelage.errors import LayerError
from tutelage.features import find_layer, tapped


def network():
    return nn.ModuleDict({"encoder": nn.Sequential(nn.Linear(3, 4), nn.ReLU()), "head": nn.Linear(4, 2)})


def hooks(module):
    return sum(len(layer._forward_hooks) for layer in module.modules())


def test_what_the_layers_gave():
    module, x = network(), torch.randn(5, 3)
    with tapped("student", module, ["encoder.0", "encoder", "encoder.0"]) as taps:
        inside = module["encoder"](x)
    assert sorted(taps) == ["encoder", "encoder.0"]
    assert torch.equal(taps["encoder"], inside)
    assert torch.equal(taps["encoder.0"], x @ module["encoder"][0].weight.T + module["encoder"][0].bias)
    taps["encoder.0"].sum().backward()
    assert module["encoder"][0].weight.grad is not None


def test_hooks_are_removed_whatever_happens():
    module = network()
    with tapped("student", module, ["encoder.0", "head"]):
        assert hooks(module) == 2
    assert hooks(module) == 0
    with pytest.raises(ZeroDivisionError), tapped("student", module, ["encoder.0", "head"]):
        raise ZeroDivisionError
    assert hooks(module) == 0
    with pytest.raises(LayerError), tapped("student", module, ["head", "nowhere"]):
        pass
    assert hooks(module) == 0


def test_an_unknown_path_names_the_nearest():
    with pytest.raises(
        LayerError, match=r"student \(ModuleDict\) has no layer 'encodr\.0'; the nearest are \['encoder\.0'"
    ):
        find_layer("student", network(), "encodr.0")
    with pytest.raises(LayerError, match=r"it has \['encoder', 'encoder\.0'"):
        find_layer("student", network(), "###")
    with pytest.raises(LayerError, match="no layers inside"):
        find_layer("student", nn.Linear(1, 1), "x")
    module = network()
    assert find_layer("student", module, "") is module


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.unused, self.lstm = nn.Linear(3, 3), nn.Linear(3, 3), nn.LSTM(3, 3)

    def forward(self, x):
        return self.cell(self.cell(x)) + self.lstm(x)[0]


@pytest.mark.parametrize(("path", "times"), [("cell", 2), ("unused", 0)])
def test_a_layer_that_did_not_run_once(path, times):
    module = Recurrent()
    with tapped("teacher 'big'", module, [path]) as taps:
        module(torch.ones(2, 3))
    with pytest.raises(LayerError, match=rf"'{path}' of the teacher 'big' ran {times} times.*choose a layer"):
        _ = taps[path]


def test_the_first_tensor_of_a_tuple_or_mapping():
    module = Recurrent()
    with tapped("student", module, ["lstm"]) as taps:
        module(torch.ones(2, 3))
    assert taps["lstm"].shape == (2, 3)

    class Named(nn.Module):
        def forward(self, x):
            return x

    named = nn.Sequential(Named())
    for given, found in (({"none": None, "h": torch.ones(1)}, True), ({"a": 1}, False), (None, False)):
        with tapped("student", named, ["0"]) as taps:
            named(given)
        if found:
            assert torch.equal(taps["0"], torch.ones(1))
        else:
            with pytest.raises(LayerError, match="expected a tensor"):
                _ = taps["0"]
