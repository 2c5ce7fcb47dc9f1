"""A run from start to end: its files, its bytes, what it tells, what it refuses."""

import json

import pytest
import torch
from safetensors.numpy import load_file

from tutelage.config import load
from tutelage.errors import DataError, RecipeError, RunFolderError
from tutelage.models import load_model
from tutelage.run_folder import RunFolder, read_json, read_lines
from tutelage.runs import (
    ArmDone,
    ArmStarted,
    Finished,
    Note,
    Progress,
    Started,
    TeacherFitted,
    TeacherReused,
    evaluate,
    prepare,
    run,
)

ARM_FILES = {"evaluation.safetensors", "scores.json", "timing.json", "manifest.json", "model"}


def kinds(events):
    return [type(event).__name__ for event in events if not isinstance(event, Progress)]


def test_a_run_and_its_folder(recipe, tmp_path, digests, cache):
    events = []
    folder = tmp_path / "runs" / "one"
    summary = run(recipe, folder, name="clouds", on_event=events.append)
    assert summary.status == "complete"
    names = {entry.name for entry in folder.iterdir()}
    top = {"recipe.resolved.yaml", "environment.json", "run.json", "scores.json", "latency.json", "test.safetensors"}
    assert names == {*top, "teacher", "seed-0", "seed-1"}
    assert {entry.name for entry in (folder / "teacher").iterdir()} == ARM_FILES
    for seed in (0, 1):
        for arm in ("student", "baseline"):
            place = folder / f"seed-{seed}" / arm
            assert {entry.name for entry in place.iterdir()} == {*ARM_FILES, "metrics.jsonl", "checkpoints"}
    assert load(folder / "recipe.resolved.yaml") == recipe
    record = read_json(folder / "run.json")
    assert {key: record[key] for key in ("status", "recipe", "seeds", "arms", "classes", "kind", "features")} == {
        "status": "complete",
        "recipe": "clouds",
        "seeds": [0, 1],
        "arms": ["student", "baseline"],
        "classes": ["a", "b", "c"],
        "kind": "table",
        "features": ["x", "y", "z"],
    }
    assert record["rows"] == {"train": 90, "labelled": 15, "fit": 90, "test": 30}
    assert summary.scores == read_json(folder / "scores.json")
    assert kinds(events) == [
        "Started",
        "ArmStarted",
        "TeacherFitted",
        "ArmDone",
        *["ArmStarted", "ArmDone"] * 4,
        "Finished",
    ]
    assert [(e.seed, e.arm) for e in events if isinstance(e, ArmDone)] == [
        (None, "teacher"),
        (0, "student"),
        (0, "baseline"),
        (1, "student"),
        (1, "baseline"),
    ]
    steps = [e.step for e in events if isinstance(e, Progress) and e.arm == "student" and e.seed == 1]
    assert steps == list(range(1, 12))

    # The same recipe again: the teacher comes from the cache, and all bytes are the same.
    events.clear()
    run(recipe, tmp_path / "two", on_event=events.append)
    assert kinds(events)[:3] == ["Started", "TeacherReused", "ArmDone"]
    assert digests(tmp_path / "two") == digests(folder)
    assert len(digests(folder)) > 20
    assert cache in next(e.folder for e in events if isinstance(e, TeacherReused)).parents
    first, second = (read_json(folder / f"seed-{seed}/student/scores.json") for seed in (0, 1))
    assert first["nll"] != second["nll"]


@pytest.fixture(scope="module")
def finished(clouds, tmp_path_factory):
    """Return the folder of a run that no test changes."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTELAGE_CACHE", str(folder.parent / "cache"))
        run(load(clouds), folder)
    return folder


def test_what_is_logged(finished):
    for arm, terms in (("student", {"soft", "hard"}), ("baseline", {"hard"})):
        lines = read_lines(finished / "seed-0" / arm / "metrics.jsonl")
        training = [line for line in lines if "loss" in line]
        evaluations = [line for line in lines if "eval_accuracy" in line]
        assert [line["step"] for line in training] == list(range(1, 12))
        assert all(terms <= set(line) for line in training)
        # An epoch of the student is 90 rows, one of the baseline its 15 labelled ones, in batches of 8.
        assert training[-1]["epoch"] == pytest.approx(11 / (12 if arm == "student" else 2))
        assert [line["step"] for line in evaluations] == [4, 8, 11]
        scores = read_json(finished / "seed-0" / arm / "scores.json")
        # The log's last evaluation is of the network that was saved.
        assert evaluations[-1]["eval_accuracy"] == pytest.approx(scores["accuracy"])
        assert evaluations[-1]["eval_agreement"] == pytest.approx(scores["agreement"])
        assert evaluations[-1]["eval_kl"] == pytest.approx(scores["kl"], rel=1e-4)
    assert "soft" not in training[0]


def test_the_model_stands_alone(finished):
    held_out = load_file(finished / "test.safetensors")
    for arm in (RunFolder(finished).teacher, RunFolder(finished).arm(1, "student")):
        answers = load_file(arm.evaluation)
        assert (answers["logits"].dtype, answers["labels"].dtype) == ("float32", "int64")
        logits = load_model(arm.model)(torch.from_numpy(held_out["inputs"]))
        torch.testing.assert_close(logits, torch.from_numpy(answers["logits"]))
        assert (answers["labels"] == held_out["labels"]).all()
        scores = read_json(arm.scores)
        assert scores["errors"] == int((answers["logits"].argmax(1) != answers["labels"]).sum())
        assert scores["bytes"] == (arm.model / "model.safetensors").stat().st_size
    assert read_json(RunFolder(finished).arm(1, "student").scores)["parameters"] == 3 * 4 + 4 + 4 * 3 + 3


def test_student_and_baseline_start_from_one_network(clouds, tmp_path):
    """At a learning rate of almost nothing both are still what they started from."""
    recipe = load(clouds, ["training.learning_rate=1e-30", "training.weight_decay=0", "training.seeds=[5]"])
    run(recipe, tmp_path / "run")
    student, baseline = (
        load_file(tmp_path / f"run/seed-5/{arm}/model/model.safetensors") for arm in ("student", "baseline")
    )
    assert all((student[name] == baseline[name]).all() for name in student)


def test_the_student_learns_from_the_teacher(clouds, tmp_path):
    recipe = load(
        clouds, ["training.steps=150", "training.seeds=1", "training.learning_rate=0.03", "teacher.fit.epochs=15"]
    )
    scores = run(recipe, tmp_path / "run").scores
    assert scores["teacher"]["accuracy"]["mean"] > 0.6
    assert scores["student"]["agreement"]["mean"] > 0.85
    assert scores["student"]["kl"]["mean"] < scores["baseline"]["kl"]["mean"]


def test_an_omitted_class(clouds, tmp_path):
    recipe = load(clouds, ["~data.labeled", "data.omit=[b]", "training.seeds=1", "~objective.hard"])
    summary = run(recipe, tmp_path / "run")
    found = read_json(tmp_path / "run/seed-0/student/scores.json")["omitted"]
    answers = load_file(tmp_path / "run/seed-0/student/evaluation.safetensors")
    of_class = answers["labels"] == 1
    assert found["b"]["rows"] == of_class.sum() == 10
    assert found["b"]["known"] == (answers["logits"][of_class].argmax(1) == 1).sum()
    assert found["b"]["known_with_bias"] >= found["b"]["known"]
    assert summary.scores["omitted"]["b"]["student"]["known"]["mean"] == found["b"]["known"]
    assert read_json(tmp_path / "run/run.json")["omitted"] == [1]


def test_without_teacher_or_baseline(clouds, tmp_path):
    recipe = load(clouds, ["~teacher", "~objective.soft", "~baseline", "training.seeds=1"])
    events = []
    summary = run(recipe, tmp_path / "run", on_event=events.append)
    assert set(summary.scores) == {"student"}
    assert not (tmp_path / "run" / "teacher").exists()
    assert "agreement" not in summary.scores["student"]
    assert [e.arm for e in events if isinstance(e, ArmStarted)] == ["student"]


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_a_plan_writes_nothing(recipe, tmp_path, cache):
    plan = prepare(recipe, tmp_path / "run", "clouds")
    assert plan.steps == {"student": 11, "baseline": 11, "teacher": 4 * 6}
    assert plan.parameters == {"teacher": 3 * 12 + 12 + 12 * 3 + 3, "student": 31, "baseline": 31}
    assert plan.total_steps == 44
    for words in (
        "90 rows to train on, 15 of them with a label",
        "87 parameters",
        "24 steps",
        "11 steps",
        "seeds     0, 1",
    ):
        assert words in str(plan)
    assert json.loads(json.dumps(plan.summary())) == plan.summary()
    assert list(tmp_path.iterdir()) == list(cache.iterdir()) == []


# --- what is refused, with nothing half-written -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        (["data.labeled=1000"], DataError, "labeled: 1000 wants 334"),
        (["data.target=colour"], DataError, "no column 'colour'"),
        (["data.table=none.csv"], DataError, "none.csv is not a file"),
        (["data.omit=[z]"], DataError, "omit names the class 'z'"),
        (["teacher={model: nowhere}"], RecipeError, "teacher.model: 'nowhere' is no folder"),
        (["~objective.soft", "objective.soft={alpha_beta: {alpha: 0, beta: 0}}"], RecipeError, "objective.soft"),
        (["student={timm: resnet18}"], Exception, "takes images|not installed"),
    ],
)
def test_failed_starts_leave_nothing(clouds, tmp_path, overrides, error, words):
    with pytest.raises(error, match=words):
        run(load(clouds, overrides), tmp_path / "deep" / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_refused(recipe, tmp_path, refused):
    (tmp_path / "mine.txt").write_text("mine")
    with refused(RunFolderError, "is there already and not empty", "choose a new folder"):
        run(recipe, tmp_path)
    with refused(RunFolderError, "is there already", "choose a new folder"):
        run(recipe, tmp_path / "mine.txt")
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.txt"]
    with refused(RunFolderError, "cannot be written", "choose another folder"):
        run(recipe, tmp_path / "mine.txt" / "run")
    with refused(RunFolderError, "no recipe to run", "resume"):
        run(None, tmp_path / "new")


def test_a_start_that_fails_while_writing_is_undone(recipe, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tutelage.runs._classification.write_arrays", full)
    with pytest.raises(RunFolderError, match="No space left"):
        run(recipe, tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunFolderError, match="No space left"):
        run(recipe, tmp_path / "empty")
    assert [entry.name for entry in tmp_path.iterdir()] == ["empty"]
    assert list((tmp_path / "empty").iterdir()) == []


# --- the cache of teachers --------------------------------------------------------------------------------------------


def teacher_events(recipe, folder):
    events = []
    run(recipe, folder, on_event=events.append)
    return [event for event in events if isinstance(event, (TeacherFitted, TeacherReused, Note))]


@pytest.fixture
def quick(clouds):
    return ["training.seeds=1", "training.steps=1", "~baseline"]


def test_a_teacher_is_kept_under_what_made_it(clouds, quick, tmp_path):
    first = load(clouds, quick)
    assert [type(e) for e in teacher_events(first, tmp_path / "0")] == [TeacherFitted]
    same = load(clouds, [*quick, "training.learning_rate=0.1", "student.mlp.hidden=[5]", "data.labeled=30"])
    assert [type(e) for e in teacher_events(same, tmp_path / "1")] == [TeacherReused]
    others = ["teacher.fit.seed=1", "teacher.fit.epochs=5", "teacher.mlp.dropout=0.2", "data.test_fraction=0.5"]
    for number, other in enumerate(others):
        changed = load(clouds, [*quick, other])
        assert [type(e) for e in teacher_events(changed, tmp_path / f"other-{number}")] == [TeacherFitted]


@pytest.mark.parametrize("damage", ["flip", "cut", "no card", "no record"])
def test_a_damaged_teacher_is_fitted_again(clouds, quick, tmp_path, cache, damage, digests):
    recipe = load(clouds, quick)
    run(recipe, tmp_path / "0")
    (place,) = (entry for entry in (cache / "teachers").iterdir() if entry.is_dir())
    weights = place / "model.safetensors"
    data = bytearray(weights.read_bytes())
    if damage == "flip":
        data[-5] ^= 1
    weights.write_bytes(data[:-1] if damage == "cut" else data)
    if damage == "no card":
        (place / "model.json").unlink()
    if damage == "no record":
        (place / "manifest.json").write_text("{")
    note, fitted = teacher_events(recipe, tmp_path / "1")
    assert "damaged and is fitted again" in note.text
    assert isinstance(fitted, TeacherFitted)
    assert [type(e) for e in teacher_events(recipe, tmp_path / "2")] == [TeacherReused]
    assert digests(tmp_path / "0") == digests(tmp_path / "1") == digests(tmp_path / "2")


def test_a_cache_that_cannot_be_written(clouds, quick, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "file"))
    note, fitted = teacher_events(load(clouds, quick), tmp_path / "run")
    assert "fitted for this run alone" in note.text
    assert fitted.kept is None


# --- scored anew ------------------------------------------------------------------------------------------------------


def test_evaluating_gives_the_same_scores(recipe, tmp_path, digests, refused):
    events = []
    summary = run(recipe, tmp_path / "run", on_event=events.append)
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    before = digests(tmp_path / "run")
    (tmp_path / "run" / "scores.json").unlink()
    (tmp_path / "run" / "seed-0" / "student" / "evaluation.safetensors").unlink()
    assert evaluate(tmp_path / "run") == summary.scores
    assert digests(tmp_path / "run") == before
    with refused(RunFolderError, "not a folder", "tutelage train"):
        evaluate(tmp_path / "none")


def test_evaluating_and_saving_more_often_changes_no_student(clouds, tmp_path):
    """The student has dropout, so each random number drawn in between would show."""
    once = ["training.seeds=1", "~baseline", "training.evaluations=1", "training.checkpoints=1"]
    often = ["training.seeds=1", "~baseline", "training.evaluations=11", "training.checkpoints=11"]
    for name, overrides in (("once", once), ("often", often)):
        run(load(clouds, overrides), tmp_path / name)
    student = "seed-0/student/model/model.safetensors"
    assert (tmp_path / "once" / student).read_bytes() == (tmp_path / "often" / student).read_bytes()
