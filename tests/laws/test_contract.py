"""Every divergence under every law, and proof that those which are exempt need to be."""

from __future__ import annotations

import hypothesis
import pytest

import tutelage as tl
from laws import gradients, rows, values, vocabularies  # noqa: F401  (they enter their laws)
from laws.subjects import EXEMPT, LAWS, subjects
from tutelage.errors import CompatibilityError

SUBJECTS = {subject.kind: subject for subject in subjects()}


def test_exemptions_name_laws_and_divergences_that_exist():
    assert set(EXEMPT) <= set(tl.divergences.ALL)
    for kind, laws in EXEMPT.items():
        assert set(laws) <= set(LAWS), kind


@pytest.mark.parametrize("kind", SUBJECTS)
@pytest.mark.parametrize("law", LAWS)
def test_law(law, kind):
    if law not in EXEMPT.get(kind, {}):
        LAWS[law](SUBJECTS[kind])
        return
    # An exemption that is not needed would hide the day on which the law breaks.
    hypothesis.settings.load_profile("exempt")
    try:
        with pytest.raises((AssertionError, CompatibilityError)):
            LAWS[law](SUBJECTS[kind])
    finally:
        hypothesis.settings.load_profile("tutelage")
