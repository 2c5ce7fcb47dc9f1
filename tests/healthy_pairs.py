"""Students and teachers with nothing wrong about them: whatever is refused or warned about, it is none of these.

`PAIRS` has them by name. Each makes what `DistillationTrainer` is given, anew at every call, from a fixed seed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import peft
import torch
import transformers
from torch import nn
from torch.utils.data import IterableDataset, TensorDataset
from transformers.modeling_outputs import SequenceClassifierOutput

import tiny_texts
import tutelage as tl
from tutelage.data import CausalCollator, TokenRows
from tutelage.data._token_rows import Document
from tutelage.tasks import CausalLM, Classification, MaskedLM, SequenceClassification, TokenClassification
from tutelage.teachers import LiveTeacher
from tutelage.training import DistillationTrainer

PAIRS: dict[str, Callable[[], dict[str, Any]]] = {}
END, PAD, VOCABULARY, CLASSES = 0, 1, 400, 4
# What every architecture of transformers below is made from, by the names that most of them use.
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
# The tokens that end and pad are those of the tokenizer.
TOKENS = {"bos_token_id": END, "eos_token_id": END, "pad_token_id": PAD}
LANGUAGE = {**SIZES, **TOKENS, "vocab_size": VOCABULARY, "max_position_embeddings": 40}
SOFT = {"soft": tl.Term(tl.ForwardKL(), temperature=2.0, weight=0.7)}
HARD = {"hard": tl.Term(tl.ForwardKL(), teacher="labels", weight=0.3)}


def healthy(make: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    PAIRS[make.__name__] = make
    return make


def arguments(folder: Any, **changes: Any) -> transformers.TrainingArguments:
    settings = {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 0.01, "logging_steps": 1}
    settings |= {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "save_strategy": "no"}
    return transformers.TrainingArguments(str(folder), **{**settings, **changes})


def trainer_of(name: str, folder: Any) -> DistillationTrainer:
    """Return the trainer of a pair; `args` of the pair are changes to the arguments."""
    given = PAIRS[name]()
    given.setdefault("objective", tl.Objective({**SOFT, **HARD}))
    trainer = DistillationTrainer(args=arguments(folder, **given.pop("args", {})), **given)
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def seeded(seed: int, make: Callable[..., nn.Module], *arguments: Any, **named: Any) -> nn.Module:
    torch.manual_seed(seed)
    return make(*arguments, **named)


def network_of(architecture: str, seed: int, **changes: Any) -> nn.Module:
    """Return a small network of transformers, such as "LlamaForCausalLM", from its configuration."""
    cls = getattr(transformers, architecture)
    return seeded(seed, cls, cls.config_class(**{**LANGUAGE, **changes}))


def both(architecture: str, seed: int = 1, **changes: Any) -> dict[str, Any]:
    """Return a student and a teacher of an architecture, the teacher twice as wide."""
    wide = {**changes, "hidden_size": 32}
    return {"model": network_of(architecture, seed, **changes), "teacher": network_of(architecture, seed + 1, **wide)}


# --- rows -------------------------------------------------------------------------------------------------------------


def points(count: int = 8, width: int = 6, **columns: Callable[[int], Any]) -> list[dict[str, Any]]:
    inputs = torch.randn(count, width, generator=torch.Generator().manual_seed(5))
    columns = columns or {"labels": lambda row: row % CLASSES}
    return [{"inputs": inputs[row], **{name: value(row) for name, value in columns.items()}} for row in range(count)]


def token_rows(
    labels: Callable[[int, list[int]], Any] = lambda row, ids: ids, lengths: tuple[int, ...] = (9, 4, 6, 12, 7, 3, 8, 5)
) -> list[dict[str, Any]]:
    """Return rows of token ids; labels: from a row's number and its ids to its labels."""
    texts = [[(37 * row + 11 * place) % 390 + 5 for place in range(n)] for row, n in enumerate(lengths)]
    return [{"input_ids": ids, "labels": labels(row, ids)} for row, ids in enumerate(texts)]


def classified(labels: Callable[[int, list[int]], Any] = lambda row, ids: row % CLASSES) -> list[dict[str, Any]]:
    return token_rows(labels)


def hidden_tokens(row: int, ids: list[int]) -> list[int]:
    return [token if place % 3 == 1 else -100 for place, token in enumerate(ids)]


def word_classes(row: int, ids: list[int]) -> list[int]:
    return [-100, *((row + place) % CLASSES for place in range(1, len(ids)))]


def texts(**changes: Any) -> dict[str, Any]:
    """Return rows and the tokenizer that pads them."""
    return {"train_dataset": token_rows(), "processing_class": tiny_texts.tokenizer(), **changes}


def padding() -> Any:
    return tiny_texts.tokenizer()


# --- any network of PyTorch -------------------------------------------------------------------------------------------


def mlp(seed: int, width: int = 8, outcomes: int = CLASSES, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, outcomes))


def cnn(seed: int, channels: int) -> nn.Module:
    torch.manual_seed(seed)
    body = [nn.Conv2d(1, channels, 3), nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(channels, CLASSES))


class Answering(nn.Module):
    """A network of the user's own: what it calls its input, and how it gives its logits."""

    def __init__(self, seed: int, answer: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.body, self.answer = mlp(seed), answer

    def forward(self, features: torch.Tensor) -> Any:
        return self.answer(self.body(features))


@healthy
def mlp_with_dropout() -> dict[str, Any]:
    return {"model": mlp(1, dropout=0.2), "teacher": mlp(2, 16, dropout=0.2), "train_dataset": points()}


@healthy
def cnn_with_batch_norm() -> dict[str, Any]:
    images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    return {"model": cnn(1, 3), "teacher": cnn(2, 8), "train_dataset": TensorDataset(images, torch.arange(8) % CLASSES)}


@healthy
def rows_without_a_label() -> dict[str, Any]:
    rows = [{"inputs": row["inputs"]} for row in points()]
    return {"model": mlp(1), "teacher": mlp(2, 16), "train_dataset": rows, "objective": tl.Objective(SOFT)}


@healthy
def rows_partly_labelled() -> dict[str, Any]:
    rows = points(labels=lambda row: (row % CLASSES, -100, None)[row % 3], index=lambda row: row)
    return {"model": mlp(1), "teacher": mlp(2, 16), "train_dataset": rows}


@healthy
def two_classes() -> dict[str, Any]:
    rows = points(labels=lambda row: torch.tensor(row % 2, dtype=torch.int32))
    return {"model": mlp(1, outcomes=2), "teacher": mlp(2, 16, 2), "train_dataset": rows, "task": Classification()}


@healthy
def one_output_by_squared_error() -> dict[str, Any]:
    objective = tl.Objective({"soft": tl.Term(tl.LogitMSE())})
    rows = [{"inputs": row["inputs"]} for row in points()]
    return {"model": mlp(1, outcomes=1), "teacher": mlp(2, 16, 1), "train_dataset": rows, "objective": objective}


@healthy
def float64_networks() -> dict[str, Any]:
    rows = [{**row, "inputs": row["inputs"].double()} for row in points()]
    return {"model": mlp(1).double(), "teacher": mlp(2, 16).double(), "train_dataset": rows}


@healthy
def answers_in_a_tuple_and_a_dict() -> dict[str, Any]:
    student = Answering(1, lambda logits: (logits, logits.mean()))
    teacher = Answering(2, lambda logits: {"logits": logits, "embedding": logits * 2})
    return {"model": student, "teacher": teacher, "train_dataset": points()}


@healthy
def answers_in_a_model_output() -> dict[str, Any]:
    student = Answering(1, lambda logits: SequenceClassifierOutput(logits=logits))
    teacher = Answering(2, lambda logits: SimpleNamespace(logits=logits))
    return {"model": student, "teacher": teacher, "train_dataset": points()}


@healthy
def compiled_networks() -> dict[str, Any]:
    student, teacher = mlp(1, dropout=0.2), mlp(2, 16)
    rows = [{"input": row["inputs"], "labels": row["labels"]} for row in points()]  # as nn.Sequential calls it
    return {
        "model": torch.compile(student, backend="eager"),
        "teacher": torch.compile(teacher, backend="eager"),
        "train_dataset": rows,
    }


@healthy
def two_teachers_and_labels() -> dict[str, Any]:
    terms = {name: tl.Term(tl.JensenShannon(), teacher=name, temperature=2.0, weight=0.4) for name in ("wide", "other")}
    teachers = {"wide": mlp(2, 16), "other": LiveTeacher(mlp(3, 12))}
    return {
        "model": mlp(1),
        "teacher": teachers,
        "train_dataset": points(),
        "objective": tl.Objective({**terms, **HARD}),
    }


@healthy
def labels_without_a_teacher() -> dict[str, Any]:
    return {"model": mlp(1, dropout=0.1), "train_dataset": points(), "objective": tl.Objective(HARD)}


@healthy
def features_through_a_projector() -> dict[str, Any]:
    torch.manual_seed(4)
    feature = tl.FeatureTerm(tl.LogitMSE(), "1", "1", projector=nn.Linear(8, 16), weight=0.5)
    objective = tl.Objective({**SOFT, "layers": feature})
    return {"model": mlp(1), "teacher": mlp(2, 16), "train_dataset": points(), "objective": objective}


@healthy
def a_model_put_together_before() -> dict[str, Any]:
    objective = tl.Objective({"soft": tl.Term(tl.DecoupledKD(), temperature=4.0), **HARD})
    model = tl.DistillationModel(mlp(1), {"teacher": mlp(2, 16)}, objective)
    return {"model": model, "objective": None, "train_dataset": points()}


@healthy
def an_iterable_data_set() -> dict[str, Any]:
    class Stream(IterableDataset):
        def __iter__(self) -> Iterator[dict[str, Any]]:
            return iter(points(16))

    return {"model": mlp(1), "teacher": mlp(2, 16), "train_dataset": Stream()}


@healthy
def a_collator_that_renames() -> dict[str, Any]:
    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        labels = torch.tensor([row["species"] for row in rows])
        return {"features": torch.stack([row["inputs"] for row in rows]), "labels": labels}

    student, teacher = Answering(1, lambda logits: logits), Answering(2, lambda logits: logits)
    rows = points(species=lambda row: row % CLASSES)
    return {"model": student, "teacher": teacher, "train_dataset": rows, "data_collator": collate}


@healthy
def accumulation_and_evaluation() -> dict[str, Any]:
    settings = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}
    settings |= {"eval_strategy": "steps", "eval_steps": 1, "weight_decay": 0.1, "warmup_steps": 1}
    return {"model": mlp(1), "teacher": mlp(2, 16), "train_dataset": points(), "eval_dataset": points(5)} | {
        "args": settings
    }


@healthy
def an_optimizer_for_the_last_layer() -> dict[str, Any]:
    student = mlp(1)
    for parameter in student[0].parameters():
        parameter.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in student.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    return {"model": student, "teacher": mlp(2), "train_dataset": points(), "optimizers": (optimizer, None)}


@healthy
def a_student_copied_from_its_teacher() -> dict[str, Any]:
    teacher = mlp(2, 16)
    return {"model": copy.deepcopy(teacher), "teacher": teacher, "train_dataset": points()}


@healthy
def images_of_transformers() -> dict[str, Any]:
    sizes = {"image_size": 8, "patch_size": 4, "num_channels": 1, "num_labels": CLASSES}
    images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    rows = [{"pixel_values": image, "labels": row % CLASSES} for row, image in enumerate(images)]
    config = transformers.ViTConfig(**SIZES, **sizes)
    student = seeded(1, transformers.ViTForImageClassification, config)
    return {"model": student, "teacher": cnn(2, 8), "train_dataset": rows}


# --- causal language models -------------------------------------------------------------------------------------------


def _causal(architecture: str, **changes: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {**both(architecture, **changes), **texts()}


PAIRS |= {
    "llama_tied": _causal("LlamaForCausalLM", tie_word_embeddings=True, num_key_value_heads=1),
    "mistral": _causal("MistralForCausalLM", num_key_value_heads=1),
    "qwen2": _causal("Qwen2ForCausalLM", num_key_value_heads=1),
    "qwen3": _causal("Qwen3ForCausalLM", num_key_value_heads=1, head_dim=8),
    "gemma": _causal("GemmaForCausalLM", num_key_value_heads=1, head_dim=8),
    "gemma2_with_softcaps": _causal("Gemma2ForCausalLM", num_key_value_heads=1, head_dim=8),
    "opt": _causal("OPTForCausalLM", ffn_dim=32, word_embed_proj_dim=None),
    "gpt_neox": _causal("GPTNeoXForCausalLM"),
    "phi": _causal("PhiForCausalLM"),
}


@healthy
def gpt2_with_dropout_from_llama() -> dict[str, Any]:
    student = network_of("GPT2LMHeadModel", 1, resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1)
    return {"model": student, "teacher": network_of("LlamaForCausalLM", 2, hidden_size=32), **texts()}


@healthy
def experts_without_a_balancing_loss() -> dict[str, Any]:
    changes = {"num_local_experts": 2, "num_experts_per_tok": 1, "num_key_value_heads": 1, "router_aux_loss_coef": 0.0}
    return {**both("MixtralForCausalLM", **changes), **texts()}


@healthy
def padded_on_the_left() -> dict[str, Any]:
    """With a prompt, so that no first token of a row is a target."""
    prompts = token_rows(lambda row, ids: [-100, -100, *ids[2:]])
    left = tiny_texts.tokenizer(padding_side="left")
    return {**both("LlamaForCausalLM"), "train_dataset": prompts, "processing_class": left}


@healthy
def padded_on_the_left_by_transformers() -> dict[str, Any]:
    left = tiny_texts.tokenizer(padding_side="left")
    collator = transformers.DataCollatorForLanguageModeling(left, mlm=False)
    rows = [{"input_ids": row["input_ids"]} for row in token_rows()]
    return {**both("GPT2LMHeadModel"), "train_dataset": rows, "data_collator": collator, "processing_class": left}


@healthy
def padded_by_the_packages_collator() -> dict[str, Any]:
    """With a prompt of two tokens each; the fifth has no label."""
    documents = [
        Document(row["input_ids"], [place > 1 for place in range(len(row["input_ids"]))]) for row in token_rows()
    ]
    rows = TokenRows.of(documents).with_labels([number != 4 for number in range(len(documents))])
    return {**both("LlamaForCausalLM"), "train_dataset": rows, "data_collator": CausalCollator(PAD)}


@healthy
def texts_without_a_label() -> dict[str, Any]:
    rows = [{"input_ids": row["input_ids"]} for row in token_rows()]
    return {**both("LlamaForCausalLM"), **texts(train_dataset=rows), "objective": tl.Objective(SOFT)}


@healthy
def texts_partly_labelled() -> dict[str, Any]:
    return {**both("LlamaForCausalLM"), **texts(train_dataset=token_rows(lambda row, ids: ids if row % 2 else None))}


@healthy
def heads_of_different_widths() -> dict[str, Any]:
    teacher = network_of("LlamaForCausalLM", 2, vocab_size=VOCABULARY + 16)
    student = network_of("LlamaForCausalLM", 1)
    return {"model": student, "teacher": teacher, **texts(), "vocabulary": tl.VocabularyMap.prefix(VOCABULARY)}


@healthy
def vocabularies_that_share_some_ids() -> dict[str, Any]:
    shared = tl.VocabularyMap(torch.arange(20, 300), torch.arange(279, -1, -1))
    return {**both("LlamaForCausalLM"), **texts(), "vocabulary": shared}


@healthy
def lora_on_a_student() -> dict[str, Any]:
    pair = both("GPT2LMHeadModel")
    torch.manual_seed(3)
    config = peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    return {**pair, "model": peft.get_peft_model(pair["model"], config), **texts()}


@healthy
def a_teacher_with_an_adapter() -> dict[str, Any]:
    pair = both("LlamaForCausalLM")
    torch.manual_seed(3)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], inference_mode=True)
    return {**pair, "teacher": peft.get_peft_model(pair["teacher"], config), **texts()}


@healthy
def gradient_checkpointing() -> dict[str, Any]:
    settings = {"gradient_checkpointing": True, "gradient_accumulation_steps": 2}
    return {**both("LlamaForCausalLM"), **texts(), "args": settings}


@healthy
def mixed_precision() -> dict[str, Any]:
    return {**both("LlamaForCausalLM"), **texts(), "args": {"bf16": True}}


@healthy
def a_teacher_in_bfloat16() -> dict[str, Any]:
    pair = both("LlamaForCausalLM")
    return {**pair, "teacher": pair["teacher"].bfloat16(), **texts()}


@healthy
def a_teacher_in_float16() -> dict[str, Any]:
    pair = both("GPT2LMHeadModel")
    return {**pair, "teacher": pair["teacher"].half(), **texts()}


class Bigrams(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(VOCABULARY, 8), nn.Linear(8, VOCABULARY)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.head(self.embedding(input_ids))


@healthy
def a_language_model_of_the_users() -> dict[str, Any]:
    return {"model": seeded(1, Bigrams), "teacher": network_of("LlamaForCausalLM", 2), **texts(), "task": CausalLM()}


@healthy
def a_compiled_language_model() -> dict[str, Any]:
    student = torch.compile(seeded(1, Bigrams), backend="eager")
    return {"model": student, "teacher": network_of("LlamaForCausalLM", 2), **texts(), "task": CausalLM()}


@healthy
def hidden_states_and_a_head() -> dict[str, Any]:
    pair = both("LlamaForCausalLM")
    return {name: tl.models.HeadModel(network) for name, network in pair.items()} | texts()


@healthy
def a_reverse_kl_between_language_models() -> dict[str, Any]:
    objective = tl.Objective({"soft": tl.Term(tl.ReverseKL()), "skew": tl.Term(tl.SkewForwardKL(0.1), weight=0.5)})
    return {**both("LlamaForCausalLM"), **texts(), "objective": objective}


# --- masked language models -------------------------------------------------------------------------------------------


def _masked(architecture: str, **changes: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {**both(architecture, **changes), **texts(train_dataset=token_rows(hidden_tokens))}


PAIRS |= {
    "bert": _masked("BertForMaskedLM"),
    "roberta": _masked("RobertaForMaskedLM"),
    "distilbert": lambda: {
        "model": network_of("DistilBertForMaskedLM", 1, dim=16, hidden_dim=32, n_layers=1, n_heads=2),
        "teacher": network_of("BertForMaskedLM", 2),
        **texts(train_dataset=token_rows(hidden_tokens)),
    },
    "electra": _masked("ElectraForMaskedLM", embedding_size=16),
    "modernbert": _masked("ModernBertForMaskedLM", cls_token_id=END, sep_token_id=END),
}


@healthy
def masks_drawn_by_transformers() -> dict[str, Any]:
    tokenizer = tiny_texts.tokenizer(mask_token="<|endoftext|>")
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5)
    rows = [{"input_ids": row["input_ids"]} for row in token_rows()]
    return {**both("BertForMaskedLM"), "train_dataset": rows, "data_collator": collator, "task": MaskedLM()}


# --- classes of texts and of tokens -----------------------------------------------------------------------------------


def _classes(architecture: str, **changes: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {**both(architecture, num_labels=CLASSES, **changes), **texts(train_dataset=classified())}


NAMES = {
    "id2label": dict(enumerate(["ant", "bee", "cat", "dog"])),
    "label2id": {"ant": 0, "bee": 1, "cat": 2, "dog": 3},
}

PAIRS |= {
    "bert_of_texts": _classes("BertForSequenceClassification"),
    "roberta_of_texts": _classes("RobertaForSequenceClassification"),
    "electra_of_texts": _classes("ElectraForSequenceClassification", embedding_size=16),
    "llama_of_texts": _classes("LlamaForSequenceClassification"),
    "gpt2_of_texts": _classes("GPT2ForSequenceClassification"),
    "names_of_classes_that_match": lambda: {
        "model": network_of("BertForSequenceClassification", 1, **NAMES),
        "teacher": network_of("BertForSequenceClassification", 2, **NAMES),
        **texts(train_dataset=classified()),
        "task": SequenceClassification(),
    },
    "names_of_classes_on_one_side": lambda: {
        "model": network_of("BertForSequenceClassification", 1, num_labels=CLASSES),
        "teacher": network_of("BertForSequenceClassification", 2, **NAMES),
        **texts(train_dataset=classified()),
    },
    "bert_of_tokens": lambda: {
        **both("BertForTokenClassification", num_labels=CLASSES),
        **texts(train_dataset=token_rows(word_classes)),
    },
    "t5_encoder_of_tokens": lambda: {
        "model": network_of(
            "T5ForTokenClassification", 1, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_labels=CLASSES
        ),
        "teacher": network_of("BertForTokenClassification", 2, num_labels=CLASSES),
        **texts(train_dataset=token_rows(word_classes)),
        "task": TokenClassification(),
    },
}


@healthy
def texts_padded_by_transformers() -> dict[str, Any]:
    tokenizer = padding()
    collator = transformers.DataCollatorWithPadding(tokenizer)
    rows = [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in classified()]
    return {**both("AlbertForSequenceClassification", embedding_size=8, num_labels=CLASSES), "train_dataset": rows} | {
        "data_collator": collator
    }


@healthy
def tokens_padded_by_transformers() -> dict[str, Any]:
    collator = transformers.DataCollatorForTokenClassification(padding())
    pair = both("RobertaForTokenClassification", num_labels=CLASSES)
    return {**pair, "train_dataset": token_rows(word_classes), "data_collator": collator}


@healthy
def a_t5_encoder_with_a_head_of_the_users() -> dict[str, Any]:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
            self.encoder = transformers.T5EncoderModel(transformers.T5Config(vocab_size=VOCABULARY, **sizes))
            self.head = nn.Linear(16, CLASSES)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return self.head((states * attention_mask[..., None]).sum(1) / attention_mask.sum(1, keepdim=True))

    teacher = network_of("BertForSequenceClassification", 2, num_labels=CLASSES)
    rows = texts(train_dataset=classified(lambda row, ids: None if row % 3 == 2 else row % CLASSES))
    return {"model": seeded(1, Pooled), "teacher": teacher, **rows, "task": SequenceClassification()}


@healthy
def lora_on_a_classifier() -> dict[str, Any]:
    pair = both("BertForSequenceClassification", num_labels=CLASSES)
    torch.manual_seed(3)
    config = peft.LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS")
    return {**pair, "model": peft.get_peft_model(pair["model"], config), **texts(train_dataset=classified())}
