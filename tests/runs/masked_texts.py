"""A recipe about hidden tokens that is run in a second, and lines of Python's own source for it."""

import argparse
import json
from pathlib import Path

RECIPE = """
task: masked_lm
data: {text: texts.jsonl, test: held.jsonl, length: 24, tokenizer: {train: 300}, mask: 0.2}
teacher:
  bert: {hidden: 16, layers: 2, heads: 2, intermediate: 24}
  fit: {steps: 6, batch_size: 8, learning_rate: 0.02}
student: {bert: {hidden: 8, layers: 1, heads: 2, intermediate: 16}}
objective:
  soft: {forward_kl: {}, weight: 0.7}
  hard: {forward_kl: {}, teacher: labels, weight: 0.3}
training: {steps: 7, batch_size: 8, learning_rate: 0.02, evaluations: 2, checkpoints: 2, device: cpu, seeds: 2}
baseline: true
"""


def python_lines(count):
    """Return so many lines of Python's own source, of some length."""
    lines = (line.strip() for line in Path(argparse.__file__).read_text().splitlines())
    return [line for line in lines if len(line) > 20][:count]


def written(folder):
    """Return the file of the recipe in a folder, its texts beside it."""
    lines = python_lines(130)
    for name, part in (("texts", lines[:110]), ("held", lines[110:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    file = folder / "recipe.yaml"
    file.write_text(RECIPE)
    return file
