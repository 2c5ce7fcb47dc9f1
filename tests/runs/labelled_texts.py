"""A recipe that tells by its words which module a line of Python's source is from, run in seconds."""

import argparse
import ast
import json
import random
from pathlib import Path

RECIPE = """
task: sequence_classification
data: {text: texts.jsonl, test: held.jsonl, length: 24, tokenizer: {train: 300}, labeled: 40}
teacher:
  bert: {hidden: 16, layers: 2, heads: 2, intermediate: 24}
  fit: {steps: 60, batch_size: 16, learning_rate: 0.01}
student: {bert: {hidden: 8, layers: 1, heads: 2, intermediate: 16}}
objective:
  soft: {forward_kl: {}, temperature: 2, weight: 0.7}
  hard: {forward_kl: {}, teacher: labels, weight: 0.3}
training: {steps: 9, batch_size: 8, learning_rate: 0.02, evaluations: 3, checkpoints: 3, device: cpu, seeds: 2}
baseline: true
"""


def labelled_lines(count):
    """Return so many different lines of each of two modules, with their names, in an order that never changes."""
    rows = []
    for module in (argparse, ast):
        lines = dict.fromkeys(line.strip() for line in Path(module.__file__).read_text().splitlines())
        chosen = [line for line in lines if len(line) > 20][:count]
        rows += [{"text": line, "label": module.__name__} for line in chosen]
    random.Random(0).shuffle(rows)
    return rows


def written(folder, count=100, held=20):
    """Return the file of the recipe in a folder, its texts beside it; every seventh for training has no label."""
    rows = labelled_lines(count)
    train = [{**row, "label": None} if i % 7 == 0 else row for i, row in enumerate(rows[held:])]
    for name, part in (("texts", train), ("held", rows[:held])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    file = folder / "recipe.yaml"
    file.write_text(RECIPE)
    return file
