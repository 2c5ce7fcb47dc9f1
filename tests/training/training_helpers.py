"""A small problem that trains in milliseconds: rows of which some have no label, a student with dropout, a teacher."""

import torch
import transformers
from torch import nn

import tutelage as tl
from tutelage.training import DistillationTrainer

OBJECTIVE = tl.Objective(
    {
        "soft": tl.Term(tl.ForwardKL(), temperature=3.0, weight=0.7),
        "hard": tl.Term(tl.ForwardKL(), teacher="labels", weight=0.3),
    }
)


def make_rows(count=24, labelled=(0, 1, 2, 7, 11, 12, 20)):
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(count, 6, generator=generator)
    return [{"inputs": inputs[i], "labels": (i * 7) % 4 if i in labelled else -100, "index": i} for i in range(count)]


def network(seed, hidden=8, dropout=0.0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, hidden), nn.Tanh(), nn.Dropout(dropout), nn.Linear(hidden, 4))


def arguments(folder, **given):
    settings = {
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "no",
        "report_to": "none",
        "per_device_train_batch_size": 4,
        "learning_rate": 0.05,
        "logging_steps": 1,
    }
    return transformers.TrainingArguments(str(folder), **{**settings, **given})


_OF_THE_TRAINER = (
    "eval_dataset",
    "data_collator",
    "compute_metrics",
    "processing_class",
    "task",
    "optimizer_cls_and_kwargs",
    "preprocess_logits_for_metrics",
)


def trainer_of(folder, rows=None, student=None, teacher=None, objective=OBJECTIVE, callbacks=None, **given):
    own = {name: given.pop(name) for name in _OF_THE_TRAINER if name in given}
    trainer = DistillationTrainer(
        model=network(1, dropout=0.2) if student is None else student,
        teacher=network(2, hidden=16) if teacher is None else teacher,
        objective=objective,
        args=arguments(folder, **given),
        train_dataset=make_rows() if rows is None else rows,
        callbacks=callbacks,
        **own,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def lines_of(trainer):
    return [entry for entry in trainer.state.log_history if "loss" in entry]
