"""What lies where in the folder of a run, and how its files are written and read. No torch: a list of runs is quick.

    recipe.resolved.yaml  environment.json  run.json  scores.json  latency.json  report.html
    test.safetensors  test_texts.json  text.json
    teacher/                     model/ evaluation.safetensors scores.json timing.json
    seed-0/student/  baseline/   the same, metrics.jsonl and checkpoints/

A classifier's run has `evaluation.safetensors` and `test.safetensors`, or, of texts, `test_texts.json`; a language
model's has none of them, but `text.json`.
A file is written beside its place and moved there when it is whole, so what has its name is complete. What is read is
not trusted: a file that was cut off or changed is a `DamagedDataError` that names it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage import manifest
from tutelage.errors import DamagedDataError, RunFolderError

if TYPE_CHECKING:
    import numpy as np

TEACHER, STUDENT, BASELINE = "teacher", "student", "baseline"
LOCK = ".lock"
RUNNING, COMPLETE, INTERRUPTED, FAILED = "running", "complete", "interrupted", "failed"


@dataclass(frozen=True)
class ArmFolder:
    """The files of one trained network: the teacher, or a student or baseline of one seed."""

    path: Path

    @property
    def metrics(self) -> Path:
        """One JSON object per line: {"step", "loss", terms...} while training, {"step", "eval_..."} at evaluations."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """What training goes on from after an interruption."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """A folder that `tutelage.models.load_model` reads, alone; a language model: `from_pretrained`."""
        return self.path / "model"

    @property
    def evaluation(self) -> Path:
        """Arrays `logits` (rows, classes) float32 and `labels` (rows,) int64, in the order of the test rows."""
        return self.path / "evaluation.safetensors"

    @property
    def scores(self) -> Path:
        """What the network scores on the test rows. Its file is the last that an arm gets: with it, the arm is done."""
        return self.path / "scores.json"

    @property
    def timing(self) -> Path:
        """What differs from run to run: the seconds of training."""
        return self.path / "timing.json"

    @property
    def done(self) -> bool:
        """Whether the arm was trained and scored to its end."""
        return self.scores.is_file()


@dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    >>> RunFolder(Path("runs/digits")).arm(0, "student").metrics.as_posix()
    'runs/digits/seed-0/student/metrics.jsonl'
    """

    path: Path

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Return the run in a folder that is there already; `RunFolderError` if there is none."""
        folder = cls(Path(path))
        if not folder.path.is_dir():
            raise RunFolderError(f"{path} is not a folder; expected the folder of a run, as `tutelage train` makes it")
        if not folder.record.is_file():
            raise RunFolderError(
                f"{path} holds no run.json; expected the folder of a run, as `tutelage train` makes it. If its start "
                f"was killed, start it again with --out {path}"
            )
        return folder

    @property
    def is_free(self) -> bool:
        """Whether a run can start here: the folder is new, or empty, or holds what is left of a start that was killed.

        A start writes run.json last. Without the file of its lock, whatever lies there is somebody else's.
        """
        if not self.path.is_dir():
            return not os.path.lexists(self.path)
        entries, lock = set(self.path.iterdir()), self.path / LOCK
        return not entries or (lock in entries and entries - {lock} <= set(self.left_by_a_start()))

    def left_by_a_start(self) -> list[Path]:
        """Return the files in the folder that a start writes before run.json."""
        own = (self.recipe, self.environment, self.test, self.test_texts)
        return [entry for entry in self.path.iterdir() if entry in own or manifest.is_private(entry.name)]

    @property
    def recipe(self) -> Path:
        """The recipe with every default and override written out; it makes the same run again."""
        return self.path / "recipe.resolved.yaml"

    @property
    def environment(self) -> Path:
        """Versions, threads and device."""
        return self.path / "environment.json"

    @property
    def record(self) -> Path:
        """run.json: status, recipe name, seeds, arms, classes, rows."""
        return self.path / "run.json"

    @property
    def scores(self) -> Path:
        """Mean, spread and values over the seeds, for each arm."""
        return self.path / "scores.json"

    @property
    def latency(self) -> Path:
        """{role: {batch size: milliseconds of an answer}}; runs of earlier versions have it in timing.json."""
        return self.path / "latency.json"

    @property
    def test(self) -> Path:
        """Arrays `inputs`, `labels` and `index` of the test rows; left out where they are big."""
        return self.path / "test.safetensors"

    @property
    def test_texts(self) -> Path:
        """{"texts": [...]}: how each test row begins, where rows are texts with a class; left out of very many."""
        return self.path / "test_texts.json"

    @property
    def text(self) -> Path:
        """One held-out piece of text, token by token, where the run is about texts.

        {"seed", "row", "tokens": [text, ...], "teacher_nll": [...], "student_nll", "baseline_nll", "student_kl",
        "baseline_kl"}: nats for each token given those before it; kl: KL(teacher || network). All lists have the length
        of the tokens, null where one is no target: the first has nothing before it. Networks: those of the first seed.
        """
        return self.path / "text.json"

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / "report.html"

    @property
    def teacher(self) -> ArmFolder:
        """The teacher's files."""
        return ArmFolder(self.path / TEACHER)

    def arm(self, seed: int, name: str) -> ArmFolder:
        """Return the files of a student or baseline."""
        return ArmFolder(self.path / f"seed-{seed}" / name)

    def seeds(self) -> list[int]:
        """Return the seeds that have a folder, in order."""
        found = (re.fullmatch(r"seed-(\d+)", entry.name) for entry in self.path.iterdir() if entry.is_dir())
        return sorted(int(match[1]) for match in found if match)

    def arms(self, name: str) -> dict[int, ArmFolder]:
        """Return the arms of one name that were trained to their end, by seed."""
        return {seed: self.arm(seed, name) for seed in self.seeds() if self.arm(seed, name).done}


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a path beside `path`, and move what it wrote there when it is on the disk."""
    part = begin_file(path, write)
    try:
        finish_file(part, path)
    finally:
        part.unlink(missing_ok=True)


def begin_file(path: Path, write: Callable[[Path], None]) -> Path:
    """Write a file beside its place, and return where; errors of the disk name the place."""
    part = manifest.private(path, "part")
    part.unlink(missing_ok=True)
    try:
        manifest.write_by(part, write)
        manifest.sync(part)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
        raise
    return part


def finish_file(part: Path, path: Path) -> None:
    """Move a file that was written beside its place there."""
    manifest.rename(part, path)
    manifest.sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""

    def write(part: Path) -> None:
        part.write_text(text, encoding="utf-8")

    write_whole(path, write)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object whole. NaN and infinity are no JSON: they are an error here, and not in whoever reads."""
    write_text(path, json_text(value))


def json_text(value: Mapping[str, Any]) -> str:
    """Return a JSON object as it is written."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def read_json(path: Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Return the JSON object in a file that has at least these keys."""
    return object_of(read_text(path), str(path), keys)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a file of lines; a last line without its end is still being written, and not read."""
    lines = read_text(path).split("\n")[:-1]
    return [object_of(line, f"{path}:{number}", ()) for number, line in enumerate(lines, start=1)]


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays whole, as safetensors."""
    from safetensors.numpy import save_file

    write_whole(path, lambda part: save_file(dict(arrays), part))


def read_arrays(path: Path, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Return the named arrays of a safetensors file that has at least these names."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_file():
        raise DamagedDataError(f"{path} is missing; expected the arrays {list(names)}")
    try:
        arrays: dict[str, np.ndarray] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise DamagedDataError(f"{path} cannot be read as safetensors ({error}); write it again") from error
    missing = [name for name in names if name not in arrays]
    if missing:
        raise DamagedDataError(f"{path} lacks {missing}; it has {sorted(arrays)}")
    return arrays


def read_text(path: Path) -> str:
    """Return a text file of a run; a pipe in its place does not hang."""
    if path.exists() and not path.is_file():
        raise DamagedDataError(f"{path} is no regular file; it belongs to the folder of the run")
    with manifest.opened(path, "the folder of the run") as file:
        content = file.read()
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DamagedDataError(f"{path} is not text ({error.reason} at byte {error.start}); write it again") from error


def object_of(text: str, place: str, keys: Sequence[str]) -> dict[str, Any]:
    """Return a JSON object that has at least these keys; place: what messages call it."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DamagedDataError(f"{place} is not JSON ({error}); write it again") from error
    if not isinstance(value, dict):
        raise DamagedDataError(f"{place} holds {type(value).__name__}; expected a JSON object")
    missing = [key for key in keys if key not in value]
    if missing:
        raise DamagedDataError(f"{place} lacks {missing}; it has {sorted(value)}")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
