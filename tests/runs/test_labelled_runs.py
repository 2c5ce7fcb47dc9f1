"""Runs about texts with a class each: what is scored and saved is what transformers alone makes of it."""

import json
import shutil

import numpy as np
import pytest
import sklearn.metrics
import torch
import transformers
from labelled_texts import written
from recipe_runs import check_refused, finished

from tutelage.config import load
from tutelage.errors import DataError, RecipeError
from tutelage.report import build_report
from tutelage.run_folder import BASELINE, RunFolder, read_arrays, read_json, read_lines
from tutelage.runs import TeacherFitted, TeacherReused, evaluate, prepare, run

CLASSES = ("argparse", "ast")
# Of a model that is changed on purpose, the manifest is no longer true.
MANIFEST = shutil.ignore_patterns("manifest.json")
SAVED = ["~teacher.bert", "~teacher.fit", "baseline=false", "training.seeds=1", "training.steps=2"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Return the file of a recipe, lines of the standard library beside it."""
    return written(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(scope="module")
def done(texts, tmp_path_factory):
    """Return the folder of a finished run, and its cache."""
    folder, told, cache = finished(texts, tmp_path_factory)
    assert any(isinstance(event, TeacherFitted) for event in told)
    return folder, cache


@pytest.fixture
def cached(done, monkeypatch):
    """Use the cache of the finished run, where the tokenizer is."""
    monkeypatch.setenv("TUTELAGE_CACHE", str(done[1]))


def _held(texts):
    return [json.loads(line) for line in (texts.parent / "held.jsonl").read_text().splitlines()]


def _alone(folder, rows):
    """Return the logits of a saved classifier, asked for one text after another by transformers alone."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return torch.cat(
            [
                model(**tokenizer(row["text"], truncation=True, max_length=24, return_tensors="pt")).logits
                for row in rows
            ]
        ).double()


def _teacher_in(folder, done, change):
    """Return a copy of the fitted teacher, its configuration changed, and its head if the change says so."""
    shutil.copytree(done[0].teacher.model, folder, ignore=MANIFEST)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    change(model)
    model.save_pretrained(folder)
    return folder


def test_scores_are_those_of_transformers_and_scikit_learn_alone(done, texts):
    folder, _ = done
    rows = _held(texts)
    truth = [CLASSES.index(row["label"]) for row in rows]
    teacher = _alone(folder.teacher.model, rows)
    assert sklearn.metrics.accuracy_score(truth, teacher.argmax(-1)) > 0.6
    for arm in (folder.teacher, folder.arm(0, "student"), folder.arm(1, "student"), folder.arm(1, BASELINE)):
        logits = _alone(arm.model, rows)
        scores = read_json(arm.scores)
        assert scores["rows"] == len(rows)
        assert scores["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(truth, logits.argmax(-1)))
        assert scores["nll"] == pytest.approx(sklearn.metrics.log_loss(truth, logits.softmax(-1)), rel=1e-5)
        if arm.path != folder.teacher.path:
            kl = torch.nn.functional.kl_div(
                logits.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="batchmean"
            )
            assert scores["kl"] == pytest.approx(float(kl), rel=1e-4, abs=1e-7)
        assert np.allclose(read_arrays(arm.evaluation, ("logits",))["logits"], logits, atol=1e-5)


def test_the_saved_student_says_names(done):
    folder = done[0].arm(0, "student").model
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    assert model.config.id2label == dict(enumerate(CLASSES))
    pipe = transformers.pipeline("text-classification", str(folder))
    assert pipe("parser.add_argument('--name')")[0]["label"] in CLASSES


def test_parts_are_told_apart(done, texts):
    record = read_json(done[0].record)
    rows = [json.loads(line) for line in (texts.parent / "texts.jsonl").read_text().splitlines()]
    known = sum(row["label"] is not None for row in rows)
    assert record["rows"] == {"train": len(rows), "labelled": 40, "fit": known, "test": 20}
    assert record["classes"] == list(CLASSES)
    lines = read_lines(done[0].arm(0, "student").metrics)
    watched = [line for line in lines if "eval_accuracy" in line][-1]
    assert watched["eval_accuracy"] == pytest.approx(read_json(done[0].arm(0, "student").scores)["accuracy"])


def test_the_page_shows_texts(done):
    page = build_report(done[0].path).read_text()
    assert "test rows" in page
    answers = [read_arrays(done[0].arm(0, name).evaluation, ("logits",))["logits"].argmax(1) for name in ("student",)]
    teacher = read_arrays(done[0].teacher.evaluation, ("logits",))["logits"].argmax(1)
    assert (answers[0] != teacher).any()
    assert '<th scope="col" class="text">text</th>' in page


def test_an_evaluation_finds_what_the_run_found(done, cached):
    before = read_json(done[0].scores)
    assert evaluate(done[0].path)["student"]["nll"]["mean"] == pytest.approx(before["student"]["nll"]["mean"])


def test_a_teachers_classes_may_stand_in_another_order(done, texts, cached, tmp_path):
    """The rows of its head and its names are swapped together, so it says what it said, by other numbers."""

    def swap(model):
        with torch.no_grad():
            for parameter in model.classifier.parameters():
                parameter.copy_(parameter.flip(0))
        model.config.id2label = {0: "ast", 1: "argparse"}

    teacher = _teacher_in(tmp_path / "swapped", done, swap)
    summary = run(load(texts, [*SAVED, f"teacher.model={teacher}"]), tmp_path / "run")
    assert read_json(RunFolder(tmp_path / "run").record)["classes"] == ["ast", "argparse"]
    first = read_json(done[0].scores)["teacher"]
    for name in ("errors", "nll", "brier"):
        assert summary.scores["teacher"][name]["mean"] == pytest.approx(first[name]["mean"], rel=1e-5)
    saved = transformers.AutoConfig.from_pretrained(tmp_path / "run/seed-0/student/model")
    assert saved.id2label == {0: "ast", 1: "argparse"}


def test_labels_may_be_the_numbers_of_a_teachers_classes(done, texts, cached, tmp_path):
    for name in ("texts", "held"):
        rows = [json.loads(line) for line in (texts.parent / f"{name}.jsonl").read_text().splitlines()]
        for row in rows:
            row["label"] = None if row["label"] is None else CLASSES.index(row["label"])
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copy(texts, tmp_path / "recipe.yaml")
    teacher = done[0].teacher.model
    summary = run(load(tmp_path / "recipe.yaml", [*SAVED, f"teacher.model={teacher}"]), tmp_path / "run")
    assert summary.scores["teacher"]["errors"]["mean"] == read_json(done[0].scores)["teacher"]["errors"]["mean"]
    assert read_json(RunFolder(tmp_path / "run").record)["classes"] == list(CLASSES)


def test_a_teacher_without_names_is_taken_by_order_and_that_is_said(done, texts, cached, tmp_path, caplog):
    def unname(model):
        model.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}

    teacher = _teacher_in(tmp_path / "unnamed", done, unname)
    prepare(load(texts, [*SAVED, f"teacher.model={teacher}"]), tmp_path / "run")
    assert "no names for its classes; they are taken to be argparse, ast" in caplog.text


def test_the_order_of_who_has_names_is_that_of_who_has_none(done, texts, cached, tmp_path, caplog):
    def unname(model):
        model.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}

    def swap(model):
        model.config.id2label = {0: "ast", 1: "argparse"}

    folders = [_teacher_in(tmp_path / change.__name__, done, change) for change in (unname, swap)]
    models = [f"teacher.model={folders[0]}", "~student.bert", f"student.model={folders[1]}"]
    plan = prepare(load(texts, [*SAVED, *models]), tmp_path / "run")
    assert plan.summary()["data"]["classes"] == ["ast", "argparse"]
    assert "parameters, with its own weights" in str(plan)
    assert "the teacher has no names for its classes; they are taken to be ast, argparse" in caplog.text
    models = [f"teacher.model={done[0].teacher.model}", *models[1:]]
    with pytest.raises(RecipeError, match="in one order") as caught:
        prepare(load(texts, [*SAVED, *models]), tmp_path / "run")
    assert caught.value.problems[0].path == "student.model"


def test_classes_that_do_not_exclude_each_other_are_refused(done, texts, cached, tmp_path):
    def many(model):
        model.config.problem_type = "multi_label_classification"

    teacher = _teacher_in(tmp_path / "many", done, many)
    with pytest.raises(RecipeError, match="multi_label_classification"):
        prepare(load(texts, [*SAVED, f"teacher.model={teacher}"]), tmp_path / "run")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({0: "argparse", 1: "json"}, r"\['argparse', 'json'\], and the data 'ast' among its 2"),
        ({0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}, "tells 3 classes apart, and the data has 2"),
    ],
)
def test_a_teacher_of_other_classes_is_refused(done, texts, cached, tmp_path, names, message):
    def rename(model):
        model.config.id2label = names
        model.classifier = torch.nn.Linear(model.config.hidden_size, len(names))

    teacher = _teacher_in(tmp_path / "other", done, rename)
    with pytest.raises(RecipeError, match=message) as caught:
        prepare(load(texts, [*SAVED, f"teacher.model={teacher}"]), tmp_path / "run")
    assert caught.value.problems[0].path == "teacher.model"


def test_a_headless_student_gets_a_head_and_a_teacher_does_not(done, texts, cached, tmp_path, caplog):
    folder = tmp_path / "base"
    shutil.copytree(done[0].teacher.model, folder, ignore=MANIFEST)
    base = transformers.BertModel.from_pretrained(folder)
    base.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}
    base.save_pretrained(folder)
    student = ["~student.bert", f"student.model={folder}"]
    run(load(texts, [*student, "training.seeds=1", "training.steps=2", "baseline=false"]), tmp_path / "run")
    assert "the head for 2 classes is new" in caplog.text
    saved = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "run/seed-0/student/model")
    assert saved.config.id2label == dict(enumerate(CLASSES))
    with pytest.raises(RecipeError, match=r"random ones would take their place"):
        prepare(load(texts, [*SAVED, f"teacher.model={folder}"]), tmp_path / "other")


def test_a_teacher_is_kept_for_the_weights_it_started_from(done, texts, cached, tmp_path):
    """The folder has one name all the time; what is in it changes."""
    folder = _teacher_in(tmp_path / "start", done, lambda model: None)
    always = ["~teacher.bert", f"teacher.model={folder}", "teacher.fit.steps=1", "baseline=false"]
    always += ["training.seeds=1", "training.steps=1", "training.evaluations=1"]
    told = []
    for number in range(3):
        if number == 2:
            model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
            torch.nn.init.zeros_(model.classifier.bias)
            model.save_pretrained(folder)
        run(load(texts, always), tmp_path / f"{number}", on_event=told.append)
    fitted = [type(event) for event in told if isinstance(event, (TeacherFitted, TeacherReused))]
    assert fitted == [TeacherFitted, TeacherReused, TeacherFitted]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
def test_adapters_are_merged_and_their_head_is_trained(done, texts, cached, tmp_path):
    pytest.importorskip("peft")
    changes = ["~student.bert", f"student.model={done[0].teacher.model}", "student.lora.rank=2", "training.seeds=1"]
    run(load(texts, [*changes, "baseline=false"]), tmp_path / "run")
    arm = RunFolder(tmp_path / "run").arm(0, "student")
    logits = _alone(arm.model, _held(texts))
    assert np.allclose(read_arrays(arm.evaluation, ("logits",))["logits"], logits, atol=1e-5)
    heads = [
        transformers.AutoModelForSequenceClassification.from_pretrained(place).classifier.weight
        for place in (arm.model, done[0].teacher.model)
    ]
    assert not torch.equal(*heads)


def test_models_of_other_tokens_are_refused(done, texts, cached, tmp_path):
    other = tmp_path / "tokens"
    shutil.copytree(done[0].teacher.model, other, ignore=MANIFEST)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    words = r"the teacher's tokenizer is not the one that makes tokens of the data.*use `tokenizer: {model: "
    with pytest.raises(RecipeError, match=words):
        prepare(load(texts, [*SAVED, f"teacher.model={other}"]), tmp_path / "run")


@pytest.mark.parametrize(
    ("overrides", "place", "words"),
    [
        (["data.packing=true"], "data.packing", "a class of its own"),
        (["data.mask=0.2"], "data.mask", "write `task: masked_lm`"),
        (["data.long_completions=drop"], "data.long_completions", "no completions"),
        (["data.limit_tokens=100"], "data.limit_tokens", "`labeled` limits"),
        (["task=masked_lm", "~data.labeled", "data.missing=[-1]"], "data.missing", "is for `task: sequence_class"),
        (["data.missing=[true]"], "data.missing[0]", "expected the name of a class"),
        (["task=masked_lm"], "data.labeled", "is for `task: sequence_classification`"),
        (["task=causal_lm", "~data.labeled", "data.target=kind"], "data.target", "is for `task: sequence_class"),
        (["~data", "data.source=pystdlib"], "data", "have no classes"),
        (["~data", "data.source=digits"], "data", "expected {text: <files>}"),
        (["task=classification"], "data", "or `task: sequence_classification`"),
        (["student={mlp: {hidden: [4]}}"], "student", "mlp makes no classifiers of texts; expected {bert:"),
        (["training.mix=0.5"], "training.mix", "cannot be mixed"),
        (["~data.tokenizer"], "student", "brings no tokenizer"),
    ],
)
def test_what_the_schema_refuses(texts, overrides, place, words):
    check_refused(texts, overrides, place, words)


SOFT_ALONE = [*SAVED, "~objective.hard", "~data.labeled"]


def _without_labels(texts, folder, **value):
    """Write the recipe and its texts into a folder, with this label in place of theirs."""
    folder.mkdir()
    for name in ("recipe.yaml", "held.jsonl"):
        shutil.copy(texts.parent / name, folder / name)
    rows = [json.loads(line) for line in (texts.parent / "texts.jsonl").read_text().splitlines()]
    lines = [json.dumps({"text": row["text"], **value}) + "\n" for row in rows]
    (folder / "texts.jsonl").write_text("".join(lines))
    return folder / "recipe.yaml"


def test_a_ready_teacher_needs_no_label(done, texts, cached, tmp_path):
    """The student learns what it learns beside labels that no term reads, to the byte; it is scored and shown, too."""
    changes = [*SOFT_ALONE, f"teacher.model={done[0].teacher.model}"]
    bare = _without_labels(texts, tmp_path / "bare")
    with_labels = run(load(texts, changes), tmp_path / "with")
    without = run(load(bare, changes), tmp_path / "without")
    files = [RunFolder(tmp_path / name).arm(0, "student").model / "model.safetensors" for name in ("with", "without")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert without.scores["student"] == with_labels.scores["student"]
    record = read_json(RunFolder(tmp_path / "without").record)
    assert record["rows"] == {**read_json(RunFolder(tmp_path / "with").record)["rows"], "labelled": 0, "fit": 0}
    assert record["classes"] == list(CLASSES)
    assert evaluate(tmp_path / "without")["student"]["nll"] == without.scores["student"]["nll"]
    assert "test rows" in build_report(tmp_path / "without").read_text()
    for name, value in {"null": None, "empty": "", "nan": float("nan"), "minus": -100}.items():
        plan = prepare(load(_without_labels(texts, tmp_path / name, label=value), changes), tmp_path / "run")
        assert plan.rows == record["rows"]


def test_what_needs_a_label_says_so_where_there_is_none(done, texts, cached, tmp_path):
    bare = _without_labels(texts, tmp_path / "bare", label=None)
    teacher = f"teacher.model={done[0].teacher.model}"
    soft = [*SOFT_ALONE, teacher]
    for changes in (
        [*SAVED, "~data.labeled", teacher],  # a term to the labels
        [*soft, "baseline=true"],
        ["~objective.hard", "~data.labeled", "baseline=false"],  # a teacher that is fitted
        [*soft, "~objective.soft.forward_kl", "objective.soft.decoupled_kd={}"],
        [*soft, "data.labeled=4"],
    ):
        with pytest.raises(DataError, match="no training row has a label"):
            prepare(load(bare, changes), tmp_path / "run")
    with pytest.raises(DataError, match=r"of 0 texts with a label .* a file of test rows"):
        prepare(load(bare, [*soft, "~data.test"]), tmp_path / "run")

    def unname(model):
        model.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}

    unnamed = [*SOFT_ALONE, f"teacher.model={_teacher_in(tmp_path / 'unnamed', done, unname)}"]
    plan = prepare(load(bare, unnamed), tmp_path / "run")
    assert plan.summary()["data"]["classes"] == list(CLASSES)
