"""The step of a whole language model: two Llama-style networks, two full heads, soft and hard terms.

Legend: B rows of L tokens; L - 1 of each row predict a token that is there. N = B (L - 1), V tokens in the vocabulary.
"""

from __future__ import annotations

import copy
from functools import cache

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from benchmarks import language_steps as steps
from benchmarks import truth
from benchmarks.cases import COLUMNS, COMPILE, EAGER, LIGER_COMPILED, TORCH
from benchmarks.steps import soft_and_hard
from benchmarks.variants import Case, Leaves, RowLoss, Student, Variant, generator

LENGTH = 256
TOKENS = 8 * LENGTH
GROWING_TOKENS = (1_024, 2_048, 4_096, 8_192, 16_384)

NETWORKS = "the two networks alone"
AT_LEAST = "networks and four products alone"
GKD, DISTILLATION = "TRL, GKDTrainer", "TRL, DistillationTrainer"

_SPREAD = 3.0
"""The standard deviation of the logits, about that of a trained model; initial heads would say nothing."""


class LanguageStudent(Student):
    """A causal language model: the leaves are its parameters, the rows its N predictions."""

    largest = "lm_head.weight"

    def __init__(self, model: LlamaForCausalLM, ids: Tensor) -> None:
        self.model, self.ids = model, ids
        self.leaves = dict(model.named_parameters())
        self.at_once = ids.shape[1] - 1
        self.rows = len(ids) * self.at_once
        self._exact = cache(lambda: exact(model))

    def logits(self, leaves: Leaves, rows: slice) -> Tensor:
        """Return the logits (L - 1, V) of one row of tokens, in float64."""
        return predictions(self._exact(), self.ids, rows, leaves)


def language(tokens: int) -> Case:
    """Return the step of all variants that can train a soft and a hard term."""
    student, teacher, labels, expected = _networks(tokens, truth.TEMPERATURE, truth.SOFT, truth.HARD)
    objective = soft_and_hard
    return {
        NETWORKS: Variant(steps.networks(student.model, teacher, student.ids), student, None),
        AT_LEAST: Variant(steps.networks_and_products(student.model, teacher, student.ids), student, None),
        TORCH: Variant(steps.tutelage(student.model, teacher, student.ids, objective("torch")), student, expected),
        COMPILE: Variant(steps.tutelage(student.model, teacher, student.ids, objective("compile")), student, expected),
        EAGER: Variant(steps.eager(student.model, teacher, student.ids), student, expected),
        LIGER_COMPILED: Variant(steps.liger(student.model, teacher, student.ids, labels), student, expected),
    }


def trl(tokens: int) -> Case:
    """Return the step of the objective that both trainers of TRL have: forward KL at T = 1, without hard labels."""
    student, teacher, _, expected = _networks(tokens, 1.0, 1.0, 0.0)
    objective = steps.soft_alone
    case = {
        AT_LEAST: Variant(steps.networks_and_products(student.model, teacher, student.ids), student, None),
        TORCH: Variant(steps.tutelage(student.model, teacher, student.ids, objective("torch")), student, expected),
        COMPILE: Variant(steps.tutelage(student.model, teacher, student.ids, objective("compile")), student, expected),
        EAGER: Variant(steps.eager_soft(student.model, teacher, student.ids), student, expected),
    }
    for name, step in ((GKD, steps.trl_gkd), (DISTILLATION, steps.trl_distillation)):
        # Its trainers replace the forward of the models they get, so each has networks of its own.
        own = LanguageStudent(copy.deepcopy(student.model), student.ids)
        case[name] = Variant(step(own.model, copy.deepcopy(teacher), own.ids), own, expected)
    return case


def exact(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """Return the network in float64; its normalisation computes in float32 whatever it is given, and is PyTorch's."""
    doubled = copy.deepcopy(model).double()
    for name, module in list(doubled.named_modules()):
        if isinstance(module, LlamaRMSNorm):
            norm = nn.RMSNorm(len(module.weight), module.variance_epsilon, dtype=torch.float64)
            norm.weight = module.weight
            doubled.set_submodule(name, norm)
    return doubled


def predictions(model: LlamaForCausalLM, ids: Tensor, rows: slice, leaves: Leaves | None = None) -> Tensor:
    """Return the logits (L - 1, V) of the predictions in one row of tokens, which a slice of all N names."""
    each = ids.shape[1] - 1
    number, rest = divmod(rows.start, each)
    assert rest == 0, "a slice names the predictions of one row"
    assert rows.stop == rows.start + each, "a slice names the predictions of one row"
    row = {"input_ids": ids[number : number + 1]}
    output = model(**row) if leaves is None else functional_call(model, leaves, kwargs=row)
    logits: Tensor = output.logits[0, :-1]
    return logits


def _networks(
    tokens: int, temperature: float, soft: float, hard: float
) -> tuple[LanguageStudent, LlamaForCausalLM, Tensor, RowLoss]:
    """Return the student, the teacher, the labels (N,) and the truth of their step."""
    source = generator()
    ids = torch.randint(COLUMNS, (tokens // LENGTH, LENGTH), generator=source)
    student = _model(256, layers=4, heads=4, intermediate=688)
    teacher = _model(512, layers=6, heads=8, intermediate=1376).eval().requires_grad_(False)
    labels = ids[:, 1:].flatten()
    exact_teacher = cache(lambda: exact(teacher))

    @torch.no_grad()
    def of_teacher(rows: slice) -> Tensor:
        return predictions(exact_teacher(), ids, rows)

    expected = truth.distillation(of_teacher, labels, temperature, soft, hard)
    return LanguageStudent(student.train(), ids), teacher, labels, expected


def _model(width: int, *, layers: int, heads: int, intermediate: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=COLUMNS,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        max_position_embeddings=LENGTH,
        use_cache=False,  # nobody reads it in training, and it costs the plain step memory
    )
    with torch.random.fork_rng():
        torch.manual_seed(width)
        model = LlamaForCausalLM(config)
        with torch.no_grad():
            model.lm_head.weight.normal_(std=_SPREAD / width**0.5)
    return model
