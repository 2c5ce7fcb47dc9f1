"""The parameters of the divergences, read from the source of their classes.

A recipe is checked before torch is loaded, which takes seconds, and the classes cannot be imported without it. Their
source can be read: the fields with their defaults, and the ranges that `check_range` holds them to. So a parameter is
declared once, in its class, and a test holds this reading against the classes themselves.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import tutelage


@dataclass(frozen=True)
class Parameter:
    """One number of a divergence: its name, default and range."""

    name: str
    default: float
    low: float
    high: float
    open_low: bool
    open_high: bool


@dataclass(frozen=True)
class Kind:
    """A divergence as recipes know it."""

    name: str
    """The snake_case of the class, which is the key in a recipe."""
    cls: str
    parameters: tuple[Parameter, ...]
    pointwise: bool
    """Whether it is a sum over the outcomes, which is what a divergence to labels has to be."""
    infinite: tuple[str, float] | bool
    """Whether it is infinite to labels, which exclude all outcomes but one; or the parameter, and its value, at which
    it is."""
    summary: str
    """The first line of the docstring."""

    def takes_labels(self, parameters: Mapping[str, float]) -> bool:
        """Return whether the divergence to one-hot labels means anything and is finite, with these parameters."""
        if isinstance(self.infinite, tuple):
            name, value = self.infinite
            return self.pointwise and parameters[name] != value
        return self.pointwise and not self.infinite


@cache
def kinds() -> dict[str, Kind]:
    """Return every divergence by its kind, in the order of `tutelage.divergences.ALL`."""
    folder = Path(tutelage.__file__).parent / "divergences"
    classes = {
        node.name: node
        for path in sorted(folder.glob("_*.py"))
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    found = (_kind(classes[name]) for name in _listed(ast.parse((folder / "__init__.py").read_text("utf-8"))))
    return {kind.name: kind for kind in found}


def _listed(module: ast.Module) -> Iterator[str]:
    """Yield the names of the classes over which `ALL` is made."""
    for node in module.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "ALL":
            assert isinstance(node.value, ast.DictComp)
            listed = node.value.generators[0].iter
            assert isinstance(listed, ast.Tuple)
            yield from (element.id for element in listed.elts if isinstance(element, ast.Name))


def _kind(node: ast.ClassDef) -> Kind:
    ranges = {ast.literal_eval(call.args[1]): call for call in _ranges(node)}
    parameters = []
    for field in node.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.value is not None:
            if "ClassVar" in ast.unparse(field.annotation):
                continue
            name, annotation = field.target.id, ast.unparse(field.annotation)
            # Only numbers with a range can be checked from here; a divergence that brings more has to be taught here.
            assert annotation == "float", f"{node.name}.{name} is {annotation}"
            assert name in ranges, f"{node.name}.{name} has no check_range"
            parameters.append(_parameter(name, ast.literal_eval(field.value), ranges[name]))
    summary = (ast.get_docstring(node) or "").split("\n")[0]
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", node.name).lower()
    pointwise = any(isinstance(base, ast.Name) and base.id == "Pointwise" for base in node.bases)
    return Kind(kind, node.name, tuple(parameters), pointwise, _infinite(node), summary)


def _ranges(cls: ast.ClassDef) -> Iterator[ast.Call]:
    """Yield the calls of `check_range` in a class."""
    for node in ast.walk(cls):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "check_range":
            yield node


def _parameter(name: str, default: float, call: ast.Call) -> Parameter:
    low, high = (_number(argument) for argument in call.args[2:4])
    opened = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    return Parameter(name, default, low, high, opened.get("open_low", False), opened.get("open_high", False))


def _number(node: ast.expr) -> float:
    return float("inf") if ast.unparse(node) == "float('inf')" else float(ast.literal_eval(node))


def _infinite(node: ast.ClassDef) -> tuple[str, float] | bool:
    """Return what `needs_teacher_support` says: `return True`, `return self.<parameter> == <number>`, or nothing."""
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "needs_teacher_support":
            said = re.fullmatch(r"return (?:True|self\.(\w+) == (\d+))", ast.unparse(method.body[-1]))
            assert said is not None, f"{node.name}.needs_teacher_support says more than can be read here"
            return (said[1], float(said[2])) if said[1] else True
    return False
