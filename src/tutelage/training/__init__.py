"""Door 3: training. `DistillationTrainer` is a `transformers.Trainer` for an objective; the rest goes with it."""

from __future__ import annotations

from tutelage.packages import importing

with importing("training", "tutelage[train]"):
    from tutelage.training._callbacks import Interruptible, MetricsLog
    from tutelage.training._checkpoints import last_checkpoint
    from tutelage.training._collate import collate
    from tutelage.training._evaluation import Evaluation
    from tutelage.training._mixing import MixingCollator
    from tutelage.training._tokens import TokenCollator
    from tutelage.training._trainer import DistillationTrainer
    from tutelage.training._world import connect_processes, uses_cpu, world_size

__all__ = [
    "DistillationTrainer",
    "Evaluation",
    "Interruptible",
    "MetricsLog",
    "MixingCollator",
    "TokenCollator",
    "collate",
    "connect_processes",
    "last_checkpoint",
    "uses_cpu",
    "world_size",
]
