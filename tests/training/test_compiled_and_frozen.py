"""Students that are compiled, scripted, traced, exported or frozen, and configurations that are none."""

import copy
import dataclasses

import peft
import pytest
import safetensors.torch
import torch
import transformers
from language_helpers import one_step
from language_helpers import student as small_llama
from language_helpers import trainer_of as language_trainer
from torch import nn
from training_helpers import OBJECTIVE, lines_of, make_rows, network, trainer_of

import tutelage as tl
from tutelage.errors import ModuleError
from tutelage.models import add_lora
from tutelage.networks import signature_of
from tutelage.teachers import LiveTeacher

# What peft and torch.compile ask of transformers and of torch is on its way out there, or not meant for users.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]


class Tied(nn.Module):
    """Its two layers share a weight; the names of batches are its own."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)
        self.second.weight = self.first.weight

    def forward(self, inputs):
        return self.last(torch.tanh(self.second(torch.tanh(self.first(inputs)))))


def whole(model):
    return torch.compile(model, backend="eager")


def in_parts(model):
    for name, layer in list(model.named_children()):
        setattr(model, name, torch.compile(layer, backend="eager"))
    return model


def saving(folder, student, **given):
    settings = {"save_strategy": "steps", "save_steps": 1}
    return trainer_of(folder, make_rows(), student, **{**settings, "max_steps": 3, **given})


@pytest.mark.parametrize("how", [whole, in_parts])
def test_a_compiled_student_is_saved_and_resumed_by_its_bare_names(tmp_path, how):
    """Weights, checkpoints and a resumed run are those of the student that was not compiled, tied weights and all."""
    plain = saving(tmp_path / "plain", Tied(1))
    plain.train()
    plain.save_model(str(tmp_path / "plain" / "saved"))
    compiled = saving(tmp_path / "compiled", how(Tied(1)))
    compiled.train()
    compiled.save_model(str(tmp_path / "compiled" / "saved"))
    for file in ("saved/model.safetensors", "checkpoint-2/model.safetensors"):
        mine, expected = (safetensors.torch.load_file(tmp_path / who / file) for who in ("compiled", "plain"))
        assert mine.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(mine[name], value, rtol=1e-6, atol=1e-7)
    safetensors.torch.load_model(Tied(5), tmp_path / "compiled" / "saved" / "model.safetensors")
    # Compiled or not, each goes on from the other's checkpoint.
    for who, make in (
        ("compiled", Tied),
        ("plain", lambda seed: how(Tied(seed))),
        ("compiled", lambda seed: how(Tied(seed))),
    ):
        resumed = saving(tmp_path / "resumed", make(7))
        resumed.train(str(tmp_path / who / "checkpoint-2"))
        for (_, mine), (_, expected) in zip(
            resumed.distillation.named_parameters(), compiled.distillation.named_parameters(), strict=True
        ):
            torch.testing.assert_close(mine, expected, rtol=1e-6, atol=1e-7)


def test_ones_own_object_keeps_its_names(tmp_path):
    student = whole(Tied(1))
    before = list(student.state_dict())
    saving(tmp_path, student, save_strategy="no").train()
    assert list(student.state_dict()) == before


def layers(model):
    model.model.layers[0] = torch.compile(model.model.layers[0], backend="eager")
    return model


@pytest.mark.parametrize("how", [whole, layers])
@pytest.mark.parametrize("tied", [True, False])
def test_a_compiled_language_model_is_loaded_by_transformers(tmp_path, how, tied):
    trainer = language_trainer(tmp_path, how(small_llama(tie_word_embeddings=tied)))
    trainer.save_model(str(tmp_path / "saved"))
    names = safetensors.torch.load_file(tmp_path / "saved" / "model.safetensors")
    assert not [name for name in names if "_orig_mod" in name]
    loaded, info = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for name, value in small_llama(tie_word_embeddings=tied).state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_adapters_of_a_compiled_student_are_saved_alone(tmp_path):
    trainer = language_trainer(tmp_path, whole(add_lora(small_llama(), rank=2)))
    trainer.save_model(str(tmp_path / "saved"))
    names = safetensors.torch.load_file(tmp_path / "saved" / "adapter_model.safetensors")
    assert names
    assert all("lora_" in name and "_orig_mod" not in name for name in names)


def test_layers_of_a_compiled_student_are_found_and_read(tmp_path):
    lines = []
    for make, path in ((lambda net: net, "1"), (whole, "1"), (whole, "_orig_mod.1")):
        torch.manual_seed(0)
        term = tl.FeatureTerm(tl.LogitMSE(), path, "1", projector=nn.Linear(8, 16))
        objective = tl.Objective({"hidden": term})
        trainer = trainer_of(tmp_path, make_rows(), make(network(1)), network(2, 16), objective, max_steps=2)
        trainer.train()
        lines.append([line["hidden"] for line in lines_of(trainer)])
    assert lines[1] == lines[2] == pytest.approx(lines[0], rel=1e-6)


# --- frozen -----------------------------------------------------------------------------------------------------------


def copied():
    teacher = network(2)
    LiveTeacher(teacher)
    return copy.deepcopy(teacher)


FROZEN = {
    "frozen": (lambda: network(1).requires_grad_(False), 92),
    "a copy of a teacher": (copied, 92),
    "compiled": (lambda: whole(network(1).requires_grad_(False)), 92),
    "without parameters": (lambda: nn.Flatten(), 0),
}


@pytest.mark.parametrize("kind", FROZEN)
def test_a_student_with_nothing_to_train_is_refused(tmp_path, refused, kind):
    make, count = FROZEN[kind]
    trainer = trainer_of(tmp_path, student=make())
    with refused(ModuleError, f"has {count} parameters, and none", r"requires_grad_\(True\).*is_trainable=True.*copy"):
        trainer.train()


def test_an_adapter_loaded_for_inference_is_refused_and_one_for_training_trains(tmp_path, refused):
    adapted = add_lora(small_llama(), rank=2)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    frozen = peft.PeftModel.from_pretrained(small_llama(), str(tmp_path / "adapter"))
    with refused(ModuleError, "LlamaForCausalLM|PeftModel|HeadModel", "is_trainable=True"):
        one_step(tmp_path, frozen)
    trained = peft.PeftModel.from_pretrained(small_llama(), str(tmp_path / "adapter"), is_trainable=True)
    assert one_step(tmp_path, trained)[0]["loss"] > 0


def test_a_frozen_student_can_be_evaluated(tmp_path):
    rows = make_rows()
    found = trainer_of(tmp_path, student=network(1).requires_grad_(False), eval_dataset=rows).evaluate()
    expected = trainer_of(tmp_path, student=network(1), eval_dataset=rows).evaluate()
    assert found["eval_loss"] == expected["eval_loss"]


def test_a_projector_alone_may_train_and_that_is_said(tmp_path, caplog):
    term = tl.FeatureTerm(tl.LogitMSE(), "0", "0", projector=nn.Linear(8, 16))
    trainer = trainer_of(
        tmp_path, student=network(1).requires_grad_(False), objective=tl.Objective({"hidden": term}), max_steps=2
    )
    before = term.projector.weight.clone()
    trainer.train()
    assert not torch.equal(term.projector.weight, before)
    assert caplog.text.count("the projectors alone are trained") == 1


def test_a_network_of_all_ranks_is_refused(tmp_path, refused):
    parallel = object.__new__(nn.parallel.DistributedDataParallel)
    nn.Module.__init__(parallel)
    parallel.module = network(1)
    with refused(ModuleError, "DistributedDataParallel", "student.module"):
        trainer_of(tmp_path, student=parallel)


# --- scripted, traced, exported ---------------------------------------------------------------------------------------

SCRIPTS = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
ROW = torch.zeros(2, 6)


def without_dropout(seed, hidden=8):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, hidden), nn.Tanh(), nn.Linear(hidden, 4))


def scripted(network):
    return torch.jit.script(network)


def traced(network):
    return torch.jit.trace(network, ROW)


@SCRIPTS
@pytest.mark.parametrize("how", [scripted, traced, whole, torch.fx.symbolic_trace, nn.DataParallel])
def test_networks_of_other_kinds_train_as_the_module(tmp_path, how):
    lines = []
    for make in (lambda net: net, how):
        student = without_dropout(1) if how in (scripted, traced) else make(without_dropout(1))
        teacher = make(without_dropout(2, 16))
        trainer = trainer_of(tmp_path, make_rows(), student, teacher, max_steps=3, eval_dataset=make_rows())
        trainer.train()
        trainer.save_model(str(tmp_path))
        weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
        lines.append([*lines_of(trainer), trainer.evaluate(), {n: float(v.sum()) for n, v in weights.items()}])
    for mine, expected in zip(lines[1], lines[0], strict=True):
        assert mine.keys() == expected.keys()
        for name, value in expected.items():
            if not name.endswith(("runtime", "per_second")):
                assert mine[name] == pytest.approx(value, rel=1e-5, abs=1e-7), name


@SCRIPTS
@pytest.mark.parametrize("how", [scripted, traced])
def test_scripted_and_traced_students_train_in_a_loop_of_ones_own(tmp_path, refused, how):
    losses = []
    for student in (without_dropout(1), how(without_dropout(1))):
        model = tl.DistillationModel(student, {"teacher": without_dropout(2, 16)}, OBJECTIVE)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            loss = model(inputs=torch.ones(2, 6), labels=torch.tensor([0, 1]))["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[3:] == pytest.approx(losses[:3], rel=1e-6)
    for given in (how(without_dropout(1)), nn.Sequential(how(without_dropout(1)))):
        with refused(ModuleError, "was scripted or traced", "the module that it was made from"):
            trainer_of(tmp_path, student=given)


def two_inputs(scripted):
    class Two(nn.Module):
        def forward(self, first: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            return first + other

    return torch.jit.script(Two()) if scripted else whole(Two())


@SCRIPTS
@pytest.mark.parametrize("scripted", [True, False])
def test_their_inputs_are_known_by_name(scripted):
    assert list(signature_of(two_inputs(scripted)).parameters) == ["first", "other"]


@SCRIPTS
def test_a_trace_that_stays_in_one_mode_is_refused(tmp_path, refused):
    made = network(1, dropout=0.5)
    evaluating = torch.jit.trace(made.eval(), ROW)
    training = torch.jit.trace(made.train(), ROW, check_trace=False)
    for student, mode in ((evaluating, "evaluation"), (training, "training")):
        with refused(ModuleError, f"the student is a trace whose .* in {mode} mode", "module that it was traced from"):
            tl.DistillationModel(student, {"teacher": network(2)}, OBJECTIVE)
    with refused(ModuleError, "the teacher is a trace whose .* in training mode", r"trace module.eval\(\)"):
        trainer_of(tmp_path, teacher=training)
    rows = make_rows()
    found = trainer_of(tmp_path, student=network(3), teacher=evaluating, eval_dataset=rows).evaluate()
    expected = trainer_of(tmp_path, student=network(3), teacher=made, eval_dataset=rows).evaluate()
    assert found["eval_soft"] == pytest.approx(expected["eval_soft"], rel=1e-6)
    # Dropout that never does anything is none.
    tl.DistillationModel(torch.jit.trace(network(1), ROW), {"teacher": network(2)}, OBJECTIVE)


def test_exported_networks_are_refused(tmp_path, refused):
    exported = torch.export.export(network(1), (ROW,)).module()
    for given in ({"student": exported}, {"teacher": exported}, {"student": nn.Sequential(exported)}):
        with refused(ModuleError, "torch.export", "the module that it was exported from"):
            trainer_of(tmp_path, **given)


# --- configurations that are none -------------------------------------------------------------------------------------


@dataclasses.dataclass
class Sizes:
    width: int = 6


class Configured(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, self.layer = config, nn.Linear(6, 4)

    def forward(self, inputs):
        return self.layer(inputs)


@pytest.mark.parametrize("config", [Sizes(), {"width": 6}, lambda: 6], ids=lambda c: type(c).__name__)
def test_a_config_may_be_anything(tmp_path, config):
    before = copy.copy(vars(config)) if isinstance(config, Sizes) else None
    rows = make_rows()
    student, teacher = Configured(config), Configured(config)
    for given in (student, whole(student)):
        trainer = trainer_of(
            tmp_path, rows, given, teacher, max_steps=1, save_strategy="steps", save_steps=1, eval_dataset=rows
        )
        trainer.train()
        trainer.evaluate()
        trainer.save_model(str(tmp_path))
        assert not hasattr(trainer.distillation, "config")
    if before is not None:
        assert vars(config) == before
