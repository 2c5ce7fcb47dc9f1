"""Where student and teacher answer differently: the matrix of their answers, and the rows on which they differ most."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import imsave
from matplotlib.patches import Rectangle

from tutelage.report._contents import Answers, Run
from tutelage.report._measures import confusion, kl, log_softmax
from tutelage.report._style import LIGHT, WIDE, Picture, data_uri, figure
from tutelage.report._words import whole_percent
from tutelage.run_folder import STUDENT, write_whole
from tutelage.wording import counted

_MATRIX = 16
"""Classes that a matrix on a page can hold and still be read."""
_EXAMPLES = 12
_COLUMNS = 6
"""Features of a table's row that are shown."""


@dataclass(frozen=True)
class Counts:
    """Of how many test rows who is right: means over the seeds."""

    both: float
    teacher: float
    student: float
    neither: float


def counts(run: Run) -> Counts | None:
    """Return who is right, or None without teacher or student."""
    students, answers = run.of(STUDENT), run.answers
    if run.teacher is None or not students or answers is None:
        return None
    told = answers.logits[run.teacher].argmax(axis=1) == answers.labels
    right = np.stack([answers.logits[arm].argmax(axis=1) == answers.labels for arm in students])
    rows = [(right & told), (~right & told), (right & ~told), (~right & ~told)]
    return Counts(*(float(row.sum(axis=1).mean()) for row in rows))


def matrix(run: Run) -> Picture | None:
    """Return the confusion of teacher and student, over all seeds; of many classes those that differ most often."""
    students, answers = run.of(STUDENT), run.answers
    if run.teacher is None or not students or answers is None:
        return None
    cells = confusion(answers.logits[run.teacher], [answers.logits[arm] for arm in students])
    off = cells - np.diag(np.diag(cells))
    shown = np.arange(len(cells))
    if len(cells) > _MATRIX:
        shown = np.sort(np.argsort(-(off.sum(axis=0) + off.sum(axis=1)), kind="stable")[:_MATRIX])
    names = [_short(answers.classes[i]) for i in shown]
    size, largest = len(shown), max(1, int(off.max()))
    longest = max(len(name) for name in names)
    made, axes = figure(WIDE, 4.0 + (0.06 * longest if longest > 3 else 0.0))
    for row, i in enumerate(shown):
        for column, j in enumerate(shown):
            number, agree = int(cells[i, j]), i == j
            if number and not agree:
                alpha = 0.12 + 0.88 * number / largest
                _cell(axes, row, column, LIGHT["student"], alpha)
            elif agree:
                _cell(axes, row, column, LIGHT["line"], 0.45)
            if number:
                on_dark = not agree and number > 0.6 * largest
                colour = LIGHT["muted"] if agree else LIGHT["paper"] if on_dark else LIGHT["ink"]
                # A seed counts each test row once: four digits need a smaller hand.
                points = 9 if size <= 12 and cells.max() < 1000 else 7
                axes.text(column, row, f"{number}", ha="center", va="center", color=colour, fontsize=points)
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
    axes.set_xticks(range(size), names, rotation=45 if longest > 3 else 0, ha="left" if longest > 3 else "center")
    axes.set_yticks(range(size), names)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("the student says", color=LIGHT["student"], weight="bold")
    axes.xaxis.set_label_position("top")
    axes.set_ylabel("the teacher says", color=LIGHT["teacher"], weight="bold")
    total, same = int(cells.sum()), int(np.trace(cells))
    over = f" over {len(students)} seeds" if len(students) > 1 else ""
    left = f" Of {len(cells)} classes, the {size} that differ most often." if size < len(cells) else ""
    alt = f"Answers of teacher and student: the same in {same:,} of {total:,}. {_most(off, answers.classes)}"
    caption = f"Test rows by the two answers{over}. On the grey diagonal both say the same.{left}"
    return Picture("confusion", made, alt, caption)


def _cell(axes: Axes, row: int, column: int, colour: str, alpha: float) -> None:
    axes.add_patch(Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, color=colour, alpha=alpha, linewidth=0))


@dataclass(frozen=True)
class Example:
    """One test row on which student and teacher differ. picture: the address of its image, or None; text: likewise."""

    row: int
    truth: str
    teacher: str
    teacher_right: bool
    teacher_share: str
    student: str
    student_right: bool
    student_share: str
    kl: str
    picture: str | None
    text: str | None
    features: tuple[str, ...]


@dataclass(frozen=True)
class Examples:
    """The rows on which the answers differ, the largest divergence first. features: the names of what is shown."""

    seed: int
    rows: tuple[Example, ...]
    differing: int
    features: tuple[str, ...]
    more_features: int
    inverted: bool
    """Whether images are drawn dark on light, though they are stored light on dark."""


def examples(run: Run, folder: Path) -> Examples | None:
    """Return the worst rows of the first seed, and write their images into a folder."""
    students, answers = run.of(STUDENT), run.answers
    if run.teacher is None or not students or answers is None:
        return None
    student, teacher = answers.logits[students[0]], answers.logits[run.teacher]
    distance = kl(teacher, student)
    differ = np.flatnonzero(teacher.argmax(axis=1) != student.argmax(axis=1))
    worst = differ[np.argsort(-distance[differ], kind="stable")][:_EXAMPLES]
    images = _Images.of(answers)
    table = None if images is not None or answers.inputs is None else answers.inputs.reshape(len(answers.inputs), -1)
    features = () if table is None else (answers.features or tuple(f"x{i}" for i in range(table.shape[1])))
    rows = []
    for rank, row in enumerate(worst.tolist(), start=1):
        (said, its_share), (answer, share) = _answer(answers, teacher, row), _answer(answers, student, row)
        truth = answers.classes[answers.labels[row]]
        picture = None
        if images is not None:
            png = images.png(row)
            write_whole(folder / f"example-{rank:02}.png", lambda part, png=png: _write(part, png))  # type: ignore[misc]
            picture = data_uri("image/png", png)
        shown = () if table is None else tuple(f"{value:.4g}" for value in table[row, :_COLUMNS])
        rows.append(
            Example(
                row,
                truth,
                said,
                said == truth,
                its_share,
                answer,
                answer == truth,
                share,
                f"{distance[row]:.2f}",
                picture,
                None if answers.texts is None else answers.texts[row],
                shown,
            )
        )
    seed = students[0].seed
    assert seed is not None
    return Examples(
        seed,
        tuple(rows),
        len(differ),
        features[:_COLUMNS],
        max(0, len(features) - _COLUMNS),
        images is not None and images.inverted,
    )


class _Images:
    """The test images as pictures: channels last, between 0 and 1 over all of them."""

    def __init__(self, inputs: np.ndarray) -> None:
        low, high = float(inputs.min()), float(inputs.max())
        self.values = (inputs - low) / (high - low or 1.0)
        # Pen strokes on nothing are drawn as ink on paper; a photograph has no such background.
        self.inverted = inputs.shape[-1] == 1 and float(np.median(self.values)) < 0.1

    @classmethod
    def of(cls, answers: Answers) -> _Images | None:
        inputs = answers.inputs
        if answers.kind != "image" or inputs is None or inputs.ndim != 4 or inputs.shape[1] not in (1, 3):
            return None
        return cls(inputs.transpose(0, 2, 3, 1))

    def png(self, row: int) -> bytes:
        image = self.values[row]
        image = 1 - image if self.inverted else image
        image = np.repeat(image, 3 // image.shape[-1], axis=-1)
        # Small images grow in whole steps, so that their pixels stay what they are in any viewer.
        factor = max(1, 96 // max(image.shape[:2]))
        image = image.repeat(factor, axis=0).repeat(factor, axis=1)
        buffer = io.BytesIO()
        imsave(buffer, np.round(255 * image).astype(np.uint8), format="png", metadata={"Software": None})  # type: ignore[dict-item]
        return buffer.getvalue()


def _answer(answers: Answers, logits: np.ndarray, row: int) -> tuple[str, str]:
    log_p = log_softmax(logits[row : row + 1])[0]
    place = int(log_p.argmax())
    return answers.classes[place], whole_percent(float(np.exp(log_p[place])))


def _most(off: np.ndarray, classes: Sequence[str]) -> str:
    if not off.any():
        return "They never differ."
    teacher, student = np.unravel_index(int(off.argmax()), off.shape)
    return (
        f"Most often they differ where the teacher says {classes[int(teacher)]} and the student "
        f"{classes[int(student)]}: {counted(int(off.max()), 'time')}."
    )


def _short(name: str) -> str:
    return name if len(name) <= 12 else f"{name[:11]}…"


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
