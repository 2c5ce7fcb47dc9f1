"""One of two processes that train one step of a language model together; run by test_language_splits.

Three ways: DDP through the trainer, where activations may be made again in the backward; torch's fully_shard on the
model and its layers; and what accelerate does to a model where FSDP2 is on, which it never is on a CPU.
"""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from language_helpers import COLLATE, OBJECTIVE, ROWS, Gradients, lines_of, student, teacher, trainer_of
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

import tutelage as tl
from tutelage.errors import TeacherError
from tutelage.models import HeadModel
from tutelage.tasks import CausalLM

FOLDER = Path(sys.argv[-1])  # the last: doctest imports this file too, with an argv of its own
INPUTS = ("input_ids", "attention_mask", "position_ids")


def keep(name, rank, value):
    if rank == 0:
        torch.save(value, FOLDER / f"{name}.pt")


def logits(network):
    batch = COLLATE(list(ROWS))
    with torch.no_grad():
        return network(**{name: batch[name] for name in INPUTS}).logits


def through_the_trainer(rank, tied, name="trainer", **given):
    trainer = trainer_of(
        FOLDER / "run",
        student(tie_word_embeddings=tied),
        eval_dataset=ROWS,
        ddp_backend="gloo",
        per_device_train_batch_size=2,
        per_device_eval_batch_size=3,
        gradient_accumulation_steps=2,
        max_steps=1,
        **given,
    )
    gradients = Gradients(trainer)
    trainer.add_callback(gradients)
    trainer.train()
    keep(f"{name}-{tied}", rank, (lines_of(trainer)[0], gradients.kept))
    trainer.save_model(str(FOLDER / f"{name}-{tied}-saved"))
    keep(f"{name}-{tied}-logits", rank, logits(trainer.distillation.student.model))
    if tied and not given:
        measured = trainer.evaluate()
        keep("evaluated", rank, measured)


def by_torch(model):
    for layer in model.student.model.model.layers:
        fully_shard(layer)
    return fully_shard(model)


def by_accelerate(model):
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap")
    accelerator = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin), mixed_precision="no", is_main_process=False, device="cpu"
    )
    made = fsdp2_prepare_model(accelerator, model)
    assert all(isinstance(layer, FSDPModule) for layer in made.student.model.model.layers)
    return made


def model_of(tied):
    network = HeadModel(student(tie_word_embeddings=tied))
    return tl.DistillationModel(network, {"teacher": HeadModel(teacher())}, OBJECTIVE, CausalLM())


def sharded(rank, tied, name, shard):
    model = shard(model_of(tied))
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    trainer = trainer_of(FOLDER / name, model)
    mine = [COLLATE([ROWS[place] for place in places]) for places in [((0, 1), (4, 5)), ((2, 3), (6, 7))][rank]]
    batches, counts = trainer.get_batch_samples(iter(mine), 2, torch.device("cpu"))
    model.train()
    line = torch.zeros(3, dtype=torch.float64)
    for batch in batches:
        loss, out = trainer.compute_loss(model, batch, return_outputs=True, num_items_in_batch=counts)
        loss.backward()
        line += torch.stack([part.detach().double() for part in (out["loss"], *out["parts"].values())])
    dist.all_reduce(line)
    named = model.student.named_parameters()
    gradient = {path.removeprefix("model."): parameter.grad.full_tensor() for path, parameter in named}
    keep(f"{name}-{tied}", rank, (dict(zip(["loss", *out["parts"]], line.tolist(), strict=True)), gradient))
    # As the trainer does it where accelerate shards.
    whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if rank == 0:
        trainer._save(str(FOLDER / f"{name}-{tied}-saved"), state_dict=whole)
    keep(f"{name}-{tied}-logits", rank, logits(student(tie_word_embeddings=tied)))


def counts_in_half_precision(rank):
    """Numbers that a model is called with are rounded on the way, where weights are in half precision."""
    model = model_of(True)
    fully_shard(model, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    trainer = trainer_of(FOLDER / "half", model)
    # 1,001 targets in all: bfloat16 has 1,000 and 1,004.
    length = 501 if rank else 502
    ids = torch.ones(1, length, dtype=torch.int64)
    batch = {"input_ids": ids, "labels": ids, "attention_mask": ids}
    _, counts = trainer.get_batch_samples(iter([batch]), 1, torch.device("cpu"))
    seen = {}
    call = tl.Objective.__call__

    def looked_at(objective, *sides, **given):
        seen.update({name: float(value) for name, value in given["normalizer"].items()})
        return call(objective, *sides, **given)

    tl.Objective.__call__ = looked_at
    try:
        trainer.compute_loss(model, batch, num_items_in_batch=counts)
    finally:
        tl.Objective.__call__ = call
    keep("counts", rank, seen)


def sharded_teachers(rank):
    batch, found = COLLATE(list(ROWS)), {}
    for again in (None, False, True):
        wise = HeadModel(teacher())
        for layer in wise.model.model.layers:
            fully_shard(layer)
        fully_shard(wise, reshard_after_forward=again)
        model = tl.DistillationModel(HeadModel(student()), {"teacher": wise}, OBJECTIVE, CausalLM())
        try:
            found[str(again)] = {name: part.item() for name, part in model(**batch)["parts"].items()}
        except TeacherError as error:
            found[str(again)] = str(error)
    keep("teachers", rank, found)


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    for tied in (True, False):
        through_the_trainer(rank, tied)
        through_the_trainer(rank, tied, "recomputed", activation_checkpointing=True)
        for name, shard in (("torch", by_torch), ("accelerate", by_accelerate)):
            sharded(rank, tied, name, shard)
    counts_in_half_precision(rank)
    sharded_teachers(rank)
    dist.destroy_process_group()
