"""A run folder with real numbers: small networks in numpy, trained on scikit-learn's digits in about two seconds.

Independent of what writes run folders in the package: this is the format as the design states it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from safetensors.numpy import save_file
from sklearn.datasets import load_digits

RECIPE = """\
# 100 labels, and a teacher that has seen all of them.
task: classification
data: {source: digits, labeled: 100}
teacher: {mlp: {hidden: [128]}, fit: {epochs: 30}}
student: {mlp: {hidden: [16]}}
objective:
  soft: {forward_kl: {}, temperature: 2, weight: 0.9}
  hard: {forward_kl: {}, teacher: labels, weight: 0.1}
"""


def softmax(values):
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@dataclass
class Net:
    """One hidden layer and Adam."""

    weights: list
    moments: list = field(default_factory=list)
    count: int = 0

    @classmethod
    def of(cls, generator, hidden):
        sizes = [64, hidden, 10]
        weights = []
        for size, after in pairwise(sizes):
            weights += [generator.normal(size=(size, after)) * np.sqrt(2 / size), np.zeros(after)]
        return cls(weights, [(np.zeros_like(weight), np.zeros_like(weight)) for weight in weights])

    def __call__(self, inputs):
        return np.maximum(inputs @ self.weights[0] + self.weights[1], 0) @ self.weights[2] + self.weights[3]

    def step(self, inputs, gradient_of, rate):
        hidden = np.maximum(inputs @ self.weights[0] + self.weights[1], 0)
        upper = gradient_of(hidden @ self.weights[2] + self.weights[3])
        lower = (upper @ self.weights[2].T) * (hidden > 0)
        self.count += 1
        for i, gradient in enumerate([inputs.T @ lower, lower.sum(0), hidden.T @ upper, upper.sum(0)]):
            first, second = self.moments[i]
            first += 0.1 * (gradient - first)
            second += 0.001 * (gradient**2 - second)
            scale = np.sqrt(second / (1 - 0.999**self.count)) + 1e-8
            self.weights[i] -= rate * first / (1 - 0.9**self.count) / scale


def scores(logits, labels, parameters, teacher=None):
    p = softmax(logits)
    right = logits.argmax(1) == labels
    confidence, n = p.max(1), len(labels)
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [abs(confidence[bins == b].sum() - right[bins == b].sum()) for b in range(15)]
    out = {
        "rows": n,
        "errors": int((~right).sum()),
        "accuracy": float(right.mean()),
        "nll": float(-np.log(p[np.arange(n), labels]).mean()),
        "brier": float(((p - np.eye(p.shape[1])[labels]) ** 2).sum(1).mean()),
        "ece": float(sum(gaps) / n),
        "parameters": parameters,
        "bytes": 4 * parameters + 420,
    }
    if teacher is not None:
        t = softmax(teacher)
        out["agreement"] = float((teacher.argmax(1) == logits.argmax(1)).mean())
        out["kl"] = float((t * (np.log(t) - np.log(p))).sum(1).mean())
    return out


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def known(logits, fit_logits, labels, fit_labels, digit):
    """How many rows of a class are known, before and after the constant that gives the most right answers on `fit`."""
    candidates = np.linspace(-3, 12, 301)
    shifted = [(fit_logits + bias * np.eye(10)[digit]).argmax(1) == fit_labels for bias in candidates]
    bias = float(candidates[np.argmax([right.sum() for right in shifted])])
    of_class = labels == digit
    return {
        "rows": int(of_class.sum()),
        "known": int((logits.argmax(1) == digit)[of_class].sum()),
        "known_with_bias": int(((logits + bias * np.eye(10)[digit]).argmax(1) == digit)[of_class].sum()),
        "bias": bias,
    }


def make(folder, seeds=(0, 1, 2), steps=600, omit=None, labeled=100):
    """Write a complete run of digits."""
    data = load_digits()
    order = np.random.default_rng(7).permutation(len(data.target))
    inputs, labels = data.data[order] / 16, data.target[order]
    fit, fit_labels, test, test_labels = inputs[:1200], labels[:1200], inputs[1200:], labels[1200:]
    generator = np.random.default_rng(1)
    teacher = Net.of(generator, 128)
    for _ in range(500):
        rows = generator.integers(0, 1200, 64)
        teacher.step(fit[rows], lambda z, y=fit_labels[rows]: (softmax(z) - np.eye(10)[y]) / 64, 2e-3)
    kept = np.arange(1200) if omit is None else np.flatnonzero(fit_labels != omit)
    has_label = kept[:labeled]
    answers = teacher(test)
    write_arm(folder / "teacher", answers, test_labels, 64 * 128 + 128 + 1290, {}, [], latency=0.21)
    for seed in seeds:
        for arm in ("student", "baseline"):
            net, logs = train(arm, seed, steps, teacher, fit, fit_labels, kept, has_label, test, test_labels)
            extra = (
                {}
                if omit is None
                else {"omitted": {str(omit): known(net(test), net(fit), test_labels, fit_labels, omit)}}
            )
            write_arm(folder / f"seed-{seed}" / arm, net(test), test_labels, 1210, extra, logs, answers, latency=0.06)
    record = {
        "status": "complete",
        "recipe": "digits-few-labels" if omit is None else "digits-omitted-class",
        "seeds": list(seeds),
        "arms": ["student", "baseline"],
        "classes": [str(digit) for digit in range(10)],
        "kind": "image",
        "shape": [1, 8, 8],
        "rows": {"train": len(kept), "labelled": len(has_label), "fit": 1200, "test": 597},
        "omitted": [] if omit is None else [omit],
        "created": "2026-01-02T03:04:05",
        "seconds": 41.5,
    }
    write(folder / "run.json", record)
    write(
        folder / "environment.json",
        {
            "python": "3.11.2",
            "torch": "2.13.0",
            "transformers": "5.24.0",
            "tutelage": "0.1.0",
            "threads": 2,
            "device": "cpu",
        },
    )
    (folder / "recipe.resolved.yaml").write_text(RECIPE, encoding="utf-8")
    images = test.reshape(-1, 1, 8, 8).astype(np.float32)
    save_file({"inputs": images, "labels": test_labels.astype(np.int64)}, folder / "test.safetensors")
    return folder


def train(arm, seed, steps, teacher, fit, fit_labels, kept, has_label, test, test_labels):
    generator = np.random.default_rng(seed)
    net, logs, temperature, window = Net.of(generator, 16), [], 2.0, []
    labelled = np.isin(np.arange(len(fit)), has_label)
    for step in range(1, steps + 1):
        rows = generator.choice(kept if arm == "student" else has_label, 64)
        target = np.eye(10)[fit_labels[rows]]
        soft = softmax(teacher(fit[rows]) / temperature)
        use = labelled[rows][:, None] / max(1, labelled[rows].sum())
        parts = {}

        def gradient(z, soft=soft, target=target, use=use, parts=parts):
            q = softmax(z)
            parts["hard"] = float(-(use * target * np.log(q)).sum())
            if arm == "baseline":
                return use * (q - target)
            q_soft = softmax(z / temperature)
            parts["soft"] = float((soft * (np.log(soft) - np.log(q_soft))).sum(1).mean())
            return 0.9 * temperature * (q_soft - soft) / 64 + 0.1 * use * (q - target)

        net.step(fit[rows], gradient, 1e-2 * (1 - (step - 1) / steps))
        window.append(parts)
        if step % 5 == 0:
            means = {name: float(np.mean([part[name] for part in window])) for name in sorted(parts, reverse=True)}
            loss = means["hard"] if arm == "baseline" else 3.6 * means["soft"] + 0.1 * means["hard"]
            logs.append(
                {"step": step, "epoch": step / 19, "loss": loss, **means, "grad_norm": 1.0, "learning_rate": 0.01}
            )
            window = []
        if step % (steps // 20) == 0:
            now = scores(net(test), test_labels, 1210, teacher(test))
            logs.append({"step": step, **{f"eval_{key}": now[key] for key in ("accuracy", "agreement", "kl")}})
    return net, logs


def write_arm(place, logits, labels, parameters, extra, logs, teacher=None, latency=0.1):
    write(place / "scores.json", scores(logits, labels, parameters, teacher) | extra)
    write(place / "timing.json", {"latency_ms": {"1": latency / 2, "256": latency * 4}, "train_seconds": 3.4})
    save_file(
        {"logits": logits.astype(np.float32), "labels": labels.astype(np.int64)}, place / "evaluation.safetensors"
    )
    if logs:
        (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in logs), encoding="utf-8")
