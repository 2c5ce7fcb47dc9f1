"""What is read from the source of the divergences is what their classes say and do."""

import warnings
from dataclasses import fields

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import example, given
from pydantic import ValidationError

from tutelage import Labels
from tutelage.config import Recipe
from tutelage.config._divergences import kinds
from tutelage.divergences import ALL
from tutelage.errors import ConventionWarning, ParameterError
from tutelage.execution._compatibility import refusal

PARAMETERS = [(kind, field.name) for kind, cls in ALL.items() for field in fields(cls)]


def recipe(kind, parameters, **term):
    return {
        "data": {"source": "digits"},
        "teacher": {"mlp": {"hidden": [4]}, "fit": {}},
        "student": {"mlp": {"hidden": [2]}},
        "objective": {"soft": {kind: parameters, **term}, "other": {"forward_kl": {}}},
    }


def test_the_kinds_are_those_of_all():
    assert list(kinds()) == list(ALL)
    for name, kind in kinds().items():
        assert kind.cls == ALL[name].__name__
        assert kind.summary == ALL[name].__doc__.split("\n")[0]


@pytest.mark.parametrize("kind", ALL)
def test_names_and_defaults(kind):
    default = ALL[kind]()
    want = {field.name: getattr(default, field.name) for field in fields(default)}
    assert {parameter.name: parameter.default for parameter in kinds()[kind].parameters} == want
    # And so they come out of a recipe, whichever way an empty mapping is written.
    for empty in ({}, None):
        term = Recipe.model_validate(recipe(kind, empty)).objective["soft"]
        assert (term.kind, term.parameters) == (kind, want)
        assert ALL[kind](**term.parameters) == default


NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 0.0, -0.0, 1.0, 1e-300, -1e-300, 1 - 2**-53, 1 + 2**-52, float("inf"), float("nan")]),
    st.floats(),
    st.floats(-0.5, 1.5),
    st.integers(-3, 10**300),
    st.booleans(),
    st.sampled_from([None, "0.5", "", [0.5], {}]),
)


@pytest.mark.parametrize(("kind", "name"), PARAMETERS)
@given(value=NUMBERS)
@example(value=0)
@example(value=1)
@example(value=0.5)
@example(value=float("-inf"))
def test_the_schema_refuses_what_the_class_refuses(kind, name, value):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConventionWarning)
        try:
            ALL[kind](**{name: value})
            accepts = True
        except ParameterError:
            accepts = False
    try:
        Recipe.model_validate(recipe(kind, {name: value}))
        assert accepts
    except ValidationError:
        assert not accepts


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        *((kind, {}) for kind in ALL),
        ("jensen_shannon", {"beta": 1.0}),
        ("jensen_shannon", {"beta": 0.0}),
        ("alpha_beta", {"alpha": 0.0}),
        ("alpha_beta", {"beta": 0.0}),
    ],
)
@pytest.mark.filterwarnings("ignore::tutelage.errors.ConventionWarning")
def test_what_labels_are_compared_by(kind, parameters):
    """The schema refuses a divergence to labels where the executor would, before a teacher is fitted for nothing."""
    written = recipe(kind, parameters, teacher="labels")
    if refusal(ALL[kind](**parameters), Labels(torch.tensor([0]))) is None:
        assert Recipe.model_validate(written).objective["soft"].teacher == "labels"
    else:
        with pytest.raises(ValidationError, match=f"{kind}.* to labels is infinite or has no meaning"):
            Recipe.model_validate(written)
