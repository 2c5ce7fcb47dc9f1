"""Where the teacher of a run comes from: its weights, the cache, or a fit on all labels that the cache then keeps."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from filelock import FileLock, Timeout
from torch import nn

import tutelage
from tutelage import manifest
from tutelage.config import FitSpec, SavedModel
from tutelage.config.build import fit_arguments, labels_alone
from tutelage.errors import DamagedDataError
from tutelage.objective import Objective
from tutelage.run_folder import TEACHER, RunFolder
from tutelage.runs import _ranks
from tutelage.runs._cache import keep, kept, place_of
from tutelage.runs._claim import owner_of, sign
from tutelage.runs._events import Event, Note, TeacherFitted, TeacherReused
from tutelage.runs._plan import Plan
from tutelage.runs._training import Lesson, OnEvent, train


def teacher_of(plan: Plan, folder: RunFolder, on_event: OnEvent) -> tuple[nn.Module, float, int | None]:
    """Return the teacher, its model in the run's folder; how long it was fitted; the signal by which to stop now."""
    spec, mine, subject = plan.recipe.teacher, folder.teacher, plan.subject
    assert spec is not None, plan.recipe
    if _ranks.agreed(subject.is_saved(mine.model)):
        on_event(TeacherReused("run", mine.model))
        return subject.load(mine.model), 0.0, None
    _ranks.together(lambda: mine.path.mkdir(exist_ok=True))
    if spec.fit is None:
        network = subject.network("teacher", 0)
        if subject.copies_teacher():
            _ranks.together(lambda: subject.save(network, "teacher", mine.model))
        source = spec.model if isinstance(spec, SavedModel) else spec.weights
        on_event(TeacherReused("weights", mine.model if source is None else Path(source)))
        return network, 0.0, None
    start = subject.network("teacher", spec.fit.seed)
    made_from = _made_from(plan, spec.fit, start)
    place = place_of(made_from)

    def reuse(tell: OnEvent) -> bool:
        found = _found(plan, place, tell)
        if found is not None:
            subject.save(found, "teacher", mine.model)
        return found is not None

    # Without the lock: a cache that can only be read has no place for it.
    reused = _ranks.together(lambda: reuse(_silent))
    with contextlib.ExitStack() as stack:
        can_keep = False
        if not reused:
            can_keep = stack.enter_context(_locked(place, on_event))
            # Whoever had the lock may have fitted it.
            reused = _ranks.together(lambda: can_keep and reuse(on_event))
        if not reused:
            network, seconds, stop = _fit(plan, spec.fit, start, folder, on_event)
            if can_keep and _ranks.is_first():
                can_keep = _kept(mine.model, place, made_from, on_event)
            on_event(TeacherFitted(seconds, place if can_keep else None))
            return network, seconds, stop
    on_event(TeacherReused("cache", place))
    return subject.load(mine.model), 0.0, None


def _fit(
    plan: Plan, fit: FitSpec, network: nn.Module, folder: RunFolder, on_event: OnEvent
) -> tuple[nn.Module, float, int | None]:
    subject, mine = plan.subject, folder.teacher
    lesson = Lesson(
        seed=None,
        arm=TEACHER,
        network=network,
        teacher=None,
        objective=Objective(labels_alone()),
        rows=subject.fit,
        held_out=None,
        collator=subject.collator(TEACHER, fit.seed, network),
        watching=None,
        arguments=fit_arguments(plan.recipe, fit, plan.steps[TEACHER], mine.checkpoints),
        folder=mine,
        task=subject.task,
        vocabulary=None,
    )
    seconds, stop = train(lesson, on_event)

    def finish() -> None:
        subject.save(network, "teacher", mine.model)
        manifest.retire(mine.checkpoints)

    _ranks.together(finish)
    return network, seconds, stop


def _made_from(plan: Plan, fit: FitSpec, start: nn.Module) -> dict[str, Any]:
    """Return everything that the bytes of a fitted teacher depend on."""
    spec = plan.recipe.teacher
    assert spec is not None
    made_from = {
        "model": spec.model_dump(mode="json", exclude={"fit", "weights"}),
        "fit": fit.model_dump(mode="json"),
        "data": plan.subject.digest(),
        "device": plan.device,
        "threads": plan.threads,
        "versions": [tutelage.__version__, torch.__version__, transformers.__version__],
    }
    if isinstance(spec, SavedModel):
        # What a folder holds, or a branch of a repository, may change behind its name.
        made_from["start"] = _digest(start)
    return made_from


def _digest(network: nn.Module) -> str:
    """Return the sha256 of a network's weights."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _silent(event: Event) -> None:
    del event


def _found(plan: Plan, place: Path, on_event: OnEvent) -> nn.Module | None:
    try:
        return kept(place, plan.subject.load)
    except DamagedDataError as error:
        on_event(Note(f"the teacher in the cache is damaged and is fitted again: {error}"))
        return None


def _kept(model: Path, place: Path, made_from: dict[str, Any], on_event: OnEvent) -> bool:
    try:
        keep(model, place, made_from)
    except OSError as error:
        on_event(Note(f"the teacher could not be kept for the next run: {error}"))
        return False
    return True


@contextlib.contextmanager
def _locked(place: Path, on_event: OnEvent) -> Iterator[bool]:
    """Hold the lock of a teacher in the cache; give whether there is a cache to write to."""
    if not _ranks.is_first():
        yield False
        return
    file = place.with_suffix(".lock")
    lock = FileLock(file)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_event(Note(f"another process{owner_of(file)} fits the same teacher; waiting for it to end ({file})"))
            lock.acquire()
    except OSError as error:
        on_event(Note(f"the cache cannot be used, so the teacher is fitted for this run alone: {error}"))
        yield False
        return
    sign(file)
    with contextlib.suppress(OSError):
        manifest.sweep(place.parent)
    try:
        yield True
    finally:
        lock.release()
