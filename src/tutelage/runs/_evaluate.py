"""The networks of a finished run, scored anew on the rows that its recipe holds out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutelage.config import load
from tutelage.config.build import data_of
from tutelage.errors import DataError, RunFolderError
from tutelage.models import load_model, parameter_count
from tutelage.run_folder import ArmFolder, RunFolder, read_json
from tutelage.runs._networks import predict, score, threads_for, with_threads
from tutelage.runs._record import write_scores


def evaluate(folder: str | Path) -> dict[str, Any]:
    """Load the networks of a run, score them, write the evaluation files anew, and return the scores over all seeds.

    Errors: `RunFolderError` for a folder without a trained network, `DataError` if the data is not what it was,
    `DamagedDataError`.
    """
    run_folder = RunFolder.open(folder)
    known = read_json(run_folder.record, keys=("seeds", "arms", "data"))
    arms = [run_folder.arm(seed, arm) for seed in known["seeds"] for arm in known["arms"]]
    done = [arm for arm in arms if arm.done]
    if not done:
        raise RunFolderError(f"no network in {folder} is trained to its end; resume the run first")
    data = data_of(load(run_folder.recipe))
    if data.digest(of_all=True) != known["data"]:
        raise DataError(f"the data changed since the run in {folder}; expected the same rows and labels")
    networks = {arm: load_model(arm.model) for arm in done}
    teacher = load_model(run_folder.teacher.model) if run_folder.teacher.done else None
    every = [*networks.values(), *([] if teacher is None else [teacher])]
    with with_threads(threads_for(map(parameter_count, every), "cpu")):
        answers = None if teacher is None else predict(teacher, data.test)
        if teacher is not None:
            score(teacher, data, run_folder.teacher, _seconds(run_folder.teacher), None)
        for arm, network in networks.items():
            score(network, data, arm, _seconds(arm), answers)
    return write_scores(run_folder)


def _seconds(arm: ArmFolder) -> float:
    return float(read_json(arm.timing).get("train_seconds", 0.0)) if arm.timing.is_file() else 0.0
