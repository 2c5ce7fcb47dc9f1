"""One of two processes that train together, on each number of rows in turn; run by test_same_objective."""

import json
import sys
from pathlib import Path

import torch
from training_helpers import lines_of, make_rows, network, trainer_of

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, *counts = sys.argv[1:]
    for count in counts:
        trainer = trainer_of(
            Path(folder, count),
            make_rows(int(count)),
            network(1),
            eval_dataset=make_rows(7),
            ddp_backend="gloo",
            per_device_train_batch_size=2,
            per_device_eval_batch_size=2,
            gradient_accumulation_steps=2,
            optim="sgd",
            learning_rate=1.0,
            max_grad_norm=0,
            lr_scheduler_type="constant",
            train_sampling_strategy="sequential",
            num_train_epochs=1,
        )
        trainer.train()
        measured = trainer.evaluate()
        if trainer.is_world_process_zero():
            weights = {name: value.tolist() for name, value in trainer.distillation.student.state_dict().items()}
            found = {"weights": weights, "lines": lines_of(trainer), "eval": measured}
            Path(folder, count, "found.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()
