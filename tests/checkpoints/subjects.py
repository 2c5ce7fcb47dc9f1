"""What is trained, stopped and gone on with while its checkpoints are damaged."""

import contextlib
import logging
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from safetensors.torch import save
from torch import nn

import tutelage as tl
from tutelage.config import load
from tutelage.runs import Note, Progress, run
from tutelage.training import DistillationTrainer, MetricsLog

STEPS, EVERY = 6, 2
OBJECTIVE = tl.Objective(
    {"soft": tl.Term(tl.ForwardKL(), temperature=2.0), "hard": tl.Term(tl.ForwardKL(), teacher="labels", weight=0.1)}
)


@dataclass
class Ended:
    """How an attempt to go on ended. result: every byte that counts, by name; None where it was refused."""

    result: dict[str, bytes] | None
    told: list[str] = field(default_factory=list)


class CrashError(Exception):
    """What a machine does."""


class _Told(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.told = []

    def emit(self, record):
        self.told.append(record.getMessage())


@contextlib.contextmanager
def listening(name):
    """Give the warnings that are logged under a name."""
    handler, log = _Told(), logging.getLogger(name)
    log.addHandler(handler)
    try:
        yield handler.told
    finally:
        log.removeHandler(handler)


def rows(count=24):
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(count, 6, generator=generator)
    return [{"inputs": inputs[i], "labels": (i * 7) % 4} for i in range(count)]


def network(seed, hidden=8, dropout=0.0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, hidden), nn.Tanh(), nn.Dropout(dropout), nn.Linear(hidden, 4))


def arguments(folder, **given):
    settings = {
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
        "per_device_train_batch_size": 4,
        "learning_rate": 0.05,
        "logging_steps": 1,
        "max_steps": STEPS,
        "save_steps": EVERY,
        "warmup_steps": 3,
        **given,
    }
    return transformers.TrainingArguments(str(folder), **settings)


class OfATrainer:
    """A trainer by itself: its checkpoints lie in the folder, and it goes on from the newest."""

    logger = "tutelage"

    def trainer(self, folder, **given):
        return DistillationTrainer(
            model=network(1, dropout=0.2),
            teacher=network(2, hidden=16),
            objective=OBJECTIVE,
            args=arguments(folder, **given),
            train_dataset=rows(),
            eval_dataset=rows(8),
            callbacks=[MetricsLog(Path(folder) / "metrics.jsonl")],
        )

    def train(self, folder, resume=None, **given):
        trainer = self.trainer(folder, **given)
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    def result(self, trainer, folder):
        weights = save({name: value.clone() for name, value in trainer.model.state_dict().items()})
        metrics = Path(folder) / "metrics.jsonl"
        return {"weights": weights, **({"metrics": metrics.read_bytes()} if metrics.exists() else {})}

    def prepare(self, root):
        """Train to the end, and keep what a crash after the second checkpoint leaves; return the result."""
        folder = root / "whole"
        result = self.result(self.train(folder), folder)
        shutil.copytree(folder, root / "stopped")
        shutil.rmtree(root / "stopped" / f"checkpoint-{STEPS}")
        return result

    def checkpoints(self, folder):
        """Return where the checkpoints of a folder lie."""
        return folder

    def go_on(self, folder):
        """Go on in a folder, for 20 seconds at most: some wait for ever for what a pipe has to say."""

        def give_up(signum, frame):
            raise TimeoutError("it hangs")

        before = signal.signal(signal.SIGALRM, give_up)
        signal.setitimer(signal.ITIMER_REAL, 20)
        try:
            with listening(self.logger) as told:
                try:
                    return Ended(self.result(self.train(folder, resume=True), folder), told)
                except Exception as error:
                    return Ended(None, [*told, f"{type(error).__name__}: {error}"])
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


class _Student(nn.Module):
    """As transformers wants it: a network that returns its loss."""

    def __init__(self):
        super().__init__()
        self.network = network(1, dropout=0.2)

    def forward(self, inputs, labels):
        logits = self.network(inputs)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class OfTransformers(OfATrainer):
    """`transformers.Trainer` by itself, with the same network, rows and arguments."""

    logger = "transformers"

    def trainer(self, folder, **given):
        return transformers.Trainer(
            model=_Student(), args=arguments(folder, data_seed=42, **given), train_dataset=rows()
        )


class OfARecipe:
    """A run of a recipe, whose student was stopped after its second checkpoint."""

    def __init__(self, write, overrides=()):
        self.write, self.overrides = write, list(overrides)

    def prepare(self, root):
        recipe = load(self.write(root), self.overrides)
        run(recipe, root / "whole")

        def crash(event):
            if isinstance(event, Progress) and (event.arm, event.step) == ("student", STEPS):
                raise CrashError

        with contextlib.suppress(CrashError):
            run(recipe, root / "stopped", on_event=crash)
        return self.result(root / "whole")

    def result(self, folder):
        student = folder / "seed-0" / "student"
        kept = [
            student / "metrics.jsonl",
            student / "scores.json",
            folder / "scores.json",
            *(student / "model").iterdir(),
        ]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in kept}

    def checkpoints(self, folder):
        return folder / "seed-0" / "student" / "checkpoints"

    def go_on(self, folder):
        told = []
        try:
            run(
                None,
                folder,
                resume=True,
                on_event=lambda event: told.append(event.text) if isinstance(event, Note) else 0,
            )
        except Exception as error:
            return Ended(None, [*told, f"{type(error).__name__}: {error}"])
        return Ended(self.result(folder), told)


DIGITS = """
data: {source: digits, labeled: 40}
teacher: {mlp: {hidden: [16]}, fit: {epochs: 1}}
student: {mlp: {hidden: [8], dropout: 0.1}}
objective:
  soft: {forward_kl: {}, temperature: 2, weight: 0.9}
  hard: {forward_kl: {}, teacher: labels, weight: 0.1}
training: {steps: 6, batch_size: 16, learning_rate: 0.01, seeds: 1, mix: 0.5, evaluations: 2, checkpoints: 3,
  device: cpu}
baseline: false
"""
TEXTS = """
task: causal_lm
data: {text: texts.txt, test: held.txt, length: 24, tokenizer: {train: 300}}
teacher:
  llama: {hidden: 16, layers: 1, heads: 2, intermediate: 24}
  fit: {steps: 2, batch_size: 8, learning_rate: 0.02}
student: {llama: {hidden: 8, layers: 1, heads: 2, key_value_heads: 1, intermediate: 16}}
objective:
  soft: {forward_kl: {}, weight: 0.7}
  hard: {forward_kl: {}, teacher: labels, weight: 0.3}
training: {steps: 6, batch_size: 4, learning_rate: 0.02, warmup: 0.2, evaluations: 2, checkpoints: 3,
  device: cpu, seeds: 1}
baseline: false
"""


def digits(root):
    (root / "digits.yaml").write_text(DIGITS)
    return root / "digits.yaml"


def texts(root):
    lines = [line.strip() for line in Path(contextlib.__file__).read_text().splitlines() if len(line.strip()) > 20]
    (root / "texts.txt").write_text("\n".join(lines[:80]))
    (root / "held.txt").write_text("\n".join(lines[80:90]))
    (root / "texts.yaml").write_text(TEXTS)
    return root / "texts.yaml"


SUBJECTS = {
    "DistillationTrainer": OfATrainer,
    "recipe of digits": lambda: OfARecipe(digits),
    "recipe of a language model": lambda: OfARecipe(texts),
    "transformers.Trainer": OfTransformers,
}
