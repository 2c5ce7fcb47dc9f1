"""How a network is called with a batch whose names it may or may not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

from torch import Tensor, nn

from tutelage.distributions import Distribution
from tutelage.errors import ModuleError, ShapeError, TutelageError
from tutelage.networks import signature_of
from tutelage.tasks._reading import check_length, explained, finding_last_tokens, in_precision_of, padded_as_read

_READS_ITS_OWN: WeakSet[nn.Module] = WeakSet()
"""Networks that were found to take floating-point inputs of their own precision only."""


def call(module: nn.Module, inputs: Mapping[str, Any], role: str = "the network") -> Any:
    """Return the module's output: by keyword where its forward has the names, by position if there is but one input.

    Padding, precision and limits are the module's own (`_reading`). role: what messages call it.
    Errors: `ModuleError`; `ShapeError` for rows longer than its positions, `VocabularyError` for ids beyond its
    embeddings.
    """
    check_length(role, module, inputs)
    inputs = padded_as_read(module, inputs)
    by_name = _takes_names(module, inputs)

    def output_of(inputs: Mapping[str, Any]) -> Any:
        return module(**inputs) if by_name else module(*inputs.values())

    precise = in_precision_of(module, inputs) if module in _READS_ITS_OWN else None
    with finding_last_tokens(module, inputs):
        try:
            return output_of(inputs if precise is None else precise)
        except TutelageError:
            raise
        except (IndexError, RuntimeError, ValueError) as error:
            known = explained(role, module, inputs, error)
            if known is not None:
                raise known from error
            precise = in_precision_of(module, inputs) if precise is None else None
            if precise is None:
                raise
            # Some bring inputs to their own precision themselves; this one does not.
            output = output_of(precise)
    _READS_ITS_OWN.add(module)
    return output


def _takes_names(module: nn.Module, inputs: Mapping[str, Any]) -> bool:
    """Return whether a module is called by keyword, or else by position. Errors: `ModuleError`."""
    parameters = signature_of(module).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    by_position = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_any_name = any(p.kind == p.VAR_KEYWORD for p in parameters)
    takes_any_number = any(p.kind == p.VAR_POSITIONAL for p in parameters)
    known = {p.name for p in named}
    missing = {p.name for p in [*named, *by_position] if p.default is p.empty} - set(inputs)
    unknown = set(inputs) - known
    if not missing and (not unknown or takes_any_name):
        return True
    # One value has one place to go, whatever the two call it; a second required one would be left without.
    if len(inputs) == 1 and len(missing) <= 1 and (by_position or takes_any_number):
        first = by_position[0] if by_position else None
        if first is None or not missing or first.name in missing:
            return False
    raise ModuleError(
        f"{type(module).__name__}.forward takes {sorted(known)} and the batch has {sorted(inputs)}; expected the same "
        "names, or one input alone: rename the columns of the data set, or wrap the module"
    )


def batch_length(batch: Mapping[str, Any]) -> int:
    """Return how many rows a batch has."""
    lengths = {name: len(value) for name, value in batch.items() if isinstance(value, Tensor) and value.dim()}
    if len(set(lengths.values())) != 1:
        raise ShapeError(f"the tensors of a batch have lengths {lengths}; expected one length, that of the batch")
    return next(iter(lengths.values()))


def check_one_each(rows: int, batch: Mapping[str, Any]) -> None:
    """Raise `ShapeError` unless a student has one distribution for each row of a batch, by which terms are divided."""
    lengths = {len(value) for value in batch.values() if isinstance(value, Tensor) and value.dim()}
    if len(lengths) == 1 and rows not in lengths:
        raise ShapeError(
            f"the student returned {rows} distributions for a batch of {lengths.pop()} rows; expected one for each: "
            "tokens or pixels stay (rows, positions, classes), with a task over tokens such as TokenClassification()"
        )


def first_logits(module_is: str, output: Any) -> Tensor:
    """Return the logits in a module's output: a tensor, a mapping with "logits", or the first tensor of a tuple."""
    found = output
    if isinstance(output, Mapping):
        found = output.get("logits")
    elif isinstance(output, (tuple, list)):
        found = next((part for part in output if isinstance(part, Tensor)), None)
    elif isinstance(output, Distribution):
        # A TopK has logits, too, and they are not those of the classes.
        found = None
    elif not isinstance(output, Tensor):
        found = getattr(output, "logits", None)
    if isinstance(found, Tensor):
        return found
    came = type(output).__name__
    if isinstance(output, Mapping):
        came += f" with {sorted(map(str, output))}"
    raise ModuleError(
        f"the {module_is} returned {came}; expected a tensor of logits, a mapping or object with 'logits', or a tuple "
        "with a tensor: wrap the module so that it returns one of these"
    )
