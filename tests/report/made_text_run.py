"""The folder of a run of language models with real numbers: counts of characters that follow each other, no network.

The teacher has counted pairs in all of the text, the student has part of the teacher's table smoothed, the baseline has
counted in little of it. Independent of what writes run folders in the package.
"""

from __future__ import annotations

import json

import numpy as np
from made_run import write

PIECE = '''\
def fill(text, width=70):
    """Wrap a paragraph.

    Reformat the single paragraph in 'text' to fit in lines
    of no more than 'width' columns.
    """
\tw = TextWrapper(width=width)
    return w.fill(text)


def shorten(text, width, **kwargs):
    if len(text) > 3:
        raise ValueError("placeholder too large: ü 名")
    return text[:width - 3] + "..."
'''
ARMS = ("student", "baseline")
RECIPE = "task: causal_lm\ndata: {source: pystdlib}\n"


def table(ids, size, smooth):
    counts = np.full((size, size), smooth)
    np.add.at(counts, (ids[:-1], ids[1:]), 1.0)
    return counts / counts.sum(axis=1, keepdims=True)


def readings(teacher, network, ids):
    """Return -log p and KL(teacher || network) for each token but the first, which nothing predicts."""
    before, here = ids[:-1], ids[1:]
    p, q = teacher[before], network[before]
    return -np.log(network[before, here]), (p * np.log(p / q)).sum(axis=1)


def tokens_of(text):
    """Cut a text into words, spaces and line ends, so that tokens differ in length."""
    tokens = []
    for character in text:
        joined = tokens and (
            (character.isalpha() and tokens[-1][-1].isalpha() and len(tokens[-1]) < 5)
            or (character in " \n" and tokens[-1].strip(" \n") == "" and len(tokens[-1]) < 8)
            or (tokens[-1] == " " and character.isalpha())
        )
        if joined:
            tokens[-1] += character
        else:
            tokens.append(character)
    return tokens


def make(folder, seeds=(0, 1, 2), steps=200, task="causal_lm", text=PIECE):
    """Write a complete run."""
    tokens = tokens_of(text)
    names = sorted(set(tokens))
    ids = np.array([names.index(token) for token in tokens])
    size = len(names)
    teacher = table(ids, size, 0.03)
    networks = {}
    for seed in seeds:
        generator = np.random.default_rng(seed)
        noise = generator.gamma(4.0, 0.25, (size, size))
        student = 0.6 * teacher * noise + 0.4 * table(ids, size, 3.0)
        baseline = 0.25 * teacher * noise + 0.75 * table(generator.permutation(ids), size, 1.0)
        networks[seed] = {
            name: values / values.sum(axis=1, keepdims=True)
            for name, values in (("student", student), ("baseline", baseline))
        }
    write_arm(folder / "teacher", teacher, teacher, ids, 2_000_000, [])
    for seed, arms in networks.items():
        for name, network in arms.items():
            logs = logs_of(teacher, network, ids, steps, name)
            write_arm(folder / f"seed-{seed}" / name, teacher, network, ids, 200_000, logs)
    write(
        folder / "run.json",
        {
            "status": "complete",
            "recipe": "pystdlib-lm",
            "task": task,
            "seeds": list(seeds),
            "arms": ["student", "baseline"],
            "rows": {"train": 14000, "labelled": 14000, "fit": 14000, "test": 700},
            "tokens": {"train": 3584000, "test": 190464},
            "vocabulary": 2048,
            "seconds": 1302.0,
        },
    )
    write(folder / "environment.json", {"torch": "2.13.0", "threads": 2, "device": "cpu"})
    (folder / "recipe.resolved.yaml").write_text(RECIPE, encoding="utf-8")
    first = networks[seeds[0]]
    told = {"seed": seeds[0], "row": 3, "tokens": tokens}
    for name, network in {"teacher": teacher, **first}.items():
        nll, kl = readings(teacher, network, ids)
        told[f"{name}_nll"] = [None, *nll.tolist()]
        if name != "teacher":
            told[f"{name}_kl"] = [None, *kl.tolist()]
    write(folder / "text.json", told)
    return folder


def write_arm(place, teacher, network, ids, parameters, logs):
    nll, kl = readings(teacher, network, ids)
    guess, told = (values[ids[:-1]].argmax(axis=1) for values in (network, teacher))
    scores = {
        "rows": 700,
        "tokens": 190464,
        "nll": float(nll.mean()),
        "perplexity": float(np.exp(nll.mean())),
        "accuracy": float((guess == ids[1:]).mean()),
        "parameters": parameters,
        "bytes": 4 * parameters,
    }
    if logs:
        scores |= {"kl": float(kl.mean()), "agreement": float((guess == told).mean())}
    write(place / "scores.json", scores)
    write(place / "timing.json", {"train_seconds": 240.0})
    if logs:
        (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in logs), encoding="utf-8")


def logs_of(teacher, network, ids, steps, name):
    """Return a log on the way from uniform to the network."""
    logs = []
    for step in range(10, steps + 1, 10):
        share = 1 - np.exp(-5 * step / steps)
        now = share * network + (1 - share) / len(network)
        nll, kl = readings(teacher, now, ids)
        terms = {"hard": float(nll.mean())} | ({"soft": float(kl.mean())} if name == "student" else {})
        # The gradient norm of a step that float16 skipped.
        norm = None if step == 50 else 1.0
        logs.append({"step": step, "epoch": 0.1, "loss": 1.0, **terms, "grad_norm": norm, "learning_rate": 0.001})
        if step % 40 == 0:
            accuracy = float((now[ids[:-1]].argmax(axis=1) == ids[1:]).mean())
            agreement = float((now[ids[:-1]].argmax(axis=1) == teacher[ids[:-1]].argmax(axis=1)).mean())
            told = {"nll": float(nll.mean()), "kl": float(kl.mean()), "accuracy": accuracy, "agreement": agreement}
            logs.append({"step": step, **{f"eval_{key}": value for key, value in told.items()}})
    return logs
