"""What counts as a number where a parameter takes one: temperatures, weights, shares, counts.

Python's numbers, those of NumPy, and arrays and tensors without dimensions are the number they hold, so that a value
read from an array means the same as the literal. Booleans are no numbers. Importable without torch and NumPy.
"""

from __future__ import annotations

import numbers
from typing import Any, SupportsFloat, SupportsInt


def real(value: object) -> float | None:
    """Return the real number that a parameter holds, as a Python number; None if it holds none.

    >>> real(2), real(0.5), real(True), real("2")
    (2, 0.5, None, None)
    """
    if isinstance(value, bool):
        return None
    if type(value) in (int, float):
        return value  # type: ignore[return-value]
    if isinstance(value, numbers.Integral) and isinstance(value, SupportsInt):
        return int(value)
    if isinstance(value, numbers.Real) and isinstance(value, SupportsFloat):
        return float(value)
    return None if refusal(value) or not _is_scalar_array(value) else real(value.item())  # type: ignore[attr-defined]


def whole(value: object) -> int | None:
    """Return the integer that a parameter holds, as a Python int; None if it holds none.

    >>> whole(2), whole(2.0), whole(True)
    (2, None, None)
    """
    number = real(value)
    return number if isinstance(number, int) else None


def refusal(value: object) -> str:
    """Return why a tensor that holds a number is not read here, to be added to an error; empty for anything else."""
    tensor: Any = value
    if not _is_scalar_array(value):
        return ""
    if getattr(tensor, "requires_grad", False):
        return ". A tensor that requires grad would get no gradient here: pass .item() to use its value as a constant"
    device = getattr(getattr(tensor, "device", None), "type", "cpu")
    return "" if device == "cpu" else f". Reading a tensor on {device} would wait for the device: pass .item()"


def _is_scalar_array(value: object) -> bool:
    """Return whether the value is an array or a tensor without dimensions."""
    return getattr(value, "ndim", None) == 0 and hasattr(value, "item")
