"""The life of a run: its folder, the teacher, then student and baseline of each seed; stopped, resumed, finished."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from tutelage import manifest
from tutelage.config import Recipe, dump, load
from tutelage.config.build import objective_of, training_arguments
from tutelage.errors import DataError, RunFolderError
from tutelage.records import check_arm, check_recipe, check_run, finish_arm, missing_files, read_record, write_record
from tutelage.run_folder import (
    BASELINE,
    COMPLETE,
    FAILED,
    INTERRUPTED,
    RUNNING,
    TEACHER,
    ArmFolder,
    RunFolder,
    read_json,
    write_json,
    write_text,
)
from tutelage.runs import _ranks
from tutelage.runs._claim import claimed
from tutelage.runs._events import ArmDone, Event, Finished, Interrupted, Note, RunSummary, Started
from tutelage.runs._latency import write_latency
from tutelage.runs._networks import with_threads
from tutelage.runs._notes import noted
from tutelage.runs._plan import Plan, prepare
from tutelage.runs._record import arms_of, environment, record, update, write_scores
from tutelage.runs._teacher import teacher_of
from tutelage.runs._training import WATCHING, Lesson, OnEvent, Stopped, train
from tutelage.signals import terminable


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
    bytes. name: the recipe's, for the report. on_event: called with each `Event`. After Ctrl-C or SIGTERM all is saved,
    and the status is "interrupted".

    Where a launcher started several processes, all of them call this; the first decides on the folder, writes and
    tells, and a batch is shared among them.

    Errors: `RunFolderError` for a folder that is in use, `RecipeError`, `DataError` and others before anything is
    written.
    """
    place = Path(folder)
    _ranks.join(_recipe_of(place) if recipe is None and resume else recipe)
    place = Path(_ranks.agreed(str(place)))
    tell: OnEvent = _silent if on_event is None or not _ranks.is_first() else on_event
    if recipe is None and not resume:
        raise RunFolderError("there is no recipe to run; give one, or a folder to resume")
    with terminable(), noted(tell), claimed(place, new=not resume):
        plan = _resumed(place, tell) if resume else _new(recipe, place, name)
        with with_threads(plan.threads):
            return _carry_out(plan, RunFolder(place), tell)


# --- the folder -------------------------------------------------------------------------------------------------------


def _new(recipe: Recipe | None, place: Path, name: str) -> Plan:
    assert recipe is not None, place
    plan = prepare(recipe, place, name)
    _ranks.together(lambda: _begin(plan, recipe, place))
    return plan


def _begin(plan: Plan, recipe: Recipe, place: Path) -> None:
    folder = RunFolder(place)
    try:
        write_text(folder.recipe, dump(recipe))
        write_json(folder.environment, environment(plan))
        plan.subject.write_test_rows(folder)
        # Last: with it, the folder is that of a run, and can be resumed.
        write_record(folder, record(plan), (folder.recipe, folder.environment, folder.test, folder.test_texts))
    except OSError as error:
        raise RunFolderError(f"{place} cannot be written ({error}); choose another folder") from error


def _recipe_of(place: Path) -> Recipe:
    """Return the recipe of a run, which is the one that it was started with."""
    folder = RunFolder.open(place)
    check_recipe(folder, read_record(folder))
    return load(folder.recipe)


def _resumed(place: Path, tell: OnEvent) -> Plan:
    folder = RunFolder(place)
    known = read_record(folder, keys=("recipe", "seeds", "arms", "data", "seconds"))
    made_again = (folder.environment, folder.test, folder.test_texts, folder.scores, folder.text, folder.latency)
    check_run(folder, known, without=made_again)
    _ranks.together(lambda: _make_again(folder, known, tell))
    plan = prepare(load(folder.recipe), place, str(known["recipe"]))
    if plan.subject.digest(of_all=True) != known["data"]:
        raise DataError(
            f"the data changed since the run in {place} was started; expected the same rows and labels: start a new run"
        )
    now = environment(plan)
    _ranks.together(lambda: _write_missing(folder, known, plan, now))
    before = read_json(folder.environment)
    changed = [f"{key} {before.get(key)} -> {value}" for key, value in now.items() if before.get(key) != value]
    if changed:
        tell(Note(f"not as when the run was started, so its numbers may differ: {', '.join(changed)}"))
    return plan


def _write_missing(folder: RunFolder, known: Mapping[str, Any], plan: Plan, now: Mapping[str, Any]) -> None:
    """Write files of the start of a run that were removed since."""
    if not folder.environment.exists():
        write_json(folder.environment, now)
    if any(file.name in known.get("files", {}) and not file.exists() for file in (folder.test, folder.test_texts)):
        plan.subject.write_test_rows(folder)


def _make_again(folder: RunFolder, known: Mapping[str, Any], tell: OnEvent) -> None:
    """Take networks for done only if all their files are there; one that was changed is an error."""
    for arm in (folder.teacher, *arms_of(folder, known)):
        if not arm.done:
            continue
        missing = missing_files(folder, arm, known)
        check_arm(folder, arm, known, without=missing)
        if missing:
            name = arm.path.relative_to(folder.path).as_posix()
            tell(Note(f"{name} is made again from what is left of it: {missing[0].relative_to(arm.path)} is missing"))
            if arm.model.exists() and any(path.is_relative_to(arm.model) for path in missing):
                manifest.retire(arm.model)
            arm.scores.unlink(missing_ok=True)


# --- the work ---------------------------------------------------------------------------------------------------------


def _carry_out(plan: Plan, folder: RunFolder, tell: OnEvent) -> RunSummary:
    start = time.perf_counter()
    # The scores of the run as a whole will be other files than those of an earlier session.
    later = (folder.scores, folder.text, folder.latency)
    before = float(_ranks.together(lambda: update(folder, {"status": RUNNING}, later, forget=True)["seconds"]))

    def end(status: str) -> float:
        seconds = before + time.perf_counter() - start
        if _ranks.is_first():
            update(folder, {"status": status, "seconds": seconds}, later if status == COMPLETE else ())
        return seconds

    tell(Started(plan))
    try:
        _train_all(plan, folder, tell)
        scores = _ranks.together(lambda: write_scores(folder, plan.subject.measure))
    except Stopped as stopped:
        summary = RunSummary(folder.path, INTERRUPTED, {}, end(INTERRUPTED), stopped.signal)
        tell(Interrupted(folder.path))
        return summary
    except KeyboardInterrupt:
        end(INTERRUPTED)
        raise
    except BaseException:
        # A full disk fails here, too, and is what is told.
        with contextlib.suppress(OSError):
            end(FAILED)
        raise
    summary = RunSummary(folder.path, COMPLETE, scores, end(COMPLETE))
    tell(Finished(summary))
    return summary


def _train_all(plan: Plan, folder: RunFolder, tell: OnEvent) -> None:
    teacher: nn.Module | None = None
    answers: Any = None
    if plan.recipe.teacher is not None:
        teacher, seconds, stop = teacher_of(plan, folder, tell)
        answers = plan.subject.answers(teacher) if _ranks.is_first() else None
        if _ranks.agreed(folder.teacher.done):
            tell(ArmDone(None, TEACHER, read_json(folder.teacher.scores), reused=True))
        else:
            tell(ArmDone(None, TEACHER, _scored(plan, teacher, folder.teacher, seconds, None)))
        _stop_if(stop)
    for seed in plan.seeds:
        for arm in plan.arms:
            _train_arm(plan, folder, seed, arm, teacher, answers, tell)
    _ranks.together(lambda: write_latency(plan.subject, folder, teacher, plan.device))
    _ranks.together(lambda: plan.subject.finish(folder, teacher))


def _train_arm(
    plan: Plan,
    folder: RunFolder,
    seed: int,
    arm: str,
    teacher: nn.Module | None,
    answers: Any,
    tell: OnEvent,
) -> None:
    mine, subject = folder.arm(seed, arm), plan.subject
    if _ranks.agreed(mine.done):
        tell(ArmDone(seed, arm, read_json(mine.scores), reused=True))
        return
    _ranks.together(lambda: mine.path.mkdir(parents=True, exist_ok=True))
    network = subject.network("student", seed)
    lesson = Lesson(
        seed=seed,
        arm=arm,
        network=network,
        teacher=teacher,
        objective=objective_of(plan.recipe, arm),
        rows=subject.labelled if arm == BASELINE else subject.train,
        held_out=subject.watched,
        collator=subject.collator(arm, seed, network, teacher),
        watching=subject.collator(arm, WATCHING, network, teacher),
        arguments=training_arguments(plan.recipe, plan.steps[arm], mine.checkpoints, seed),
        folder=mine,
        task=subject.task,
        vocabulary=subject.vocabulary(network, teacher),
    )
    seconds, stop = train(lesson, tell)
    _ranks.together(lambda: subject.save(network, "student", mine.model))
    # Scored as it will be loaded: on the CPU or a GPU, the file is what counts.
    scored = subject.load(mine.model).to(next(network.parameters()).device)
    tell(ArmDone(seed, arm, _scored(plan, scored, mine, seconds, answers)))
    _stop_if(stop)


def _scored(plan: Plan, network: nn.Module, folder: ArmFolder, seconds: float, answers: Any) -> dict[str, Any]:
    def work() -> dict[str, Any]:
        measured = plan.subject.score(network, folder, answers)
        measured.write(folder, seconds)
        finish_arm(folder, measured.scores)
        return measured.scores

    scores: dict[str, Any] = _ranks.together(work)
    return scores


def _stop_if(signum: int | None) -> None:
    """Stop between two networks where a signal came at the last step of one."""
    if signum is not None:
        raise Stopped(signum)


def _silent(event: Event) -> None:
    del event
