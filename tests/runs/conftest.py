"""A recipe that is run in a second: three clouds of points, networks of a few weights, a dozen steps."""

import csv
import hashlib
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from tutelage.config import load

RECIPE = """
data: {table: clouds.csv, target: kind, labeled: 15}
teacher: {mlp: {hidden: [12], dropout: 0.1}, fit: {epochs: 4, batch_size: 16, learning_rate: 0.01}}
student: {mlp: {hidden: [4], dropout: 0.2}}
objective:
  soft: {forward_kl: {}, temperature: 2, weight: 0.9}
  hard: {forward_kl: {}, teacher: labels, weight: 0.1}
training:
  {steps: 11, batch_size: 8, learning_rate: 0.01, seeds: 2, mix: 0.5, evaluations: 3, checkpoints: 2, device: cpu}
baseline: true
"""


@pytest.fixture(scope="session")
def clouds(tmp_path_factory):
    """Return the file of a recipe, its table beside it."""
    folder = tmp_path_factory.mktemp("clouds")
    random = np.random.default_rng(5)
    centres = {"a": (0, 0, 0), "b": (2, 0, 1), "c": (0, 2, -1)}
    rows = [[*random.normal(centre), kind] for kind, centre in centres.items() for _ in range(40)]
    with (folder / "clouds.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["x", "y", "z", "kind"], *rows])
    (folder / "clouds.yaml").write_text(RECIPE)
    return folder / "clouds.yaml"


@pytest.fixture
def recipe(clouds):
    return load(clouds)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """An empty cache of teachers for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TUTELAGE_CACHE", str(folder))
    return folder


# What the clock, the place or the cache make differ, and the checksums of that.
UNEQUAL = {"timing.json", "latency.json", "run.json", "recipe.resolved.yaml", "manifest.json"}


@pytest.fixture
def digests():
    """Return a function from a run's folder to {path: sha256} of all files that must be the same in an equal run."""

    def of(folder):
        files = (file for file in sorted(folder.rglob("*")) if file.is_file() and "checkpoints" not in file.parts)
        return {
            str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in files
            if file.name not in UNEQUAL
        }

    return of


ONE_AFTER_THE_OTHER = """
import json, sys
from tutelage.cli import main
sys.exit(max(main(["train", *words]) for words in json.loads(sys.argv[1])))
"""


@pytest.fixture(scope="session")
def launched():
    """Return a function that trains in some processes, one run after the other: for each ((stdout, stderr), exit code).

    Of ten seconds of a short run the imports take six.
    """

    def of(processes, runs, environment):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        running = [
            subprocess.Popen(
                [sys.executable, "-c", ONE_AFTER_THE_OTHER, json.dumps(runs)],
                env={**os.environ, **environment, **common, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in map(str, range(processes))
        ]
        return [(process.communicate(timeout=200), process.returncode) for process in running]

    return of
