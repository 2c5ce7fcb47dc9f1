"""Students and teachers of all kinds against plain transformers in float64: adapters, frozen heads, other dtypes."""

import copy

import accelerate
import pytest
import torch
from language_helpers import (
    COLLATE,
    ROWS,
    Gradients,
    check,
    lines_of,
    one_step,
    student,
    teacher,
    trainer_of,
    truth,
)
from torch import nn

import tutelage as tl
from tiny_texts import llama
from tutelage.errors import TeacherError
from tutelage.models import add_lora
from tutelage.tasks import CausalLM

# What peft asks of transformers is on its way out there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
CHECKPOINTED = {"activation_checkpointing": True}


def adapted():
    model = add_lora(student(), rank=4)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # they begin as zero, and would have no effect
            nn.init.normal_(parameter, std=0.5, generator=generator)
    return model


def frozen():
    model = student(tie_word_embeddings=False)
    model.lm_head.weight.requires_grad_(False)
    return model


STUDENTS = {"full": student, "adapted": adapted, "frozen head": frozen}


@pytest.fixture(scope="module")
def expected():
    return {kind: truth(make()) for kind, make in STUDENTS.items()}


@pytest.mark.parametrize("given", [{}, CHECKPOINTED], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("kind", STUDENTS)
def test_every_kind_of_student_trains_the_truth(tmp_path, expected, kind, given):
    network = STUDENTS[kind]()
    calls = counted(network)
    check(one_step(tmp_path, network, size=2, accumulation=4, **given), expected[kind])
    # Four micro-batches through two layers; a backward that recomputes runs each layer again.
    assert len(calls) == (16 if given else 8)
    trained = expected[kind][1]
    assert all("lora_" in name for name in trained) == (kind == "adapted")
    assert ("lm_head.weight" in trained) == (not network.config.tie_word_embeddings and kind != "frozen head")


def counted(network):
    """Return a list that grows with each call of a layer in training."""
    calls = []
    for name, module in network.named_modules():
        if name.endswith("self_attn"):
            module.register_forward_hook(lambda layer, *_: calls.extend([1] * layer.training))
    return calls


def test_adapters_that_do_nothing_leave_the_gradient_of_the_full_model(tmp_path, expected):
    """B = 0 and A any: the product of the pair's gradients is that of the full matrix, seen through A."""
    model = add_lora(student(), rank=4, alpha=4.0, targets=["q_proj"])
    _, gradient = one_step(tmp_path, model)
    full = expected["full"][1]["model.layers.0.self_attn.q_proj.weight"]
    a = next(p for name, p in model.named_parameters() if "layers.0" in name and "lora_A" in name)
    found = next(g for name, g in gradient.items() if "layers.0" in name and "lora_B" in name)
    # After a step of B alone A is what it was: its gradient was 0.
    wanted = full @ a.detach().double().T
    assert (found.double() - wanted).abs().max() <= 1e-5 * wanted.abs().max()


# --- several teachers -------------------------------------------------------------------------------------------------


def test_several_teachers_with_weights_of_their_own(tmp_path):
    terms = (("one", "first", 2.0, 0.5), ("two", "second", 1.0, 0.25))
    objective = tl.Objective(
        {
            **{name: tl.Term(tl.ForwardKL(), of, weight, temperature) for name, of, temperature, weight in terms},
            "hard": tl.Term(tl.ForwardKL(), teacher="labels", weight=0.3),
        }
    )
    teachers = {"first": teacher(2), "second": teacher(5)}
    wanted = truth(student(), teachers, terms=terms)
    check(one_step(tmp_path, student(), teachers, size=2, accumulation=4, objective=objective), wanted)


# --- dtypes and devices -----------------------------------------------------------------------------------------------


class Rounded(nn.Module):
    """What a teacher in half precision says, with its last product and all after it in float64."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def double(self):
        return self

    def forward(self, input_ids):
        hidden = self.network.model(input_ids, use_cache=False)[0]
        return type("Output", (), {"logits": hidden.double() @ self.network.lm_head.weight.double().T})


def test_a_teacher_in_another_dtype(tmp_path):
    half = teacher().to(torch.bfloat16)
    wanted = truth(student(), {"teacher": Rounded(half)}, rows=ROWS)
    plain = truth(student())
    assert abs(wanted[0]["soft"] - plain[0]["soft"]) > 1e-4 * plain[0]["soft"]
    # Row by row here, padded in batches there: in bfloat16 the hidden states differ by their rounding.
    check(one_step(tmp_path, student(), copy.deepcopy(half), size=1, accumulation=8), wanted, tolerance=1e-2)


def test_mixed_precision(tmp_path, expected):
    line, gradient = one_step(tmp_path, size=2, accumulation=4, bf16=True)
    parts = expected["full"][0]
    assert line["loss"] != pytest.approx(parts["loss"], rel=1e-6)
    for name in ("loss", "soft", "hard"):
        assert line[name] == pytest.approx(parts[name], rel=0.05)
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in gradient.values())


def test_a_student_in_half_precision(tmp_path, expected):
    line, gradient = one_step(tmp_path, student().to(torch.bfloat16), size=2, accumulation=4)
    assert line["loss"] == pytest.approx(expected["full"][0]["loss"], rel=0.05)
    assert all(value.dtype == torch.bfloat16 and value.isfinite().all() for value in gradient.values())


def test_an_offloaded_teacher_stays_where_it_is(tmp_path, expected):
    away = accelerate.cpu_offload(teacher(), execution_device=torch.device("cpu"))
    places = {parameter.device.type for parameter in away.parameters()}
    assert places == {"meta"}
    check(one_step(tmp_path, student(), away, size=2, accumulation=4), expected["full"])
    assert {parameter.device.type for parameter in away.parameters()} == places


def test_a_teacher_without_weights_is_told(refused):
    with torch.device("meta"):
        empty = llama(2)
    model = tl.DistillationModel(
        student(), {"teacher": empty}, tl.Objective({"soft": tl.Term(tl.ForwardKL())}), CausalLM()
    )
    with refused(TeacherError, "'model.embed_tokens.weight' lies on the device 'meta'", "loaded"):
        model(**COLLATE(list(ROWS)))


def test_the_teacher_is_as_it_was_and_has_no_gradient(tmp_path):
    wise = teacher()
    before = copy.deepcopy(wise.state_dict())
    trainer = trainer_of(tmp_path, student(), wise, max_steps=3)
    kept = Gradients(trainer)
    trainer.add_callback(kept)
    trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in wise.state_dict().items())
    assert all(parameter.grad is None for parameter in wise.parameters())
    assert lines_of(trainer)[-1]["loss"] < lines_of(trainer)[0]["loss"]
