"""Heads of language models: hidden states and a matrix give the model's own logits and gradients, or a reason."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
import transformers
from torch import nn

import tutelage as tl
from tutelage.errors import ModelError, ModuleError
from tutelage.models import (
    FAMILIES,
    HeadModel,
    check_head,
    find_head,
    head_name,
    language_model,
    vocabulary_width,
)
from tutelage.tasks import CausalLM

V, L = 97, 6
COMMON = {
    "vocab_size": V,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_local_experts": 4,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_inner": 48,
    "n_positions": 64,
    "rotary_dim": 8,
    "d_model": 32,
    "dim": 32,
    "hidden_dim": 48,
    "n_layers": 2,
    "n_heads": 4,
    "num_layers": 2,
    "ffn_dim": 48,
    "word_embed_proj_dim": 32,
    "embedding_size": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# What a family needs beside, and numbers that show whether scales and caps are read: far from 1, and within reach.
SPECIAL = {
    "bloom": {"hidden_size": 32},
    "cohere": {"logit_scale": 0.3},
    "cohere2": {"logit_scale": 0.3},
    "falcon": {"num_kv_heads": 2},
    "gemma2": {"final_logit_softcapping": 2.0},
    "gemma3_text": {"final_logit_softcapping": 2.0},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_heads": 4, "hidden_size": 32},
    "granite": {"logits_scaling": 3.0},
    "granitemoe": {"logits_scaling": 3.0},
    "nanochat": {"final_logit_softcapping": 2.0},
    "modernbert": {"decoder_bias": True, "cls_token_id": 1, "sep_token_id": 2},
    "modernbert-decoder": {"cls_token_id": 1, "sep_token_id": 2},
}
MASKED = {"bert", "camembert", "distilbert", "electra", "modernbert", "roberta", "xlm-roberta"}


def build(kind: str, **changes: object) -> transformers.PreTrainedModel:
    """A tiny model of a family, all its numbers random: new biases would be 0 and norms 1, and hide mistakes."""
    wanted = transformers.AutoConfig.for_model(kind).to_dict().keys() | {"head_dim"}
    numbers = {key: value for key, value in COMMON.items() if key in wanted}
    if kind in {"falcon", "gpt2", "gpt_bigcode", "codegen", "gptj", "bloom", "persimmon", *MASKED}:
        numbers.pop("head_dim", None)
    config = transformers.AutoConfig.for_model(kind, **(numbers | SPECIAL.get(kind, {}) | changes))
    auto = transformers.AutoModelForMaskedLM if kind in MASKED else transformers.AutoModelForCausalLM
    model = auto.from_config(config, attn_implementation="eager")
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3, generator=generator)
    return model.eval()


def batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(3, V, (2, L), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, L - 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def gradients(model, logits) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    weights = torch.rand(2, L, V, generator=torch.Generator().manual_seed(5))
    (logits.log_softmax(-1) * weights).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def logits_of(states: tl.HeadStates) -> torch.Tensor:
    """The formula in the docstring of HeadStates, written out."""
    logits = states.hidden @ states.weight.T
    logits = logits if states.bias is None else logits + states.bias
    logits = logits if states.scale is None else states.scale * logits
    return logits if states.softcap is None else states.softcap * torch.tanh(logits / states.softcap)


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_the_head_path_gives_the_models_logits_and_gradients(kind):
    model = build(kind)
    states = HeadModel(model)(**batch())
    assert states.hidden.shape == (2, L, 32)
    assert states.vocabulary_size == vocabulary_width(model) == V
    own = model(**batch()).logits
    ours = logits_of(states)
    scale = float(own.detach().abs().max())
    torch.testing.assert_close(ours, own, atol=2e-6 * scale, rtol=1e-5)
    wanted, found = gradients(model, own), gradients(model, logits_of(HeadModel(model)(**batch())))
    assert wanted.keys() == found.keys()
    assert len(wanted) > 5
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=2e-5 * float(gradient.abs().max()), rtol=1e-4, msg=name)
    assert check_head(model, batch()) is None


@pytest.mark.parametrize("kind", ["cohere", "gemma2", "granite", "phi", "bert"])
def test_a_family_read_wrongly_is_found_out(kind, monkeypatch, caplog):
    """As if it were Llama: no scale, no cap, no transform; for Phi and BERT, no bias."""
    model = build(kind)
    parts = find_head(model)
    spoilt = type(parts)(parts.decoder, parts.weight, None, None, None, ())
    monkeypatch.setattr("tutelage.models._head_model.find_head", lambda _: spoilt)
    assert "differs from the model's own logits" in check_head(model, batch())
    with caplog.at_level(logging.WARNING, "tutelage"):
        assert language_model(model) is model
    assert "made as a whole, because the head path differs" in caplog.text


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["cohere", "gemma2", "granite", "llama", "modernbert"])
def test_rounding_is_no_reason_in_half_precision(kind, dtype):
    model = build(kind).to(dtype)
    assert check_head(model, batch()) is None
    if kind != "llama":
        parts = find_head(model)
        assert parts.scale or parts.softcap or parts.transform


@pytest.mark.parametrize(("dtype", "slip"), [(torch.float32, 1e-5), (torch.float16, 0.05), (torch.bfloat16, 0.2)])
def test_what_rounding_does_not_explain_is_a_reason(dtype, slip, monkeypatch):
    model = build("cohere").to(dtype)
    parts = find_head(model)
    off = type(parts)(parts.decoder, parts.weight, parts.bias, parts.softcap, parts.scale * (1 + slip), parts.transform)
    monkeypatch.setattr("tutelage.models._head_model.find_head", lambda _: off)
    assert "that rounding in" in check_head(model, batch())


def test_logits_that_are_no_numbers_are_a_reason():
    model = build("llama")
    model.lm_head.weight.data[5, 5] = torch.nan
    assert "by nan of the largest" in check_head(model, batch())
    model.lm_head.weight.data.zero_()
    assert check_head(model, batch()) is None


def test_both_sides_of_a_distillation():
    """Through DistillationModel, student and teacher of two families and widths, against logits made as a whole."""
    student, teacher = build("llama"), build("gpt2")
    objective = tl.Objective({"soft": tl.Term(tl.ForwardKL(), temperature=2.0)})
    model = tl.DistillationModel(language_model(student), {"teacher": language_model(teacher)}, objective, CausalLM())
    loss = model(**batch())["loss"]
    loss.backward()
    found = student.model.embed_tokens.weight.grad.clone()
    student.zero_grad()
    # Each token but the first is predicted by the one before it.
    q, p = ((side(**batch()).logits[:, :-1] / 2).log_softmax(-1) for side in (student, teacher))
    expected = 4 * (p.exp() * (p - q)).sum(-1)[batch()["attention_mask"][:, 1:].bool()].mean()
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-5)
    torch.autograd.backward(expected, inputs=list(student.parameters()))
    torch.testing.assert_close(found, student.model.embed_tokens.weight.grad, atol=1e-6, rtol=1e-4)


def test_the_whole_logits_are_never_made(monkeypatch):
    model = build("llama")
    monkeypatch.setattr(model.lm_head, "forward", lambda hidden: pytest.fail("the head was called"))
    wide = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            wide.extend(
                x.shape for x in ([out] if isinstance(out, torch.Tensor) else []) if tuple(x.shape[-1:]) == (V,)
            )
            return out

    with Watch():
        HeadModel(model)(**batch())
    assert wide == []


def test_a_configuration_that_asks_for_a_cache_gets_none(monkeypatch):
    model = build("llama")
    assert model.config.use_cache
    monkeypatch.setattr("transformers.models.llama.modeling_llama.DynamicCache", lambda **_: pytest.fail("a cache"))
    HeadModel(model)(**batch())


def test_a_frozen_head_gets_no_gradient():
    model = build("llama", tie_word_embeddings=False)
    model.lm_head.requires_grad_(False)
    labels = tl.Labels(batch()["input_ids"])
    tl.divergence(HeadModel(model)(**batch()), labels).backward()
    assert model.lm_head.weight.grad is None
    assert float(model.model.embed_tokens.weight.grad.abs().sum()) > 0


def test_a_tied_matrix_gets_both_of_its_shares():
    model = build("gpt2")
    assert model.lm_head.weight is model.transformer.wte.weight
    labels = batch()["input_ids"]
    tl.divergence(HeadModel(model)(**batch()), tl.Labels(labels)).backward()
    found = model.lm_head.weight.grad.clone()
    model.zero_grad()
    nn.functional.cross_entropy(model(**batch()).logits.flatten(0, 1), labels.flatten()).backward()
    torch.testing.assert_close(found, model.lm_head.weight.grad, atol=1e-6, rtol=1e-4)
    assert all(name.startswith("model.") for name in HeadModel(model).state_dict())


def test_gradient_checkpointing_passes_through_and_changes_nothing():
    model = build("llama").train()
    wrapped = HeadModel(model)
    plain = gradients(model, logits_of(wrapped(**batch())))
    wrapped.activation_checkpointing_enable()
    assert model.is_activation_checkpointing
    calls = []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    again = gradients(model, logits_of(wrapped(**batch())))
    assert len(calls) == 2  # once forward, once more for the backward
    for name, gradient in plain.items():
        assert torch.equal(gradient, again[name]), name


def test_what_is_asked_of_the_model(tmp_path):
    model = build("llama")
    wrapped = HeadModel(model)
    assert wrapped.config is model.config
    wrapped.save_pretrained(tmp_path)
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    assert torch.equal(back(**batch()).logits, model(**batch()).logits)
    with pytest.raises(AttributeError, match="no attribute 'lm_head'"):
        _ = wrapped.lm_head


def test_names_that_nobody_would_read_are_refused(refused):
    wrapped = HeadModel(build("llama"))
    with refused(ModuleError, r"\['attention_masks'\]", "attention_mask.*rename"):
        wrapped(input_ids=batch()["input_ids"], attention_masks=batch()["attention_mask"])
    with refused(ModuleError, r"\['labels'\]", "leave them out"):
        wrapped(input_ids=batch()["input_ids"], labels=batch()["input_ids"])


def test_the_check_leaves_the_model_as_it_was():
    model = build("gpt2").train()
    model.transformer.h[0].eval()
    assert check_head(model, {**batch(), "labels": batch()["input_ids"]}) is None
    assert model.training
    assert model.transformer.h[1].mlp.training
    assert not model.transformer.h[0].mlp.training
    assert all(parameter.grad is None for parameter in model.parameters())


def other_family():
    config = transformers.AutoConfig.for_model("mpt", d_model=32, n_layers=1, n_heads=4, vocab_size=V)
    return transformers.AutoModelForCausalLM.from_config(config)


def wrapper_of_media():
    model = build("llama")
    model.config = copy.deepcopy(model.config)
    type(model.config).model_type, kept = "llava", type(model.config).model_type
    try:
        model.config.model_type = "llava"
    finally:
        type(model.config).model_type = kept
    model.config.vision_config = {}
    return model


def own_forward():
    class Mine(transformers.LlamaForCausalLM):
        def forward(self, **inputs):
            return super().forward(**inputs)

    return Mine(build("llama").config)


def strange_head():
    class Packed(nn.Linear):
        pass

    model = build("llama")
    model.lm_head = Packed(32, V)
    return model


def quantised_head():
    model = build("llama")
    model.lm_head.weight = nn.Parameter(torch.zeros(V, 32, dtype=torch.int8), requires_grad=False)
    return model


def offloaded_head():
    model = build("llama")
    model.lm_head.to("meta")
    return model


def classifier():
    return transformers.LlamaForSequenceClassification(build("llama").config)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (other_family, "'mpt'.*family that is not known"),
        (wrapper_of_media, "'llava'.*other media"),
        (own_forward, "Mine has a forward of its own"),
        (strange_head, "is a Packed and no torch.nn.Linear"),
        (quantised_head, "int8.*quantised"),
        (offloaded_head, "offloaded"),
        (classifier, "no head over a vocabulary"),
        (lambda: nn.Linear(3, V), "no head over a vocabulary"),
    ],
)
def test_reasons_to_make_the_logits_as_a_whole(make, reason, caplog):
    model = make()
    found = find_head(model)
    assert isinstance(found, str)
    with caplog.at_level(logging.WARNING, "tutelage"):
        assert language_model(model) is model
    assert found in caplog.text
    with pytest.raises(ModelError, match=f"{reason}.*expected a language model"):
        HeadModel(model)


def test_where_the_head_is_and_how_wide():
    assert head_name(build("bert")) == "cls.predictions.decoder"
    assert head_name(build("llama")) == "lm_head"
    assert head_name(nn.Linear(2, 2)) is None
    assert vocabulary_width(build("llama", vocab_size=120)) == 120
    assert vocabulary_width(classifier()) is None
