"""`a.b=c` and `~a.b`: set and removed as if the file had said so, and checked like the file."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.config import RecipeError, dump, load, recipe_path


def refused(overrides, source="digits-few-labels"):
    with pytest.raises(RecipeError) as caught:
        load(source, overrides)
    return str(caught.value).split("\n")


def test_values_are_read_as_yaml_and_typed():
    recipe = load(
        "digits-few-labels",
        [
            "training.learning_rate=1e-3",
            "training.seeds=[4, 7]",
            "objective.soft.jensen_shannon={beta: 0.25}",
            "~objective.soft.forward_kl",
            "description=no",
            "baseline=false",
            "teacher.fit.epochs=3",
        ],
    )
    assert recipe.training.learning_rate == 0.001
    assert recipe.training.seeds == recipe.training.seed_list == [4, 7]
    assert (recipe.objective["soft"].kind, recipe.objective["soft"].parameters) == ("jensen_shannon", {"beta": 0.25})
    assert recipe.description == "no"
    assert recipe.baseline is False
    assert (recipe.teacher.fit.epochs, recipe.teacher.mlp.hidden) == (3, [256, 256])


def test_they_count_in_their_order():
    assert load("digits-few-labels", ["training.epochs=2", "training.epochs=5"]).training.epochs == 5
    assert load("digits-few-labels", ["~training", "training.epochs=5"]).training.batch_size == 64
    assert load("digits-few-labels", ["training.epochs=5", "~training"]).training.epochs == 60


def test_what_is_missing_on_the_way_is_made():
    made = ["objective.mine.forward_kl=", "objective.mine.teacher=labels"]
    recipe = load("digits-few-labels", ["~objective.hard", *made])
    assert list(recipe.objective) == ["soft", "mine"]


def test_a_setting_that_is_replaced_cannot_be_wrong(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(recipe_path("digits-few-labels").read_text().replace("epochs: 60\n", "epochs: !x 60\n", 1))
    assert load(path, ["training.epochs=1"]).training.epochs == 1
    assert len(refused([], path)) == 1


REFUSED = {
    "training.epochs=x": "override 'training.epochs=x': training.epochs: expected a whole number; got the text 'x'",
    "training.epoch=5": "override 'training.epoch=5': training.epoch: unknown key; did you mean 'epochs'?",
    "traning.epochs=5": "override 'traning.epochs=5': traning: unknown key; did you mean 'training'?",
    "~teacher.fits": "override '~teacher.fits': teacher.fits: there is no such setting; did you mean 'fit'?",
    "~a": "override '~a': a: there is no such setting, so there is nothing to remove",
    "training.epochs.x=5": "override 'training.epochs.x=5': training.epochs.x: training.epochs is a single value; "
    "nothing can be set inside",
    "teacher.mlp.hidden.0=5": "override 'teacher.mlp.hidden.0=5': teacher.mlp.hidden.0: teacher.mlp.hidden is a list, "
    "which is set as a whole; nothing can be set inside",
    "training.seeds=[1": "override 'training.seeds=[1': training.seeds: not YAML: ",
    "training.mix=!x 1": "override 'training.mix=!x 1': training.mix: the tag !x; remove it",
    "student.timm=x": "override 'student.timm=x': student.timm: stands beside mlp; keep one of them",
    **{
        word: f"override {word!r}: expected key.sub=value, or ~key.sub to remove a setting"
        for word in ("x", "", "=", "=5", "~", "~a=5", "a..b=5", ".a=5", "a.=5")
    },
}


@pytest.mark.parametrize(("override", "message"), REFUSED.items())
def test_refused(override, message):
    (found,) = refused([override])
    assert found.startswith(message)


def test_a_length_in_steps_takes_the_place_of_epochs():
    (message,) = refused(["training.steps=100"])
    assert "`training.epochs=null training.steps=100`" in message
    for remedy in ("training.epochs=null", "~training.epochs"):
        training = load("digits-few-labels", [remedy, "training.steps=100"]).training
        assert (training.epochs, training.steps) == (None, 100)


def test_paths_start_at_the_recipe_and_in_overrides_at_the_shell(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there" / "saved").mkdir(parents=True)
    path = tmp_path / "there" / "r.yaml"
    path.write_text(
        "data: {table: ../rows.csv, target: y}\nteacher: {model: saved}\nstudent: {mlp: {hidden: []}, weights: w}\n"
        "objective: {soft: {forward_kl: {}}}\n"
    )
    monkeypatch.chdir(tmp_path / "here")
    recipe = load(Path("../there/r.yaml"), ["data.test=held.npz"])
    assert recipe.data.table == tmp_path / "rows.csv"
    assert recipe.data.test == tmp_path / "here" / "held.npz"
    assert load(path, ["data={images: pictures}"]).data.images == tmp_path / "here" / "pictures"
    assert recipe.student.weights == tmp_path / "there" / "w"
    assert recipe.teacher.model == str(tmp_path / "there" / "saved")
    # What is no folder is the id of a published model, unless it is written as a path.
    assert load(path, ["teacher.model=org/name"]).teacher.model == "org/name"
    assert load(path, ["teacher.model=./name"]).teacher.model == str(tmp_path / "here" / "name")
    # Written out, the paths are absolute, so that the recipe may be moved.
    moved = tmp_path / "moved.yaml"
    moved.write_text(dump(recipe))
    assert load(moved) == recipe


@given(st.lists(st.sampled_from(["training.epochs", "objective.soft.weight", "data.labeled"]), max_size=4), st.data())
def test_overriding_is_editing(places, data):
    """Overrides give the recipe that a file gives in which the same values were written."""
    numbers = {place: data.draw(st.integers(1, 99), place) for place in places}
    overridden = load("digits-few-labels", [f"{place}={number}" for place, number in numbers.items()])
    want = load("digits-few-labels").model_dump()
    for place, number in numbers.items():
        *way, last = place.split(".")
        part = want
        for key in way:
            part = part[key]
        assert last in part
        part[last] = number
    assert overridden.model_dump() == want
