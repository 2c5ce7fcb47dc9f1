"""Each mistake in a recipe gives one message that says where it is, what came, and what was expected."""

import textwrap

import pytest

from tutelage.config import load
from tutelage.errors import InputError, RecipeError

GOOD = """\
data: {source: digits, labeled: 100}
teacher: {mlp: {hidden: [32]}, fit: {epochs: 2}}
student:
  mlp: {hidden: [4]}
objective:
  soft: {forward_kl: {}, temperature: 4}
  hard:
    forward_kl:
    teacher: labels
training:
  epochs: 3
baseline: true
"""


@pytest.fixture
def problems(tmp_path):
    """Return a function from the text of a recipe to the lines of its error."""

    def of(text, overrides=()):
        path = tmp_path / "r.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(RecipeError) as caught:
            load(path, overrides)
        assert isinstance(caught.value, InputError)
        return [line.removeprefix(f"{tmp_path}/") for line in str(caught.value).split("\n")]

    return of


def test_the_good_recipe_is_good(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(GOOD)
    recipe = load(path)
    assert recipe.objective["hard"].teacher == "labels"
    assert (recipe.training.epochs, recipe.training.steps) == (3, None)


# (what is replaced, by what; the line, the setting and the message of the problem)
MISTAKES = [
    ("temperature: 4", "temprature: 4", 6, "objective.soft.temprature", "unknown key; did you mean 'temperature'?"),
    ("forward_kl: {}", "forwrd_kl: {}", 6, "objective.soft.forwrd_kl", "unknown key; did you mean 'forward_kl'?"),
    ("  epochs: 3", "  lr: 3", 11, "training.lr", "unknown key; did you mean 'learning_rate'?"),
    ("  epochs: 3", "  batchSize: 3", 11, "training.batchSize", "unknown key; did you mean 'batch_size'?"),
    ("student:\n  mlp", "student:\n  mpl", 4, "student.mpl", "unknown key; did you mean 'mlp'?"),
    ("labeled: 100", "labelled: 100", 1, "data.labelled", "unknown key; did you mean 'labeled'?"),
    ("  epochs: 3", "  baseline: true", 11, "training.baseline", "unknown key here; it belongs to the recipe itself"),
    ("baseline: true", "epochs: 3", 12, "epochs", "unknown key here; it belongs to `training`"),
    (
        "forward_kl: {}",
        "forward_kl: {a: 1}",
        6,
        "objective.soft.forward_kl.a",
        "unknown key; there is nothing to set here",
    ),
    ("  epochs: 3", "  epochs: ten", 11, "training.epochs", "expected a whole number; got the text 'ten'"),
    ("  epochs: 3", "  epochs: 3.0", 11, "training.epochs", "expected a whole number; got 3.0"),
    ("  epochs: 3", "  epochs: true", 11, "training.epochs", "expected a whole number; got true"),
    ("  epochs: 3", "  epochs: 0", 11, "training.epochs", "expected a number >= 1, got 0"),
    ("temperature: 4", "temperature: 0", 6, "objective.soft.temperature", "expected a number > 0, got 0"),
    ("temperature: 4", "weight: .nan", 6, "objective.soft.weight", "expected a finite number; got nan"),
    ("temperature: 4", "weight: '1'", 6, "objective.soft.weight", "expected a number; got the text '1'"),
    ("baseline: true", "baseline: yes", 12, "baseline", "expected true or false; got the text 'yes'"),
    ("hidden: [4]", "hidden: [4, -1]", 4, "student.mlp.hidden[1]", "expected a number >= 1, got -1"),
    ("hidden: [4]", "hidden: 4", 4, "student.mlp.hidden", "expected a list, such as [1, 2]; got 4"),
    (
        "teacher: labels",
        "teacher: label",
        9,
        "objective.hard.teacher",
        "expected teacher or labels; got the text 'label'; did you mean 'labels'?",
    ),
    (
        "  mlp: {hidden: [4]}",
        "  mlp: {}",
        4,
        "student.mlp.hidden",
        "missing; add it (The width of each hidden layer; none makes it linear)",
    ),
    (
        "temperature: 4",
        "reverse_kl: {}",
        6,
        "objective.soft.reverse_kl",
        "stands beside forward_kl; keep one of them (an override `~path` removes one)",
    ),
    (
        "source: digits",
        "source: digits, images: x",
        1,
        "data.images",
        "stands beside source; keep one of them (an override `~path` removes one)",
    ),
    (
        ", fit: {epochs: 2}",
        "",
        2,
        "teacher",
        "the teacher's weights would be random; give `weights: <saved model>`, or `fit: {}` to train it "
        "on the labels first",
    ),
    (
        "hidden: [4]}",
        "hidden: [4]}\n  fit: {}",
        5,
        "student.fit",
        "`fit` is for the teacher; the student is trained as `training` says",
    ),
    (
        "    forward_kl:\n",
        "    reverse_kl:\n",
        9,
        "objective.hard.teacher",
        "reverse_kl to labels is infinite or has no meaning; use forward_kl, the cross-entropy",
    ),
    ("  hard:", "  loss:", 7, "objective.loss", "'loss' is the name of another number in the log; choose another name"),
    (
        "  epochs: 3",
        "  epochs: 3\n  steps: 5",
        12,
        "training.steps",
        "epochs are given too; keep one (in overrides: `training.epochs=null training.steps=100`)",
    ),
    ("  epochs: 3", "  seeds: []", 11, "training.seeds", "expected at least one seed, got an empty list"),
    ("  epochs: 3", "  seeds: [1, 1]", 11, "training.seeds", "the seed 1 stands there twice; name each once"),
    ("labeled: 100", "omit: [1, 1]", 1, "data.omit", "1 stands there twice; name each once"),
    (
        "{source: digits, labeled: 100}",
        "{table: rows.txt, target: y}",
        1,
        "data.table",
        "expected a file that ends in .csv, .tsv, .parquet or .npz, got rows.txt",
    ),
    (
        "{source: digits, labeled: 100}",
        "{table: '', target: y}",
        1,
        "data.table",
        "expected the path of a file or folder, got ''",
    ),
    (
        "baseline: true",
        "baseline: true\nbaseline: false",
        13,
        "baseline",
        "the key comes twice, first in line 12; keep one of them",
    ),
    ("epochs: 3", "epochs: !!int 3", 11, "training.epochs", "the tag tag:yaml.org,2002:int; remove it"),
    ("epochs: 3", "epochs: &a 3", 11, "training.epochs", "the anchor &a; remove it"),
]


@pytest.mark.parametrize(("old", "new", "line", "path", "message"), MISTAKES)
def test_one_mistake_one_message(problems, old, new, line, path, message):
    assert old in GOOD
    assert problems(GOOD.replace(old, new, 1)) == [f"r.yaml:{line}: {path}: {message}"]


def test_a_term_without_a_kind_lists_them_all(problems):
    (message,) = problems(GOOD.replace("forward_kl: {}, ", ""))
    assert message.startswith("r.yaml:6: objective.soft: expected a term, such as {forward_kl: {}, temperature: 4}")
    assert "alpha_beta, adaptive_kl" in message


def test_the_teacher_is_asked_for_by_terms_that_need_it(problems):
    without = GOOD.replace("teacher: {mlp: {hidden: [32]}, fit: {epochs: 2}}\n", "")
    assert problems(without) == [
        "r.yaml:5: objective.soft: compares with the teacher, and the recipe has none; add `teacher:`, or "
        "`teacher: labels` here",
        "r.yaml:11: baseline: the baseline is the student without its teacher, and the recipe has none; remove "
        "`baseline`",
    ]
    alone = GOOD.replace("  soft: {forward_kl: {}, temperature: 4}\n", "")
    assert problems(alone) == [
        "r.yaml:5: objective: no term compares with the teacher; add one, or remove `teacher:` from the recipe"
    ]


def test_all_problems_at_once_in_the_order_of_the_file(problems):
    text = """\
        task: causal
        data: {source: digit}
        teacher: {timm: resnet18}
        student: {mlp: {hidden: [4], dropout: 1}}
        objective: {soft: {jensen_shannon: {beta: 2}}, hard: 5}
        training: {precision: half, device: tpu}
        colour: red
        """
    found = problems(textwrap.dedent(text), ["training.epochs=x", "nonsense"])
    places = [line.split(": ")[:2] for line in found]
    assert places == [
        ["r.yaml:1", "task"],
        ["r.yaml:2", "data.source"],
        ["r.yaml:3", "teacher"],
        ["r.yaml:4", "student.mlp.dropout"],
        ["r.yaml:5", "objective.soft.jensen_shannon.beta"],
        ["r.yaml:5", "objective.hard"],
        ["r.yaml:6", "training.precision"],
        ["r.yaml:6", "training.device"],
        ["r.yaml:7", "colour"],
        ["override 'nonsense'", "expected key.sub=value, or ~key.sub to remove a setting"],
        ["override 'training.epochs=x'", "training.epochs"],
    ]


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "5\n", "text\n", "[]\n", "null\n"])
def test_what_is_no_mapping(problems, text):
    (message,) = problems(text)
    assert message.startswith("r.yaml:1: expected keys with values, such as `data:` and `student:`; got ")


def test_a_problem_keeps_its_parts(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(GOOD.replace("epochs: 3", "epochs: x"))
    with pytest.raises(RecipeError) as caught:
        load(path)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.path) == (str(path), 11, "training.epochs")
    assert str(problem) == f"{path}:11: training.epochs: {problem.message}"
