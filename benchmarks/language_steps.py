"""The steps of a language model: forward and backward by tutelage, plain transformers, Liger-Kernel and TRL.

All of them get the tokens alone and train the mean over the predictions of all rows but their last token's.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaForCausalLM

import tutelage as tl
from benchmarks.steps import Step, backward
from benchmarks.truth import HARD, SOFT, TEMPERATURE
from tutelage.models import language_model
from tutelage.tasks import CausalLM


def soft_alone(backend: str) -> tl.Objective:
    """Return the objective of TRL's trainers: forward KL at T = 1."""
    return tl.Objective({"soft": tl.Term(tl.ForwardKL())}, backend=backend)


def tutelage(student: LlamaForCausalLM, teacher: LlamaForCausalLM, ids: Tensor, objective: tl.Objective) -> Step:
    """Return the step of a `DistillationModel` on hidden states and heads."""

    @cache
    def model() -> tl.DistillationModel:
        sides = language_model(student), {"teacher": language_model(teacher)}
        return tl.DistillationModel(*sides, objective, task=CausalLM()).train()

    return lambda: backward(model()(input_ids=ids, labels=ids)["loss"])


def eager(student: LlamaForCausalLM, teacher: LlamaForCausalLM, ids: Tensor) -> Step:
    """Return the step as one writes it by hand: both models' logits, `kl_div` and `cross_entropy`.

    Labels are shifted and not logits, as in transformers' own loss: a slice of logits would have to be copied.
    """
    targets = F.pad(ids[:, 1:], (0, 1), value=-100).flatten()

    def step() -> Tensor:
        logits, other = _both_logits(student, teacher, ids)
        hard = F.cross_entropy(logits.flatten(0, 1), targets)
        return backward(SOFT * TEMPERATURE**2 * _eager_kl(logits, other, TEMPERATURE) + HARD * hard)

    return step


def eager_soft(student: LlamaForCausalLM, teacher: LlamaForCausalLM, ids: Tensor) -> Step:
    """Return the step of the soft term alone at T = 1."""
    return lambda: backward(_eager_kl(*_both_logits(student, teacher, ids), 1.0))


def _both_logits(student: LlamaForCausalLM, teacher: LlamaForCausalLM, ids: Tensor) -> tuple[Tensor, Tensor]:
    logits = student(input_ids=ids).logits
    with torch.no_grad():
        return logits, teacher(input_ids=ids).logits


def _eager_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    log_q, log_p = (F.log_softmax(side / temperature if temperature != 1 else side, -1) for side in (student, teacher))
    each = F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)
    return each[:, :-1].mean()


def liger(student: LlamaForCausalLM, teacher: LlamaForCausalLM, ids: Tensor, labels: Tensor) -> Step:
    """Return the step of Liger-Kernel's chunked loss, compiled as it is by default, on both decoders' hidden states."""

    @cache
    def loss() -> torch.nn.Module:
        # Here, so that the cases without Liger run where it is not installed.
        from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss  # type: ignore[import-not-found]

        made: torch.nn.Module = LigerFusedLinearJSDLoss(
            weight_hard_loss=HARD, weight_soft_loss=SOFT * TEMPERATURE**2, beta=0.0, temperature=TEMPERATURE
        )
        return made

    def step() -> Tensor:
        hidden, other = _both_hidden(student, teacher, ids)
        mine, theirs = (states[:, :-1].flatten(0, 1) for states in (hidden, other))
        return backward(loss()(mine, student.lm_head.weight, theirs, teacher.lm_head.weight, labels))

    return step


def networks(student: LlamaForCausalLM, teacher: LlamaForCausalLM, ids: Tensor) -> Step:
    """Return what every variant does at least: both decoders forward and the student's backward, no heads, no loss."""

    def step() -> Tensor:
        hidden, _ = _both_hidden(student, teacher, ids)
        hidden.backward(torch.full_like(hidden, 1e-3))
        return torch.zeros(())

    return step


def networks_and_products(student: LlamaForCausalLM, teacher: LlamaForCausalLM, ids: Tensor) -> Step:
    """Return what a step with a loss for nothing would do: both decoders, and the four products with the heads.

    The logits go into memory that is there already; they stand in for their own gradient.
    """
    head, other_head = student.lm_head.weight, teacher.lm_head.weight.detach()

    @cache
    def kept() -> tuple[Tensor, Tensor]:
        count = ids[:, 1:].numel()
        return torch.empty(count, len(head)), torch.empty(count, len(head))

    def step() -> Tensor:
        states = _both_hidden(student, teacher, ids)
        mine, theirs = (part[:, :-1].flatten(0, 1) for part in states)
        logits, other = kept()
        with torch.no_grad():
            torch.mm(mine, head.T, out=logits)
            torch.mm(theirs, other_head.T, out=other)
            gradient = logits @ head
            head.grad = logits.T @ mine
        mine.backward(gradient)
        return torch.zeros(())

    return step


def _both_hidden(student: LlamaForCausalLM, teacher: LlamaForCausalLM, ids: Tensor) -> tuple[Tensor, Tensor]:
    hidden = student.model(input_ids=ids)[0]
    with torch.no_grad():
        return hidden, teacher.model(input_ids=ids)[0]


def trl_gkd(student: LlamaForCausalLM, teacher: LlamaForCausalLM, ids: Tensor) -> Step:
    """Return the `compute_loss` of TRL's GKDTrainer on given completions: both models' logits as a whole."""
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}

    @cache
    def trainer() -> Any:
        os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
        from datasets import Dataset  # type: ignore[import-not-found]
        from trl.experimental.gkd import GKDConfig, GKDTrainer  # type: ignore[import-not-found]

        rows = Dataset.from_dict({"messages": [[{"role": "user", "content": "a"}]]})
        with tempfile.TemporaryDirectory() as folder:
            args = GKDConfig(output_dir=folder, lmbda=0.0, **_TRL)
            given = {"data_collator": list, "train_dataset": rows, "processing_class": _tokenizer()}
            return GKDTrainer(model=student, teacher_model=teacher, args=args, **given)

    return lambda: backward(trainer().compute_loss(student, dict(batch)))


def trl_distillation(student: LlamaForCausalLM, teacher: LlamaForCausalLM, ids: Tensor) -> Step:
    """Return the `compute_loss` of TRL's DistillationTrainer on given completions.

    It expects a prompt of its own sampling; here the first token is the prompt, and all others are the completion.
    """
    ones = torch.ones_like(ids)
    batch = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ones[:, :1],
        "completion_ids": ids[:, 1:],
        "completion_mask": ones[:, 1:],
        "num_items_in_batch": torch.tensor(float(ids[:, 1:].numel())),
    }

    @cache
    def trainer() -> Any:
        from datasets import Dataset
        from trl import DistillationConfig, DistillationTrainer  # type: ignore[import-not-found]

        rows = Dataset.from_dict({"prompt": ["a"] * 8})
        with tempfile.TemporaryDirectory() as folder:
            args = DistillationConfig(output_dir=folder, **_TRL)
            given = {"train_dataset": rows, "processing_class": _tokenizer()}
            return DistillationTrainer(model=student, teacher_model=teacher, args=args, **given)

    return lambda: backward(trainer().compute_loss(student, dict(batch)))


_TRL: dict[str, Any] = {
    "beta": 0.0,  # KL(teacher || student)
    "temperature": 1.0,
    "bf16": False,
    "gradient_checkpointing": False,  # its default recomputes the student's activations
    "per_device_train_batch_size": 8,
    "report_to": "none",
    "save_strategy": "no",
    "use_cpu": True,
}


def _tokenizer() -> Any:
    """Return the tokenizer that TRL's trainers insist on; no text is tokenized in a step."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unknown>": 0, "<end>": 1}, unk_token="<unknown>"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unknown>", pad_token="<end>", eos_token="<end>"
    )
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return tokenizer
