"""The networks of a finished run, scored anew on the rows that its recipe holds out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutelage.config import load
from tutelage.errors import DataError, RunFolderError
from tutelage.models import parameter_count
from tutelage.run_folder import ArmFolder, RunFolder, read_json
from tutelage.runs._networks import threads_for, with_threads
from tutelage.runs._notes import without_bars
from tutelage.runs._record import write_scores
from tutelage.runs._subject import subject_of


@without_bars()
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
    subject = subject_of(load(run_folder.recipe))
    if subject.digest(of_all=True) != known["data"]:
        raise DataError(f"the data changed since the run in {folder}; expected the same rows and labels")
    networks = {arm: subject.load(arm.model) for arm in done}
    teacher = None
    if run_folder.teacher.done:
        saved = subject.is_saved(run_folder.teacher.model)
        teacher = subject.load(run_folder.teacher.model) if saved else subject.network("teacher", 0)
    every = [*networks.values(), *([] if teacher is None else [teacher])]
    with with_threads(threads_for(map(parameter_count, every), "cpu")):
        answers = None if teacher is None else subject.answers(teacher)
        if teacher is not None:
            subject.score(teacher, run_folder.teacher, _seconds(run_folder.teacher), None)
        for arm, network in networks.items():
            subject.score(network, arm, _seconds(arm), answers)
    return write_scores(run_folder, subject.measure)


def _seconds(arm: ArmFolder) -> float:
    return float(read_json(arm.timing).get("train_seconds", 0.0)) if arm.timing.is_file() else 0.0
