"""What a recipe says about a term of the objective: a divergence by its kind, a teacher, a weight and a temperature.

The classes are made from the divergences: each has one key, its kind, which holds the divergence's own parameters.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, create_model, model_validator

from tutelage.config._divergences import Kind, kinds
from tutelage.config._spec import NotNegative, Positive, Spec, branch, key_of, one_key_of, refuse


class TermSpec(Spec):
    """One term: `{forward_kl: {}, teacher: labels, weight: 0.1}`. The key is the kind of the divergence."""

    kind: ClassVar[str]
    """The kind of the divergence."""

    teacher: Annotated[
        Literal["teacher", "labels"], Field(description="Whom the student is compared with: the teacher or the labels.")
    ] = "teacher"
    weight: Annotated[NotNegative, Field(description="The term's weight in the loss; at 0 it is only reported.")] = 1.0
    temperature: Annotated[Positive, Field(description="What softens both sides.")] = 1.0
    scale_by_temperature: Annotated[
        bool, Field(description="Whether the term is multiplied by the power of T by which its gradient shrinks.")
    ] = True

    @property
    def parameters(self) -> dict[str, float]:
        """The parameters of the divergence, by name."""
        own: Spec = getattr(self, self.kind)
        return own.model_dump()

    @model_validator(mode="after")
    def _finite(self) -> Self:
        if self.teacher == "labels" and not kinds()[self.kind].takes_labels(self.parameters):
            own = ", ".join(f"{name}={value:g}" for name, value in self.parameters.items())
            what = f"{self.kind} ({own})" if own else self.kind
            message = f"{what} to labels is infinite or has no meaning; use forward_kl, the cross-entropy"
            refuse([(("teacher",), message)])
        return self


def _empty_if_null(value: Any) -> Any:
    return {} if value is None else value


def _class_of(kind: Kind) -> type[TermSpec]:
    fields: dict[str, Any] = {}
    for parameter in kind.parameters:
        bounds: dict[str, Any] = {"gt" if parameter.open_low else "ge": parameter.low}
        if parameter.high != float("inf"):
            bounds["lt" if parameter.open_high else "le"] = parameter.high
        fields[parameter.name] = (Annotated[float, Field(**bounds)], parameter.default)
    own: Any = create_model(f"{kind.cls}Parameters", __base__=Spec, __module__=__name__, __doc__=kind.summary, **fields)
    # A key without parameters may be left empty, `forward_kl:`, which is null in YAML.
    taken = Annotated[own, BeforeValidator(_empty_if_null, json_schema_input_type=own | None)]
    own_key: dict[str, Any] = {kind.name: (taken, Field(description=kind.summary))}
    made = create_model(f"{kind.cls}Term", __base__=TermSpec, __module__=__name__, __doc__=kind.summary, **own_key)
    made.kind = kind.name
    # Under their own names, so that a recipe can be pickled.
    globals().update({own.__name__: own, made.__name__: made})
    return made


_KINDS = {name: _class_of(kind) for name, kind in kinds().items()}


if TYPE_CHECKING:
    AnyTerm = TermSpec
else:
    AnyTerm = Annotated[
        reduce(or_, (Annotated[cls, Tag(branch(name))] for name, cls in _KINDS.items())),
        Discriminator(lambda value: key_of(value, _KINDS)),
        one_key_of(list(_KINDS), TermSpec.model_fields, "a term", "{forward_kl: {}, temperature: 4}"),
    ]

BRANCHES: dict[str, type[Spec]] = {branch(name): cls for name, cls in _KINDS.items()}
