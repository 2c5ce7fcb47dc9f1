"""A loss that a student's configuration asks for, and that an objective has no term for, is not left out in silence."""

import warnings

import pytest
import torch
import transformers
from training_helpers import OBJECTIVE, lines_of, trainer_of

import tutelage as tl
from tiny_texts import SIZES, llama
from tutelage.errors import ParameterError
from tutelage.tasks import CausalLM

EXPERTS = {**SIZES, "vocab_size": 400, "num_key_value_heads": 1, "head_dim": 8, "num_hidden_layers": 1}
KINDS = {
    "Mixtral": {"num_local_experts": 4},
    "Qwen3Moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "Olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "GptOss": {"num_local_experts": 4, "layer_types": ["full_attention"]},
}
IDS = torch.randint(5, 400, (4, 8), generator=torch.Generator().manual_seed(0))
ROWS = [{"input_ids": ids, "attention_mask": torch.ones(8, dtype=torch.int64), "labels": ids} for ids in IDS]


def experts(kind, coefficient="router_aux_loss_coef", head="ForCausalLM", weight=0.02, **changes):
    torch.manual_seed(0)
    cls = getattr(transformers, f"{kind}{head}")
    return cls(cls.config_class(**{**EXPERTS, **KINDS[kind], coefficient: weight, **changes}))


@pytest.mark.parametrize("kind", KINDS)
def test_the_balancing_loss_of_experts(tmp_path, kind, refused):
    student = experts(kind, output_router_logits=True)
    # It is what transformers would have added.
    out = student(input_ids=IDS, labels=IDS)
    plain = student(input_ids=IDS, labels=IDS, output_router_logits=False).loss
    assert (out.loss - plain).item() == pytest.approx(0.02 * out.aux_loss.item(), rel=1e-3)
    came = rf"the student is {kind}ForCausalLM with output_router_logits=True and router_aux_loss_coef=0.02"
    with refused(ParameterError, came, r"model.config.output_router_logits = False"):
        trainer_of(tmp_path, ROWS, student, llama(2))
    student.config.output_router_logits = False
    trainer_of(tmp_path, ROWS, student, llama(2), max_steps=1).train()


@pytest.mark.parametrize(
    "changes", [{"weight": 0.0, "output_router_logits": True}, {}], ids=["weight 0", "as it comes"]
)
def test_what_transformers_would_not_have_added(tmp_path, changes):
    trainer = trainer_of(tmp_path, ROWS, experts("Mixtral", **changes), llama(2), max_steps=1)
    trainer.train()
    alone = experts("Mixtral", **changes)(input_ids=IDS, labels=IDS).loss.item()
    assert lines_of(trainer)[0]["hard"] == pytest.approx(alone, rel=1e-5)


def test_a_teacher_may_have_one_and_a_model_that_is_evaluated(tmp_path, refused):
    asks = experts("Mixtral", output_router_logits=True)
    trainer_of(tmp_path, ROWS, llama(1), asks, max_steps=1).train()
    model = tl.DistillationModel(asks, {"teacher": llama(2)}, OBJECTIVE, CausalLM())
    batch = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": IDS}
    assert model.eval()(**batch)["loss"] > 0
    with refused(ParameterError, "output_router_logits=True", "trains without"):
        model.train()(**batch)


def test_in_adapters_and_for_classes(tmp_path, refused):
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
        adapted = peft.get_peft_model(experts("Mixtral", output_router_logits=True), lora)
    with refused(ParameterError, "the student is MixtralForCausalLM", "no term"):
        trainer_of(tmp_path, ROWS, adapted, llama(2))
    # transformers' classifiers of rows have no such loss.
    changes = {"head": "ForSequenceClassification", "output_router_logits": True, "pad_token_id": 0, "num_labels": 4}
    rows = [{**row, "labels": i % 4} for i, row in enumerate(ROWS)]
    trainer_of(tmp_path, rows, experts("Mixtral", **changes), experts("Mixtral", **changes), max_steps=1).train()


class Whole(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, **inputs):
        return self.inner(**inputs)


class LogitsOnly(Whole):
    def forward(self, input_ids, attention_mask):
        return self.inner(input_ids=input_ids, attention_mask=attention_mask).logits


@pytest.mark.parametrize("wrap", [Whole, LogitsOnly, lambda inner: torch.compile(Whole(inner), backend="eager")])
def test_in_a_module_of_the_users(tmp_path, wrap, refused):
    asks = experts("Mixtral", output_router_logits=True, weight=0.5)
    with refused(ParameterError, "the student is MixtralForCausalLM with .*router_aux_loss_coef=0.5", "no term"):
        trainer_of(tmp_path, ROWS, wrap(asks), llama(2), task=CausalLM())
    asks.config.output_router_logits = False
    trainer = trainer_of(tmp_path, ROWS, wrap(asks), Whole(llama(2)), task=CausalLM(), max_steps=1)
    trainer.train()
    wanted = experts("Mixtral")(input_ids=IDS, labels=IDS).loss.item()
    assert lines_of(trainer)[0]["hard"] == pytest.approx(wanted, rel=1e-5)


def test_the_logits_of_bamba(tmp_path, refused):
    sizes = {**EXPERTS, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "attn_layer_indices": [0]}
    student = transformers.BambaForCausalLM(transformers.BambaConfig(**sizes, z_loss_coefficient=0.01))
    with refused(ParameterError, "BambaForCausalLM with z_loss_coefficient=0.01", "z_loss_coefficient=0"):
        trainer_of(tmp_path, ROWS, student, llama(2))
