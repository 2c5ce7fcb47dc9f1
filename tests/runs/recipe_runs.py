"""What tests of runs about texts share: a run that is finished, and a recipe that is refused."""

import pytest

from tutelage.config import load
from tutelage.errors import RecipeError
from tutelage.run_folder import RunFolder
from tutelage.runs import run


def finished(file, tmp_path_factory):
    """Return the folder of a recipe's finished run, what it told, and its cache."""
    cache, told = tmp_path_factory.mktemp("cache"), []
    folder = tmp_path_factory.mktemp("done") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTELAGE_CACHE", str(cache))
        run(load(file), folder, on_event=told.append)
    return RunFolder(folder), told, cache


def check_refused(file, overrides, place, words):
    """Check that the schema refuses a recipe at a place, in these words among others."""
    with pytest.raises(RecipeError) as caught:
        load(file, overrides)
    assert any(problem.path == place and words in problem.message for problem in caught.value.problems), caught.value
