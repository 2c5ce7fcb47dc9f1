"""Worlds of one, two and four processes that carry out the same; run by test_ranks, as `ranks.py FOLDER`.

Each is forked from a process that has imported everything, with the environment that torchrun gives it. What each
process of a world found goes to FOLDER/<size>/<rank>.json.
"""

import json
import multiprocessing
import os
import socket
import sys
from pathlib import Path

import language_helpers
import numpy as np
import torch
from training_helpers import lines_of, make_rows, network, trainer_of

from tutelage.config import load
from tutelage.errors import ModuleError, ParameterError
from tutelage.runs import run

SIZES, BATCH, STEPS = (1, 2, 4), 8, 20
OF_THE_CLOCK = ("_runtime", "_per_second", "_preparation_time")


def numbers(measured):
    return {name: value for name, value in measured.items() if not name.endswith(OF_THE_CLOCK)}


def through_the_trainer(folder, size):
    """Plain arguments, without a word on the device; the last batch of an epoch has 6 rows, and an evaluation 3."""
    student = network(1)
    trainer = trainer_of(
        folder,
        make_rows(22),
        student,
        # Its first row alone has a label; the default batch leaves all but the first process without a row.
        eval_dataset=make_rows(3, labelled=(0,)),
        compute_metrics=lambda outcome: {"guesses": np.asarray(outcome.predictions).argmax(-1).tolist()},
        use_cpu=False,
        per_device_train_batch_size=BATCH // size,
        max_steps=STEPS,
        eval_strategy="steps",
        eval_steps=STEPS // 2,
    )
    trainer.train()
    evaluated, unlabelled = trainer.evaluate(), trainer.evaluate(make_rows(5, labelled=()))
    # A batch of rows that have labels, and two of rows that do not.
    some = make_rows(17)
    for row in some[8:]:
        del row["labels"]
    predicted = trainer.predict(some)
    return {
        "world": trainer.args.world_size,
        "lines": [numbers(line) for line in lines_of(trainer)],
        "evaluated": [numbers(line) for line in (evaluated, unlabelled, predicted.metrics)],
        "predictions": predicted.predictions.tolist(),
        "labels": predicted.label_ids.tolist(),
        "weights": torch.cat([value.reshape(-1) for value in student.state_dict().values()]).tolist(),
    }


class Stream(torch.utils.data.IterableDataset):
    """Rows without a length."""

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def through_a_stream(folder, size):
    """The last batch of an epoch has 6 rows; the evaluations have 9 and 4."""
    given = {"per_device_train_batch_size": BATCH // size, "max_steps": 4, "use_cpu": False}
    trainer = trainer_of(folder, Stream(make_rows(22)), network(1), **given)
    trainer.train()
    found = {"lines": [numbers(line) for line in lines_of(trainer)]}
    found["evaluated"] = [numbers(trainer.evaluate(Stream(make_rows(count)))) for count in (9, 4)]
    return {"stream": found}


def recomputed(folder, size):
    """A language model whose activations are recomputed by a backward within the backward."""
    given = {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}}
    given |= {"per_device_train_batch_size": 4 // size, "max_steps": 2, "use_cpu": False}
    trainer = language_helpers.trainer_of(folder, **given)
    trainer.train()
    found = {"recomputed": [numbers(line) for line in lines_of(trainer)]}
    if size > 1:
        searching = language_helpers.trainer_of(folder, ddp_find_unused_parameters=True, **given)
        student = network(1)
        student.register_parameter("unused", torch.nn.Parameter(torch.ones(2)))
        settings = {"max_steps": 3, "ddp_find_unused_parameters": False}
        found["twice"], found["unused"] = refusal(searching), refusal(trainer_of(folder, student=student, **settings))
    return found


class Noted:
    """Notes which rows it makes batches of."""

    def __init__(self):
        self.rows = []

    def __call__(self, rows):
        self.rows += [int(row["index"]) for row in rows]
        return language_helpers.COLLATE(rows)


def grouped_by_length(folder, size, dropout):
    """Two epochs of two steps, stopped after three and resumed; and which rows this process saw."""

    def trained(checkpoint=None):
        note, student = Noted(), language_helpers.student(attention_dropout=dropout)
        trainer = language_helpers.trainer_of(
            folder / f"grouped-{dropout}",
            student,
            data_collator=note,
            per_device_train_batch_size=4 // size,
            train_sampling_strategy="group_by_length",
            num_train_epochs=2,
            save_strategy="steps",
            save_steps=3,
            use_cpu=False,
        )
        trainer.train(checkpoint)
        weights = torch.cat([value.reshape(-1) for value in student.state_dict().values()])
        return weights, [numbers(line) for line in lines_of(trainer)], note.rows

    weights, lines, rows = trained()
    resumed, again, _ = trained(folder / f"grouped-{dropout}" / "checkpoint-3")
    return {"lines": lines, "resumed": torch.equal(resumed, weights) and again == lines, "rows": rows}


def refusal(trainer):
    try:
        trainer.train()
    except ModuleError as error:
        return str(error)
    return "it trained"


def through_a_recipe(folder):
    recipe = load(folder.parent / "clouds.yaml")
    run(recipe, folder / "run")
    return {}


def too_late(folder, environment):
    """Make a trainer for one process, and connect it with others before it trains."""
    trainer = trainer_of(folder / "late", student=network(1), max_steps=1)
    os.environ.update(environment)
    torch.distributed.init_process_group("gloo")
    try:
        trainer.train()
    except ParameterError as error:
        return {"late": str(error)}
    return {"late": "trained"}


def rank_of(folder, size, rank, port):
    sys.stdout = sys.stderr = (folder / f"{rank}.txt").open("w", buffering=1)
    environment = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "RANK": rank, "LOCAL_RANK": rank}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    environment = {name: str(value) for name, value in environment.items()}
    found = too_late(folder, environment) if size == 2 else {}
    os.environ.update(environment)
    os.environ["TUTELAGE_CACHE"] = str(folder / "cache")
    found |= through_the_trainer(folder, size) | through_a_stream(folder, size) | through_a_recipe(folder)
    if size < 4:
        found |= recomputed(folder, size)
        found["grouped"] = [grouped_by_length(folder, size, dropout) for dropout in (0.0, 0.3)]
    (folder / f"{rank}.json").write_text(json.dumps(found))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def world(folder, size):
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=rank_of, args=(folder, size, rank, port)) for rank in range(size)]
    try:
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(timeout=200)
    finally:
        for rank in ranks:
            rank.kill()
            rank.join()
    if any(rank.exitcode for rank in ranks):
        sys.exit("\n".join(f"{file.name}:\n{file.read_text()[-3000:]}" for file in sorted(folder.glob("*.txt"))))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for size in SIZES:
        world(Path(sys.argv[-1]) / str(size), size)
