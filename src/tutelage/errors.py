"""Every error and warning that tutelage raises on purpose.

    TutelageError (Exception)
    ├── InputError (ValueError)            what was handed over cannot be used
    │   ├── ParameterError                 a temperature, weight, alpha, beta, ... outside its range
    │   ├── EmptyInputError                a tensor or list without elements
    │   ├── ShapeError                     sides, weights or labels whose shapes disagree
    │   ├── VocabularyError                class counts, vocabulary maps or token ids that do not fit
    │   ├── DtypeError                     integer logits, labels that are not int64, ...
    │   ├── DeviceError                    tensors on different devices
    │   ├── LabelError                     labels outside the vocabulary, or missing
    │   ├── WeightError                    token, layer or teacher weights that are negative, not finite or sum to 0
    │   ├── TeacherError                   a TopK, Sampled or Mixture that contradicts itself
    │   ├── CompatibilityError             a divergence that cannot take this kind of teacher or student
    │   ├── LayerError                     a path that names no layer, or a layer that gave no single tensor
    │   ├── ModuleError                    a network whose signature or output is not what the task expects
    │   ├── NonFiniteError                 NaN or infinite logits
    │   ├── RecipeError                    a recipe that cannot be read or makes no sense, with all its problems
    │   ├── InfiniteDivergenceError        one side excludes an outcome to which the other gives mass
    │   ├── DataError                      a table, a column or a folder of images that cannot be learned from
    │   ├── ModelError                     an architecture that is unknown, or weights that do not fit it
    │   ├── RunFolderError                 a folder that is no run, or that is there already
    │   └── DamagedDataError               a file whose contents are not what was written
    ├── BackendError (ValueError)          a backend that is unknown or cannot run here
    ├── MissingPackageError (ValueError)   an optional package that is needed and not installed
    └── DoubleBackwardError (RuntimeError) a second derivative was asked for

    ConventionWarning (UserWarning)        a setting whose meaning depends on a convention
    InputWarning (UserWarning)             a side that is legal and probably not what was meant

Each message says what came, what was expected, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "BackendError",
    "CompatibilityError",
    "ConventionWarning",
    "DamagedDataError",
    "DataError",
    "DeviceError",
    "DoubleBackwardError",
    "DtypeError",
    "EmptyInputError",
    "InfiniteDivergenceError",
    "InputError",
    "InputWarning",
    "LabelError",
    "LayerError",
    "MissingPackageError",
    "ModelError",
    "ModuleError",
    "NonFiniteError",
    "ParameterError",
    "RecipeError",
    "RunFolderError",
    "ShapeError",
    "TeacherError",
    "TutelageError",
    "VocabularyError",
    "WeightError",
]


class TutelageError(Exception):
    """The root of everything this package raises on purpose."""


class InputError(TutelageError, ValueError):
    """What was handed over cannot be used; the subclass says in which respect."""


class ParameterError(InputError):
    """A number outside its range: temperature, weight, alpha, beta, smoothing, ..."""


class EmptyInputError(InputError):
    """A tensor or a list without elements: no value would be right."""


class ShapeError(InputError):
    """Two sides, weights or labels whose shapes do not belong together."""


class VocabularyError(InputError):
    """Class counts that differ without a `VocabularyMap`, a map that does not fit, or ids beyond the embeddings."""


class DtypeError(InputError):
    """A tensor whose element type has no meaning in its place."""


class DeviceError(InputError):
    """Tensors of one call that lie on different devices."""


class LabelError(InputError):
    """Labels outside the vocabulary, or labels that a divergence needs and did not get."""


class WeightError(InputError):
    """Weights that are negative, not finite, or that leave nothing to average."""


class TeacherError(InputError):
    """A `TopK`, `Sampled` or `Mixture` whose contents contradict each other."""


class CompatibilityError(InputError):
    """A divergence that has no meaning for this kind of student or teacher."""


class LayerError(InputError):
    """A dotted path that names no layer of a network, or a layer that gave no single tensor."""


class ModuleError(InputError):
    """A network that cannot be called with a batch, or whose output is not what the task expects."""


class NonFiniteError(InputError):
    """NaN or infinite numbers where logits were expected."""


class InfiniteDivergenceError(InputError):
    """The divergence is infinite: one side gives mass to what the other excludes with a logit of -inf."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a recipe, and where it stands."""

    file: str
    """The file as it was named, or the override: `override 'training.epochs=x'`."""
    line: int | None
    path: str
    """The dotted path of the setting, empty for the recipe as a whole."""
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        text = ": ".join(part for part in (place, self.path, self.message) if part)
        # One problem is one line, whatever bytes a key or a file name is made of.
        return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


class RecipeError(InputError):
    """A recipe that cannot be read or makes no sense; `problems` holds everything that is wrong with it."""

    def __init__(self, problems: Sequence[Problem] | str) -> None:
        self.problems = (Problem("", None, "", problems),) if isinstance(problems, str) else tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class DataError(InputError):
    """A table, a column or a folder of images that cannot be learned from as it is."""


class ModelError(InputError):
    """An architecture that is unknown, or weights that do not fit it, the data or its classes."""


class RunFolderError(InputError):
    """A folder that is not the folder of a run, or one that is there already and would be overwritten."""


class DamagedDataError(InputError):
    """A file whose contents are not what was written: cut off, changed, or not of its format."""


class BackendError(TutelageError, ValueError):
    """A backend that does not exist, or that cannot run what was asked."""


class MissingPackageError(TutelageError, ValueError):
    """An optional package that is needed for what was asked, and that is not installed."""


class DoubleBackwardError(TutelageError, RuntimeError):
    """A second derivative was asked for; losses give values and first derivatives."""


class ConventionWarning(UserWarning):
    """A setting that is legal, but whose meaning rests on a convention worth knowing."""


class InputWarning(UserWarning):
    """Sides that can be computed with, and are probably not what was meant: probabilities as logits, swapped sides."""
