"""Networks: what a recipe names is what is made, and what is saved is what comes back."""

import json
import re
import sys
import types

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tutelage.errors import (
    DamagedDataError,
    EmptyInputError,
    MissingPackageError,
    ModelError,
    ParameterError,
    ShapeError,
)
from tutelage.models import MLP, build_model, load_model, load_weights, parameter_count, read_card, save_model

SPEC = {"mlp": {"hidden": [7, 5], "dropout": 0.2, "activation": "tanh"}}
CLASSES = ("a", "b", "c")


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    module = build_model(SPEC, (1, 4, 2), 3)
    module.standardise(torch.rand(20, 1, 4, 2) * 5 + 1)
    save_model(module, SPEC, tmp_path / "model", shape=(1, 4, 2), classes=CLASSES)
    return module.eval(), tmp_path / "model"


def test_an_mlp_is_its_layers(generator):
    """Against the sums written out."""
    mlp = MLP((4,), 3, hidden=[6], activation="gelu").eval()
    x = torch.randn(5, 4, generator=generator) * 3 + 2
    mlp.standardise(x)
    (first, second) = [layer for layer in mlp.layers if isinstance(layer, nn.Linear)]
    z = (x - x.mean(0)) / x.std(0, correction=0)
    hidden = z @ first.weight.T + first.bias
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(mlp(x), hidden @ second.weight.T + second.bias)
    assert parameter_count(mlp) == 4 * 6 + 6 + 6 * 3 + 3


def test_dropout_is_for_training():
    mlp = MLP((4,), 3, hidden=[50], dropout=0.5)
    x = torch.ones(1, 4)
    assert not torch.equal(mlp(x), mlp(x))
    assert torch.equal(mlp.eval()(x), mlp(x))


def test_a_linear_model():
    assert parameter_count(MLP((2, 3), 4)) == 6 * 4 + 4
    assert MLP((2, 3), 4, dropout=0.5)(torch.zeros(2, 2, 3)).shape == (2, 4)


def test_inputs_are_standardised_per_channel_or_column(generator):
    image = MLP((2, 3, 3), 2)
    rows = torch.randn(50, 2, 3, 3, generator=generator) * torch.tensor([1.0, 9.0])[:, None, None] + 4
    image.standardise(rows)
    z = image.standardised(rows)
    for channel in (0, 1):
        assert abs(float(z[:, channel].mean())) < 1e-6
        assert abs(float(z[:, channel].std(correction=0)) - 1) < 1e-5
    table = MLP((2,), 2)
    table.standardise(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    assert table.standardised(torch.tensor([[1.0, 5.0], [3.0, 6.0]])).tolist() == [[-1, 0], [1, 1]]


def test_what_no_mlp_can_be(refused):
    with refused(ParameterError, r"hidden=\[0\]", "> 0"):
        MLP((4,), 3, hidden=[0])
    with refused(ParameterError, "dropout=1", r"in \[0, 1\)"):
        MLP((4,), 3, dropout=1)
    with refused(ParameterError, "'swish'", "relu"):
        MLP((4,), 3, activation="swish")
    with refused(ShapeError, r"\(2, 5\)", r"\(rows, 4,\)"):
        MLP((4,), 3)(torch.zeros(2, 5))
    with refused(EmptyInputError, "no rows", "training rows"):
        MLP((4,), 3).standardise(torch.zeros(0, 4))


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"mlp": {"hidden": [3], "depth": 2}},
        {"mlp": 3},
        {"mlp": {}, "timm": "resnet18"},
        {"cnn": {}},
        {"mlp": {"hidden": [-1]}},
        {"mlp": {"hidden": 3}},
        {"model": "os.system"},
    ],
)
def test_architectures_that_are_none(refused, spec):
    with refused(ModelError, "architecture", "expected|cannot be made"):
        build_model(spec, (4,), 3)


def test_what_is_saved_comes_back(saved):
    module, folder = saved
    x = torch.rand(9, 1, 4, 2)
    state = torch.random.get_rng_state()
    back = load_model(str(folder))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not back.training
    assert torch.equal(back(x), module(x))
    assert read_card(folder).classes == CLASSES
    assert sorted(entry.name for entry in folder.parent.iterdir()) == ["model"]
    assert sorted(entry.name for entry in folder.iterdir()) == ["manifest.json", "model.json", "model.safetensors"]
    # Saving again takes its place.
    save_model(build_model(SPEC, (1, 4, 2), 3), SPEC, folder, shape=(1, 4, 2), classes=CLASSES)
    assert not torch.equal(load_model(folder)(x), module(x))


def test_a_card_that_is_not_the_networks_is_not_written(saved, refused):
    module, folder = saved
    with refused(ModelError, "to be saved", "another architecture|number of classes"):
        save_model(module, {"mlp": {"hidden": [8, 5]}}, folder.parent / "other", shape=(1, 4, 2), classes=CLASSES)
    assert not (folder.parent / "other").exists()


def test_weights_that_do_not_fit(saved, tmp_path, refused):
    _, folder = saved
    with refused(ModelError, r"'layers.6.weight' has shape \(3, 5\)", r"expected \(4, 5\).*number of classes"):
        load_weights(build_model(SPEC, (1, 4, 2), 4), folder)
    with refused(ModelError, "has weights for", "another architecture"):
        load_weights(MLP((1, 4, 2), 5, hidden=[7]), folder)
    weights = load_file(folder / "model.safetensors")
    del weights["mean"]
    save_file(weights, tmp_path / "cut.safetensors")
    with refused(ModelError, "no weights for 'mean'", "another architecture"):
        load_weights(build_model(SPEC, (1, 4, 2), 3), tmp_path / "cut.safetensors")
    with refused(ModelError, "is not there", "safetensors"):
        load_weights(build_model(SPEC, (1, 4, 2), 3), tmp_path / "none.safetensors")


def test_folders_that_are_damaged_or_none(saved, tmp_path, refused):
    _, folder = saved
    with refused(ModelError, "holds no model.json", "folder of a model"):
        load_model(tmp_path)
    file, card = folder / "model.safetensors", folder / "model.json"
    whole = file.read_bytes()
    file.write_bytes(whole[:-3])
    with refused(DamagedDataError, "model.safetensors is cut off", "copy it again"):
        load_model(folder)
    # As versions of tutelage before there was a manifest have saved it.
    (folder / "manifest.json").unlink()
    with refused(DamagedDataError, "model.safetensors", "cannot be read"):
        load_model(folder)
    file.write_bytes(whole)
    written = json.loads(card.read_text())
    for change, error, came in [
        ({"format": 2}, ModelError, "format 2"),
        ({"shape": "wide"}, DamagedDataError, "no card of a model"),
        ({"classes": [1, 2, 3]}, DamagedDataError, "no card of a model"),
        ({"model": {"mlp": {"hidden": [7, 5], "import": "os"}}}, ModelError, "cannot be made"),
        ({"model": {"mlp": {"hidden": [7, 6]}}}, ModelError, "has shape"),
    ]:
        card.write_text(json.dumps(written | change))
        with refused(error, came, "expected|update|unexpected|another"):
            load_model(folder)
    card.write_text("{")
    with refused(DamagedDataError, "model.json is not JSON", "write it again"):
        load_model(folder)


def test_a_network_from_timm(monkeypatch, tmp_path, refused):
    """timm is not installed here; what is asked of it is what its documentation promises."""
    monkeypatch.setitem(sys.modules, "timm", None)
    with refused(MissingPackageError, "timm, which is not installed", r"tutelage\[vision\]"):
        build_model({"timm": "resnet18"}, (3, 8, 8), 4)
    asked = []

    def create_model(name, pretrained, num_classes, in_chans):
        asked.append((name, pretrained, num_classes, in_chans))
        if name != "resnet18":
            raise RuntimeError(f"Unknown model ({name})")
        net = nn.Sequential(nn.Flatten(), nn.Linear(in_chans * 64, num_classes))
        net.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.3)}
        return net

    fake = types.SimpleNamespace(create_model=create_model, list_models=lambda: ["resnet18", "resnet34"])
    monkeypatch.setitem(sys.modules, "timm", fake)
    spec = {"timm": "resnet18", "pretrained": True}
    module = build_model(spec, (3, 8, 8), 4).eval()
    x = torch.rand(6, 3, 8, 8)
    module.standardise(x)
    assert [round(value, 6) for value in module.mean.flatten().tolist()] == [0.5, 0.4, 0.3]
    save_model(module, spec, tmp_path / "m", shape=(3, 8, 8), classes="abcd")
    assert torch.equal(load_model(tmp_path / "m")(x), module(x))
    # Loading fetches nothing: the weights are in the folder.
    assert [pretrained for _, pretrained, _, _ in asked] == [True, False, False]
    grey = build_model({"timm": "resnet18"}, (1, 8, 8), 4)
    grey.standardise(torch.full((2, 1, 8, 8), 0.25))
    assert grey.mean.flatten().tolist() == [0.25]
    with refused(ModelError, "resnet19 cannot be made", "did you mean 'resnet18'"):
        build_model({"timm": "resnet19"}, (3, 8, 8), 4)
    with refused(ModelError, "takes images", "use an mlp"):
        build_model({"timm": "resnet18"}, (5,), 4)


# --- what was written is what is read --------------------------------------------------------------------------------


def damages(data):
    """Return contents that are not what was written, by the kind of damage; None for a file that is gone."""
    middle = len(data) // 2
    return {
        "a bit": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "cut": data[: len(data) // 2],
        "empty": b"",
        "zeros": bytes(len(data)),
        "longer": data + b"\0",
        "gone": None,
    }


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "manifest.json"])
def test_every_damage_to_a_saved_model_is_noticed(saved, refused, name):
    _, folder = saved
    file = folder / name
    whole = file.read_bytes()
    for damage, content in damages(whole).items():
        if content is None and name == "manifest.json":
            continue  # a model that an earlier version saved has none
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        with refused(DamagedDataError, re.escape(name), "copy it again.*remove"):
            load_model(folder)
        if name == "model.safetensors":
            with refused(DamagedDataError, re.escape(name), "copy it again"):
                load_weights(build_model(SPEC, (1, 4, 2), 3), folder) if damage != "gone" else load_model(folder)
        file.write_bytes(whole)
    (folder / "README.md").write_text("A card that somebody wrote.")
    load_model(folder)


def test_files_that_can_run_code_are_not_damaged_but_refused(saved, tmp_path, refused):
    module, _ = saved
    for name in ("model.pth", "weights.safetensors"):
        torch.save(module.state_dict(), tmp_path / name)
        with refused(ModelError, f"{name} is not in the format of safetensors", "save_file"):
            load_weights(build_model(SPEC, (1, 4, 2), 3), tmp_path / name)
    # A header of 640 bytes begins as a pickle does.
    save_file(module.state_dict(), tmp_path / "like.safetensors", metadata={"note": ""})
    short = int.from_bytes((tmp_path / "like.safetensors").read_bytes()[:8], "little")
    save_file(module.state_dict(), tmp_path / "like.safetensors", metadata={"note": "x" * (0x0480 - short)})
    assert (tmp_path / "like.safetensors").read_bytes()[:2] == b"\x80\x04"
    load_weights(build_model(SPEC, (1, 4, 2), 3), tmp_path / "like.safetensors")


def test_a_checkpoint_of_timm(tmp_path, refused):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 2)
            self.register_buffer("mean", torch.zeros(3))

    save_file(Net().net.state_dict(), tmp_path / "model.safetensors")
    with refused(ModelError, "timm's network alone", "pretrained: true.*DistillationTrainer"):
        load_weights(Net(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "num_classes": 2}))
    with refused(ModelError, r"holds no model.json.*checkpoint of timm", r"`timm: resnet18`.*DistillationTrainer"):
        load_model(tmp_path)
