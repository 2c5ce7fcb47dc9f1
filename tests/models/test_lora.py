"""Students with low-rank adapters: the head is still one matrix, and what is trained is what was asked for."""

from __future__ import annotations

import sys

import peft
import pytest
import torch
import transformers
from torch import nn

import tutelage as tl
from tutelage.errors import MissingPackageError, ModelError, ParameterError
from tutelage.models import HeadModel, add_lora, check_head, find_head

# What peft asks of transformers is on its way out there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
IDS = torch.randint(3, 50, (2, 6), generator=torch.Generator().manual_seed(1))


def llama(**changes):
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 24}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads, **changes))


def stir(model):
    """Adapters begin as zero: give them an effect."""
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.5)
    return model


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
def test_the_head_path_of_an_adapted_model(targets, tied):
    plain = llama(tie_word_embeddings=tied)
    before = plain(input_ids=IDS).logits.detach()
    model = stir(add_lora(plain, rank=4, targets=targets))
    own = model(input_ids=IDS).logits
    assert not torch.allclose(own, before, atol=1e-2)
    states = HeadModel(model)(input_ids=IDS)
    torch.testing.assert_close(states.hidden @ states.weight.T, own)
    assert check_head(model, {"input_ids": IDS}) is None

    nn.functional.cross_entropy(own.flatten(0, 1), IDS.flatten()).backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    tl.divergence(HeadModel(model)(input_ids=IDS), tl.Labels(IDS)).backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert set(found) == set(wanted) == {name for name, _ in model.named_parameters() if "lora_" in name}
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_the_adapter_alone_is_saved(tmp_path):
    model = stir(add_lora(llama()))
    HeadModel(model).save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert not (tmp_path / "model.safetensors").exists()
    again = peft.PeftModel.from_pretrained(llama(), tmp_path)
    assert torch.equal(again(input_ids=IDS).logits, model.eval()(input_ids=IDS).logits)


def test_a_classifier_trains_its_new_head_too():
    model = add_lora(transformers.LlamaForSequenceClassification(llama(num_labels=3, pad_token_id=0).config))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any("score.modules_to_save" in name for name in trained)
    assert all("lora_" in name or "score" in name for name in trained)


def test_adapters_on_the_head_are_refused(refused):
    for targets in (["q_proj", "lm_head"], ["lm_head"]):
        with refused(ModelError, "'lm_head'.*that is the head", "leave it out"):
            add_lora(llama(), targets=targets)
    # As peft itself makes it, without add_lora.
    adapted = peft.get_peft_model(llama(), peft.LoraConfig(target_modules=["lm_head"], task_type="CAUSAL_LM"))
    assert "carries an adapter" in find_head(adapted)
    kept = peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    assert "carries an adapter" in find_head(peft.get_peft_model(llama(), kept))
    prompt = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    assert "before the text" in find_head(peft.get_peft_model(llama(), prompt))


def test_arguments(refused, monkeypatch):
    for arguments, came in [
        ({"rank": 0}, "rank=0"),
        ({"rank": True}, "rank=True"),
        ({"alpha": 0.0}, r"alpha=0\.0"),
        ({"dropout": 1.0}, r"dropout=1\.0"),
        ({"targets": "q_proj"}, "targets='q_proj'"),
    ]:
        with refused(ParameterError, came, "expected"):
            add_lora(llama(), **arguments)
    with refused(ModelError, "'query'.*no layer has such a path", "'q_proj'"):
        add_lora(llama(), targets=["q_proj", "query"])
    with refused(ModelError, "has an adapter already", "merge_and_unload"):
        add_lora(add_lora(llama()))
    monkeypatch.setitem(sys.modules, "peft", None)
    with refused(MissingPackageError, "LoRA takes peft", r"pip install 'tutelage\[peft\]'"):
        add_lora(llama())
