"""A student trains by what it is, whatever it is wrapped in and called; what no task is for is refused by name."""

import pytest
import torch
import transformers
from language_helpers import OBJECTIVE, one_step, student
from torch import nn
from training_helpers import arguments
from transformers import BertConfig, LlamaConfig

import tutelage as tl
from tiny_texts import llama
from tutelage.errors import ModuleError
from tutelage.features import bare_name
from tutelage.networks import kind_of
from tutelage.tasks import CausalLM, Classification, MaskedLM, SequenceClassification, TokenClassification, task_of
from tutelage.training import DistillationTrainer

SIZES = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
BERT = {**SIZES, "vocab_size": 50}


class Wrapped(nn.Module):
    """A user's module around a network, with a name and a forward of its own."""

    def __init__(self, network, answer=lambda output: output.logits):
        super().__init__()
        self.network, self.answer = network, answer

    def forward(self, **inputs):
        return self.answer(self.network(**inputs))


class Speaker(transformers.LlamaForCausalLM):
    """A causal language model whose name does not say so."""


class Writer(transformers.LlamaPreTrainedModel):
    """One that is none of transformers' own, with a head over the vocabulary."""

    _tied_weights_keys = transformers.LlamaForCausalLM._tied_weights_keys

    def __init__(self, config):
        super().__init__(config)
        self.model = transformers.LlamaModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, position_ids=None):
        states = self.model(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids)
        return {"logits": self.lm_head(states.last_hidden_state)}


def as_class(cls):
    model = cls(student().config)
    model.load_state_dict(student().state_dict())
    return model


CAUSAL = {
    "compiled": lambda: torch.compile(student(), backend="eager"),
    "in a wrapper": lambda: Wrapped(student()),
    "in two wrappers": lambda: nn.ModuleDict({"of": Wrapped(student())})["of"],
    "in DataParallel": lambda: nn.DataParallel(student()),
    "named otherwise": lambda: as_class(Speaker),
    "with a head of its own": lambda: as_class(Writer),
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return one_step(tmp_path_factory.mktemp("bare"), task=CausalLM())


def without_wrappers(name):
    return bare_name(name).removeprefix("network.").removeprefix("module.").replace("network.", "")


@pytest.mark.parametrize("kind", CAUSAL)
def test_a_causal_language_model_is_one_in_any_wrapper(tmp_path, bare, kind):
    line, gradient = one_step(tmp_path, CAUSAL[kind]())
    for name in ("loss", "soft", "hard"):
        assert line[name] == pytest.approx(bare[0][name], rel=1e-6), name
    found = {}
    for name, value in gradient.items():
        name = without_wrappers(name)
        found[name if name in bare[1] else f"model.{name}"] = value
    assert found.keys() == bare[1].keys()
    for name, value in bare[1].items():
        error = float((found[name] - value).abs().max() / value.abs().max())
        assert error <= 1e-6, (name, error)


def made(architecture, **changes):
    cls = getattr(transformers, architecture)
    torch.manual_seed(0)
    return cls(cls.config_class(**{**BERT, **changes}))


T5 = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
NO_TASK = {
    "T5ForConditionalGeneration": (T5, "sequence-to-sequence language modelling"),
    "BartForConditionalGeneration": (
        {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
        | {"decoder_attention_heads": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8},
        "sequence-to-sequence language modelling",
    ),
    "Wav2Vec2ForCTC": (
        {"conv_dim": (8,), "conv_kernel": (2,), "conv_stride": (2,), "num_conv_pos_embeddings": 2}
        | {"num_conv_pos_embedding_groups": 1, "num_feat_extract_layers": 1},
        "CTC",
    ),
    "SegformerForSemanticSegmentation": (
        {"num_encoder_blocks": 1, "depths": [1], "hidden_sizes": [8], "decoder_hidden_size": 8}
        | {"num_attention_heads": [1], "sr_ratios": [1], "patch_sizes": [3], "strides": [2], "mlp_ratios": [1]},
        "semantic segmentation",
    ),
    "BertForQuestionAnswering": ({}, "question answering"),
    "BertForMultipleChoice": ({}, "multiple choice"),
    "BertForPreTraining": ({}, "pretraining"),
}


@pytest.mark.parametrize("architecture", NO_TASK)
def test_what_has_no_task_is_refused_by_name(tmp_path, refused, architecture):
    changes, what = NO_TASK[architecture]
    network = made(architecture, **changes)
    for task in (None, CausalLM(), Classification(), TokenClassification(), MaskedLM()):
        for given in (network, torch.compile(network, backend="eager")):
            with refused(ModuleError, f"{architecture}, a model for {what}", r"CausalLM\(\), MaskedLM\(\): .*wrap it"):
                DistillationTrainer(given, llama(2), OBJECTIVE, arguments(tmp_path), task=task)


@pytest.mark.parametrize(
    ("make", "task"),
    [
        (lambda: made("BertForMaskedLM"), MaskedLM),
        (lambda: made("BertLMHeadModel", is_decoder=True), CausalLM),
        (lambda: made("XLMWithLMHeadModel", emb_dim=8, n_layers=1, n_heads=2, causal=True), CausalLM),
        (lambda: made("XLMWithLMHeadModel", emb_dim=8, n_layers=1, n_heads=2), MaskedLM),
        (lambda: made("BertForSequenceClassification"), SequenceClassification),
        (lambda: made("BertForNextSentencePrediction"), SequenceClassification),
        (lambda: made("ViTForImageClassification", image_size=8, patch_size=4), Classification),
        (lambda: made("LlamaForTokenClassification"), TokenClassification),
        (lambda: Wrapped(made("BertForTokenClassification")), TokenClassification),
        (lambda: torch.compile(Wrapped(llama()), backend="eager"), CausalLM),
        (lambda: Wrapped(torch.compile(llama(), backend="eager")), CausalLM),
        (lambda: Wrapped(made("T5ForConditionalGeneration", **T5)), type(None)),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), type(None)),
    ],
)
def test_the_task_is_told_by_what_the_network_is(make, task):
    assert type(task_of(make())) is task


def test_a_decoder_that_sees_both_sides_is_no_causal_language_model(refused):
    network = made("BertLMHeadModel")
    with refused(ModuleError, "is_decoder=False", r"task=MaskedLM\(\)"):
        task_of(network)
    with refused(ModuleError, "is_decoder=False", "a causal language model"):
        CausalLM().check(network)
    MaskedLM().check(network)


def test_a_task_that_is_given_wins_where_a_wrapper_may_make_rows_of_tokens(tmp_path, refused):
    """It reads the answer at the last token."""
    last = Wrapped(llama(), lambda output: output.logits[:, -1])
    trainer = DistillationTrainer(last, llama(2), OBJECTIVE, arguments(tmp_path), task=Classification())
    assert isinstance(trainer.distillation.task, Classification)
    for task in (MaskedLM(), TokenClassification()):
        with refused(ModuleError, "LlamaForCausalLM", "causal language modelling"):
            task.check(last)


@pytest.mark.parametrize(
    "make", [lambda: made("BertForMaskedLM"), lambda: torch.compile(made("BertForMaskedLM"), backend="eager")]
)
def test_a_teacher_of_another_kind_is_refused(refused, make):
    with refused(ModuleError, "the teacher 'big' is BertForMaskedLM, .* masked language modelling", "'causal_lm'"):
        tl.DistillationModel(llama(), {"big": make()}, OBJECTIVE, CausalLM())


def test_every_class_of_transformers_that_has_a_table_has_a_kind():
    """Whatever a later version adds to these tables is told by them, without a line here."""
    from transformers.models.auto import modeling_auto

    from tutelage.networks._kinds import _tables

    tables = _tables()
    assert "CAUSAL_LM" in tables["LlamaForCausalLM"]
    for name in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        assert "CAUSAL_LM" in tables[name]
    assert "BertModel" not in tables
    assert kind_of(transformers.BertModel(BertConfig(**BERT))) is None
    assert kind_of(transformers.LlamaModel(LlamaConfig(**BERT))) is None
