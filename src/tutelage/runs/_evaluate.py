"""The networks of a finished run, scored again on the rows that its recipe holds out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from tutelage.config import load
from tutelage.errors import DataError, RunFolderError
from tutelage.models import parameter_count
from tutelage.records import check_arm, check_done, check_run, finish_arm, read_record
from tutelage.run_folder import ArmFolder, RunFolder, read_json
from tutelage.runs._claim import claimed
from tutelage.runs._measured import Measured
from tutelage.runs._networks import threads_for, with_threads
from tutelage.runs._notes import without_bars
from tutelage.runs._record import arms_of, scores_over_seeds, update, write_scores
from tutelage.runs._subject import Subject, subject_of


@without_bars()
def evaluate(folder: str | Path) -> dict[str, Any]:
    """Load the networks of a run, score them again, and return these scores over all seeds.

    Nothing that was recorded is written again. Evaluations and scores that were removed are, if what is measured agrees
    with the scores that each network was given when it was done.

    Errors: `RunFolderError` for a folder without a trained network or in which another process works, `DataError` if
    the data is not what it was, `DamagedDataError` for a file that is not what was written.
    """
    run_folder = RunFolder.open(folder)
    with claimed(run_folder.path):
        return _evaluate(run_folder)


def _evaluate(folder: RunFolder) -> dict[str, Any]:
    known = read_record(folder, keys=("seeds", "arms", "data"))
    check_run(folder, known, without=(folder.scores, folder.text, folder.latency))
    check_done(folder, known)
    done = [arm for arm in (folder.teacher, *arms_of(folder, known)) if arm.done]
    if not any(arm != folder.teacher for arm in done):
        raise RunFolderError(f"no network in {folder.path} is trained to its end; resume the run first")
    for arm in done:
        check_arm(folder, arm, known, without=(arm.evaluation, arm.timing))
    subject = subject_of(load(folder.recipe))
    if subject.digest(of_all=True) != known["data"]:
        raise DataError(f"the data changed since the run in {folder.path}; expected the same rows and labels")
    networks = {arm: _network(subject, folder, arm) for arm in done}
    with with_threads(threads_for(map(parameter_count, networks.values()), "cpu")):
        answers = subject.answers(networks[folder.teacher]) if folder.teacher in networks else None
        measured = {
            arm: subject.score(network, arm, None if arm == folder.teacher else answers)
            for arm, network in networks.items()
        }
    recorded = {arm: read_json(arm.scores) for arm in done}
    if all(found.agrees_with(recorded[arm], subject.measure) for arm, found in measured.items()):
        _write_missing(folder, subject, measured, recorded, networks.get(folder.teacher))
    scores = {arm: found.scores for arm, found in measured.items()}
    return scores_over_seeds(folder, known, scores, subject.measure)


def _network(subject: Subject, folder: RunFolder, arm: ArmFolder) -> nn.Module:
    """Return a network of a run; a teacher that was not copied into it comes from where the recipe says."""
    if arm == folder.teacher and not subject.is_saved(arm.model):
        return subject.network("teacher", 0)
    return subject.load(arm.model)


def _write_missing(
    folder: RunFolder,
    subject: Subject,
    measured: dict[ArmFolder, Measured],
    recorded: dict[ArmFolder, dict[str, Any]],
    teacher: nn.Module | None,
) -> None:
    for arm, found in measured.items():
        if found.logits is not None and not arm.evaluation.exists():
            found.write_answers(arm)
            finish_arm(arm, recorded[arm])
    if not folder.scores.exists():
        write_scores(folder, subject.measure)
        subject.finish(folder, teacher)
        update(folder, {}, (folder.scores, folder.text))
