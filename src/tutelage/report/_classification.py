"""Reports of classifiers: errors, calibration, classes that were left out, and who answers what on the test rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from tutelage.errors import DamagedDataError
from tutelage.report import _answers, _bars, _tables
from tutelage.report._contents import Answers, Arm, Run
from tutelage.report._files import Reader
from tutelage.report._measures import Spread
from tutelage.report._reliability import calibration
from tutelage.report._style import Picture
from tutelage.report._task import Section, Task, Watched
from tutelage.report._words import (
    Headline,
    Metric,
    left_out_classes,
    of_arms,
    shares_known,
    shown,
    whole_percent,
)
from tutelage.run_folder import BASELINE, STUDENT, ArmFolder, RunFolder, read_arrays, read_json
from tutelage.wording import counted

ERRORS = Metric("errors", "Errors on the test rows", "Fewer is better.", digits=1)
METRICS = (
    ERRORS,
    Metric("accuracy", "Accuracy", "Higher is better.", percent=True),
    Metric("nll", "Cross-entropy, nats", "Of the true class; lower is better."),
    Metric("brier", "Brier score", "Squared error of the probabilities; lower is better."),
    Metric("ece", "Calibration error (ECE)", "How far confidence is from the share that is right.", percent=True),
    Metric("agreement", "Same answer as the teacher", "Higher is better.", percent=True),
    Metric("kl", "KL(teacher ‖ network), nats", "0 where the probabilities are equal."),
)


class Classification(Task):
    """Rows with one class each."""

    scores = ("rows", "errors", "accuracy", "nll", "brier", "ece", "parameters", "bytes")
    metrics = METRICS
    gap = ERRORS
    small = tuple(metric for metric in METRICS if metric.key in ("nll", "brier", "ece"))
    watched = (
        Watched("accuracy", "Accuracy", "On the test rows", percent=True),
        Watched("agreement", "Same answer as the teacher", "Share of the test rows", percent=True),
        Watched("kl", "KL(teacher ‖ network), nats", "0 where both give the same probabilities"),
    )
    rows: ClassVar = {"train": "training", "labelled": "of them labelled", "fit": "for the teacher", "test": "test"}
    template = "classification.html.jinja"
    styles = ("page.css",)
    verb = "makes"
    better = "The student makes fewer errors than its teacher"
    answered = "test rows answered"

    def answers(self, folder: RunFolder, record: Reader, arms: Sequence[Arm]) -> Answers:
        """Read the evaluations; all arms must answer the same rows."""
        classes = record.texts("classes")
        logits: dict[Arm, np.ndarray] = {}
        labels: list[tuple[Path, np.ndarray]] = []
        for arm in arms:
            place = folder.teacher if arm.seed is None else folder.arm(arm.seed, arm.name)
            logits[arm], its_labels = _evaluation(place, len(classes))
            labels.append((place.evaluation, its_labels))
        for file, its_labels in labels:
            if not np.array_equal(its_labels, labels[0][1]):
                raise DamagedDataError(
                    f"{file} has other labels than {labels[0][0]}; all arms answer the same test rows"
                )
        return Answers(
            kind=record.text("kind"),
            classes=classes,
            features=record.texts("features") if record.value.get("features") else (),
            labels=labels[0][1] if labels else np.zeros(0, dtype=np.int64),
            inputs=_inputs(folder.test, labels[0][1]) if labels else None,
            logits=logits,
            texts=_texts(folder.test_texts, len(labels[0][1])) if labels else None,
        )

    def tested(self, run: Run) -> str:
        """Return the number of test rows."""
        assert run.answers is not None
        return counted(len(run.answers.labels), "test row")

    def amount(self, spread: Spread) -> str:
        """Return a number of errors."""
        mean = shown(spread.mean, digits=1)
        return f"{mean} error{'' if mean == '1' else 's'}"

    def alone(self, run: Run) -> str:
        """Return the accuracy of the student."""
        accuracy = of_arms(run, STUDENT, "accuracy")
        assert accuracy is not None
        return f"The student is right on {shown(accuracy.mean, percent=True)} of the test rows"

    def labels(self, run: Run) -> str:
        """Return the number of labels, where the run tells it."""
        return counted(run.rows["labelled"], "label") if "labelled" in run.rows else "labels"

    def remark(self, run: Run) -> Headline | None:
        """Return what the student knows of a class that it never saw."""
        found = (_left_out(run, key) for key in left_out_classes(run))
        return next((headline for headline in found if headline is not None), None)

    def hero(self, run: Run) -> Picture | None:
        """Return the bars of the errors."""
        return _bars.scores(run, ERRORS, gap=True)

    def facts(self, run: Run) -> list[tuple[str, str]]:
        """Return the classes."""
        assert run.answers is not None
        classes = run.answers.classes
        return [("Classes", f"{len(classes)}: {', '.join(classes[:12])}{', …' if len(classes) > 12 else ''}")]

    def section(self, run: Run, folder: Path) -> Section:
        """Return confusion, examples, calibration, and the classes that were left out."""
        values = {
            "counts": _answers.counts(run),
            "examples": _answers.examples(run, folder),
            "known": _tables.known(run),
        }
        one = {"omitted": _bars.left_out(run), "matrix": _answers.matrix(run)}
        pictures = {name: [] if picture is None else [picture] for name, picture in one.items()}
        return Section(values, {**pictures, "calibration": calibration(run)})


def _evaluation(place: ArmFolder, classes: int) -> tuple[np.ndarray, np.ndarray]:
    arrays = read_arrays(place.evaluation, ("logits", "labels"))
    logits, labels = arrays["logits"], arrays["labels"]
    if logits.ndim != 2 or logits.shape[1] != classes or labels.shape != logits.shape[:1] or not len(labels):
        raise DamagedDataError(
            f"{place.evaluation} has logits {logits.shape} and labels {labels.shape}; "
            f"expected (rows, {classes}) and (rows,), as run.json names {classes} classes"
        )
    if not np.isfinite(logits).all():
        raise DamagedDataError(f"{place.evaluation} has logits that are NaN or infinite; evaluate the run again")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
        raise DamagedDataError(f"{place.evaluation} has labels outside 0 to {classes - 1}; evaluate the run again")
    return logits.astype(np.float64), labels.astype(np.int64)


def _inputs(file: Path, labels: np.ndarray) -> np.ndarray | None:
    if not file.is_file():
        return None
    arrays = read_arrays(file, ("inputs", "labels"))
    if len(arrays["inputs"]) != len(labels) or not np.array_equal(arrays["labels"], labels):
        raise DamagedDataError(
            f"{file} has {len(arrays['inputs'])} rows; expected the {len(labels)} that were evaluated, in their order"
        )
    return arrays["inputs"].astype(np.float64)


def _texts(file: Path, count: int) -> tuple[str, ...] | None:
    if not file.is_file():
        return None
    texts = Reader(file, read_json(file, ("texts",))).texts("texts")
    if len(texts) != count:
        raise DamagedDataError(f"{file} has {len(texts)} texts; expected the {count} that were evaluated")
    return texts


def _left_out(run: Run, key: str) -> Headline | None:
    student, baseline = shares_known(run, STUDENT, key), shares_known(run, BASELINE, key)
    if student is None:
        return None
    as_it_is, with_bias = (whole_percent(share) for share in student)
    title = f"The student never saw a “{key}”, and knows {as_it_is} of them, {with_bias} with its bias set"
    text = ""
    if baseline is not None:
        text = f"Without the teacher it knows {whole_percent(baseline[0])} and {whole_percent(baseline[1])}."
    return Headline(title, text)
