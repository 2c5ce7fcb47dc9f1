"""The life of a run: its folder, the teacher, then student and baseline of each seed; stopped, resumed, finished."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from torch import Tensor, nn

from tutelage.config import Recipe, dump, load
from tutelage.config.build import collator_of, network_of, objective_of, training_arguments
from tutelage.errors import DataError, RunFolderError
from tutelage.models import load_model, save_model
from tutelage.run_folder import (
    BASELINE,
    COMPLETE,
    FAILED,
    INTERRUPTED,
    RUNNING,
    TEACHER,
    RunFolder,
    read_json,
    write_json,
    write_text,
)
from tutelage.runs._events import ArmDone, Event, Finished, Interrupted, Note, RunSummary, Started
from tutelage.runs._networks import predict, score, with_threads
from tutelage.runs._plan import Plan, prepare
from tutelage.runs._record import environment, record, update, write_scores, write_test_rows
from tutelage.runs._teacher import teacher_of
from tutelage.runs._training import Lesson, OnEvent, Stopped, train

_LOCK = ".lock"


def run(
    recipe: Recipe | None,
    folder: str | Path,
    *,
    name: str = "recipe",
    resume: bool = False,
    on_event: OnEvent | None = None,
) -> RunSummary:
    """Carry a recipe out in a folder of its own.

    recipe: None where a run is resumed: the recipe in its folder decides. folder: new or empty, or, with resume, that
    of a run that was stopped; what is done there is kept, and what is not goes on from its last checkpoint to the same
    bytes. name: the recipe's, for the report. on_event: called with each `Event`. After Ctrl-C all is saved, and the
    status is "interrupted".

    Errors: `RunFolderError` for a folder that is in use, `RecipeError`, `DataError` and others before anything is
    written.
    """
    tell: OnEvent = _silent if on_event is None else on_event
    place = Path(folder)
    plan = _resumed(place, tell) if resume else _new(recipe, place, name)
    with _alone(place), with_threads(plan.threads):
        return _carry_out(plan, RunFolder(place), tell)


# --- the folder -------------------------------------------------------------------------------------------------------


def _new(recipe: Recipe | None, place: Path, name: str) -> Plan:
    if recipe is None:
        raise RunFolderError("there is no recipe to run; give one, or a folder to resume")
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise RunFolderError(
            f"{place} is there already and not empty; a run never writes over another: choose a new folder, or resume "
            "the run in it"
        )
    plan = prepare(recipe, place, name)
    was_there = place.exists()
    try:
        place.mkdir(parents=True, exist_ok=True)
        run_folder = RunFolder(place)
        write_text(run_folder.recipe, dump(recipe))
        write_json(run_folder.environment, environment(plan))
        write_test_rows(plan, run_folder)
        write_json(run_folder.record, record(plan))
    except OSError as error:
        _undo(place, keep_folder=was_there)
        raise RunFolderError(f"{place} cannot be written ({error}); choose another folder") from error
    except BaseException:
        _undo(place, keep_folder=was_there)
        raise
    return plan


def _undo(place: Path, *, keep_folder: bool) -> None:
    """Remove what a failed start left in a folder that was new or empty."""
    if not keep_folder:
        shutil.rmtree(place, ignore_errors=True)
        return
    for entry in place.iterdir():
        entry.unlink()


def _resumed(place: Path, tell: OnEvent) -> Plan:
    run_folder = RunFolder.open(place)
    known = read_json(run_folder.record, keys=("recipe", "data", "seconds"))
    plan = prepare(load(run_folder.recipe), place, str(known["recipe"]))
    if plan.data.digest(of_all=True) != known["data"]:
        raise DataError(
            f"the data changed since the run in {place} was started; expected the same rows and labels: start a new run"
        )
    before, now = read_json(run_folder.environment), environment(plan)
    changed = [f"{key} {before.get(key)} -> {value}" for key, value in now.items() if before.get(key) != value]
    if changed:
        tell(Note(f"not as when the run was started, so its numbers may differ: {', '.join(changed)}"))
    return plan


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    lock = FileLock(place / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunFolderError(f"another process trains in {place}; wait for it, or stop it") from error
    try:
        yield
    finally:
        lock.release()
        (place / _LOCK).unlink(missing_ok=True)


# --- the work ---------------------------------------------------------------------------------------------------------


def _carry_out(plan: Plan, folder: RunFolder, tell: OnEvent) -> RunSummary:
    start = time.perf_counter()
    before = float(update(folder, {"status": RUNNING})["seconds"])

    def end(status: str) -> float:
        seconds = before + time.perf_counter() - start
        update(folder, {"status": status, "seconds": seconds})
        return seconds

    tell(Started(plan))
    try:
        _train_all(plan, folder, tell)
        scores = write_scores(folder)
    except Stopped:
        summary = RunSummary(folder.path, INTERRUPTED, {}, end(INTERRUPTED))
        tell(Interrupted(folder.path))
        return summary
    except KeyboardInterrupt:
        end(INTERRUPTED)
        raise
    except BaseException:
        end(FAILED)
        raise
    summary = RunSummary(folder.path, COMPLETE, scores, end(COMPLETE))
    tell(Finished(summary))
    return summary


def _train_all(plan: Plan, folder: RunFolder, tell: OnEvent) -> None:
    teacher: nn.Module | None = None
    answers: Tensor | None = None
    if plan.recipe.teacher is not None:
        teacher, seconds, stop = teacher_of(plan, folder, tell)
        answers = predict(teacher, plan.data.test)
        if folder.teacher.done:
            tell(ArmDone(None, TEACHER, read_json(folder.teacher.scores), reused=True))
        else:
            tell(ArmDone(None, TEACHER, score(teacher, plan.data, folder.teacher, seconds, None)))
        _stop_if(stop)
    for seed in plan.seeds:
        for arm in plan.arms:
            _train_arm(plan, folder, seed, arm, teacher, answers, tell)


def _train_arm(
    plan: Plan,
    folder: RunFolder,
    seed: int,
    arm: str,
    teacher: nn.Module | None,
    answers: Tensor | None,
    tell: OnEvent,
) -> None:
    mine = folder.arm(seed, arm)
    if mine.done:
        tell(ArmDone(seed, arm, read_json(mine.scores), reused=True))
        return
    mine.path.mkdir(parents=True, exist_ok=True)
    network, architecture = network_of(plan.recipe.student, "student", plan.data, seed)
    lesson = Lesson(
        seed=seed,
        arm=arm,
        network=network,
        teacher=teacher,
        objective=objective_of(plan.recipe, arm),
        rows=plan.data.labelled if arm == BASELINE else plan.data.train,
        held_out=plan.data.test,
        collator=collator_of(plan.recipe, arm, seed),
        arguments=training_arguments(plan.recipe, plan.steps[arm], mine.checkpoints, seed),
        folder=mine,
    )
    seconds, stop = train(lesson, tell)
    save_model(network, architecture, mine.model, shape=plan.data.shape, classes=plan.data.classes)
    # Scored as it will be loaded: on the CPU or a GPU, the file is what counts.
    scores = score(load_model(mine.model).to(next(network.parameters()).device), plan.data, mine, seconds, answers)
    tell(ArmDone(seed, arm, scores))
    _stop_if(stop)


def _stop_if(stop: bool) -> None:
    """Stop between two networks where Ctrl-C came at the last step of one."""
    if stop:
        raise Stopped


def _silent(event: Event) -> None:
    del event
