"""A tokenizer and networks small enough to be made anew in a test."""

from __future__ import annotations

import functools
import json
import json.decoder
import pathlib

import torch
import transformers

import tutelage as tl
from tutelage.data import train_tokenizer

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SOFT_AND_HARD = {"soft": tl.Term(tl.ForwardKL()), "hard": tl.Term(tl.ForwardKL(), teacher="labels")}


@functools.cache
def _trained():
    texts = [pathlib.Path(module.__file__).read_text() for module in (json, json.decoder, functools)]
    return train_tokenizer(texts, size=400)


def tokenizer(**changes):
    """A byte-level tokenizer of 400 ids, trained on Python source; a copy, so that a test may change it."""
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_trained().backend_tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|pad|>",
        clean_up_tokenization_spaces=False,
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def llama(seed=0, attention="eager", **changes):
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        **SIZES, vocab_size=400, num_key_value_heads=1, attn_implementation=attention, **changes
    )
    # Weights of the size that trained ones have, so that what a token sees shows in what it says.
    return _spread(transformers.LlamaForCausalLM(config))


def gpt2(seed=0, attention="eager", **changes):
    torch.manual_seed(seed)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    changes = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, **changes}
    config = transformers.GPT2Config(**sizes, vocab_size=400, attn_implementation=attention, **changes)
    return _spread(transformers.GPT2LMHeadModel(config))


def mistral(seed=0, attention="eager", **changes):
    torch.manual_seed(seed)
    config = transformers.MistralConfig(
        **SIZES, vocab_size=400, num_key_value_heads=1, attn_implementation=attention, **changes
    )
    return _spread(transformers.MistralForCausalLM(config))


def _spread(model):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(10)
    return model.eval()


def outcome(task, student, teacher, batch):
    """What an objective of a soft and a hard term gives, called as a model of student and teacher calls it."""
    inputs = task.inputs(batch)
    labels, known = task.targets(batch)
    weights = {"hard": known}
    if (counts := task.weights(batch)) is not None:
        weights["soft"] = counts
    with torch.no_grad():
        asked = task.teacher(teacher(**inputs))
    sides = {"teacher": asked, "labels": labels}
    return tl.Objective(SOFT_AND_HARD)(task.student(student(**inputs)), sides, token_weights=weights)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters()]
