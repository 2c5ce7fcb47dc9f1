"""From a recipe to objects: what it says is what is made, and what cannot be is a problem of the recipe."""

import pytest
import torch

import tutelage as tl
from tutelage.config import load
from tutelage.config.build import (
    collator_of,
    data_of,
    fit_arguments,
    network_of,
    objective_of,
    steps_of,
    training_arguments,
)
from tutelage.errors import RecipeError
from tutelage.models import build_model, save_model
from tutelage.training import MixingCollator

without_gpu = pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has a GPU")


@pytest.fixture
def problem():
    """Return a context that wants a recipe's error at this place."""
    from contextlib import contextmanager

    @contextmanager
    def context(path, words):
        with pytest.raises(RecipeError, match=words) as caught:
            yield
        assert [one.path for one in caught.value.problems] == [path]

    return context


def test_the_objective_is_what_the_recipe_says(clouds):
    recipe = load(clouds, ["objective.gap={jensen_shannon: {beta: 0.3}, temperature: 3, scale_by_temperature: false}"])
    assert objective_of(recipe, "student").terms == {
        "soft": tl.Term(tl.ForwardKL(), temperature=2.0, weight=0.9),
        "hard": tl.Term(tl.ForwardKL(), teacher="labels", weight=0.1),
        "gap": tl.Term(tl.JensenShannon(beta=0.3), temperature=3.0, scale_by_temperature=False),
    }


def test_the_baseline_has_labels_alone(clouds):
    assert objective_of(load(clouds), "baseline").terms == {"hard": tl.Term(tl.ForwardKL(), teacher="labels")}
    two = load(clouds, ["objective.far={total_variation: {}, teacher: labels, weight: 0.3}"])
    weights = {name: term.weight for name, term in objective_of(two, "baseline").terms.items()}
    assert weights == {"hard": 0.25, "far": pytest.approx(0.75)}
    none = load(clouds, ["~objective.hard"])
    assert objective_of(none, "baseline").terms == {"hard": tl.Term(tl.ForwardKL(), teacher="labels")}


def test_parameters_that_mean_nothing_together(clouds, problem):
    recipe = load(clouds, ["~objective.soft", "objective.soft={alpha_beta: {alpha: 0, beta: 0}}"])
    with problem("objective.soft.alpha_beta", "alpha"):
        objective_of(recipe, "student")


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        (["training.steps=7"], 7),
        (["~training.steps", "training.epochs=3"], 3 * 12),
        (["~training.steps", "training.epochs=3", "training.accumulation=5"], 3 * 3),
        (["~training.steps", "training.epochs=2", "training.batch_size=90"], 2),
    ],
)
def test_steps(clouds, overrides, steps):
    recipe = load(clouds, overrides)
    assert steps_of(recipe, len(data_of(recipe).train)) == steps


def test_arguments(clouds, tmp_path):
    recipe = load(clouds, ["training.warmup=0.2", "training.schedule=constant", "training.precision=bfloat16"])
    arguments = training_arguments(recipe, 100, tmp_path, 3)
    assert arguments.max_steps == 100
    assert (arguments.warmup_steps, arguments.lr_scheduler_type) == (20, "constant_with_warmup")
    assert (arguments.bf16, arguments.fp16) == (True, False)
    assert (arguments.eval_steps, arguments.save_steps, arguments.logging_steps) == (34, 50, 1)
    assert (arguments.seed, arguments.learning_rate, arguments.weight_decay) == (3, 0.01, 0.01)
    assert arguments.report_to == []
    assert list(tmp_path.iterdir()) == []


def test_devices(clouds, problem, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with problem("training.device", "no GPU here; use auto or cpu"):
        training_arguments(load(clouds, ["training.device=cuda"]), 10, tmp_path, 0)


@without_gpu
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_precisions_without_a_gpu(clouds, problem, tmp_path, device):
    """A CPU has bfloat16, and no float16; it would be float32 without a word."""
    named = [f"training.device={device}"]
    arguments = training_arguments(load(clouds, [*named, "training.precision=bfloat16"]), 10, tmp_path, 0)
    assert (arguments.device.type, arguments.mixed_precision) == ("cpu", "bf16")
    with problem("training.precision", "float16 takes a GPU, .* use bfloat16, which a CPU has, or float32"):
        training_arguments(load(clouds, [*named, "training.precision=float16"]), 10, tmp_path, 0)


def test_terms_that_processes_cannot_share(clouds, problem, tmp_path, monkeypatch):
    recipe = load(clouds, ["objective.rows={dist: {}}"])
    training_arguments(recipe, 10, tmp_path, 0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with problem("objective.rows.dist", "each of 2 processes has a share of them; expected one process"):
        training_arguments(recipe, 10, tmp_path, 0)


@pytest.mark.parametrize("processes", [1, 8])
def test_one_row_is_not_mixed(clouds, problem, tmp_path, monkeypatch, processes):
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    with problem("training.mix", f"one row, .*expected training.batch_size={2 * processes} or more"):
        training_arguments(load(clouds, [f"training.batch_size={processes}"]), 10, tmp_path, 0)


def test_a_launcher_has_no_precision_of_its_own(clouds, problem, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with problem("training.precision", "float32 is asked for, and bf16 by the launcher"):
        training_arguments(load(clouds), 10, tmp_path, 0)
    recipe = load(clouds, ["training.precision=bfloat16"])
    assert training_arguments(recipe, 10, tmp_path, 0).mixed_precision == "bf16"
    assert fit_arguments(recipe, recipe.teacher.fit, 10, tmp_path).mixed_precision == "no"


def test_a_launcher_that_asks_for_the_cpu(clouds, problem, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    with problem("training.device", "ACCELERATE_USE_CPU asks for the CPU"):
        training_arguments(load(clouds, ["training.device=cuda"]), 10, tmp_path, 0)


def test_only_the_student_is_mixed(recipe, clouds):
    assert isinstance(collator_of(recipe, "student", 0), MixingCollator)
    assert not isinstance(collator_of(recipe, "baseline", 0), MixingCollator)
    assert not isinstance(collator_of(load(clouds, ["training.mix=0"]), "student", 0), MixingCollator)


def test_a_network_is_a_function_of_its_seed_alone(recipe):
    data = data_of(recipe)
    torch.manual_seed(1)
    first, _ = network_of(recipe.student, "student", data, 4)
    torch.manual_seed(2)
    again, architecture = network_of(recipe.student, "student", data, 4)
    other, _ = network_of(recipe.student, "student", data, 5)
    assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(2))
    for name, value in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    assert not torch.equal(other.layers[0].weight, first.layers[0].weight)
    assert torch.allclose(first.mean.flatten(), data.train.inputs.mean(0))
    assert architecture == {"mlp": {"hidden": [4], "dropout": 0.2, "activation": "relu"}}


def test_weights_of_its_own(recipe, clouds, tmp_path, problem):
    data = data_of(recipe)
    spec = {"mlp": {"hidden": [12]}}

    def saved(name, shape=(3,), classes=("a", "b", "c"), spec=spec):
        module = build_model(spec, shape, len(classes))
        save_model(module, spec, tmp_path / name, shape=shape, classes=classes)
        return module, tmp_path / name

    module, folder = saved("good")
    x = torch.rand(5, 3)
    for words in (f"{{mlp: {{hidden: [12]}}, weights: {folder}}}", f"{{model: {folder}}}"):
        teacher, _ = network_of(load(clouds, [f"teacher={words}"]).teacher, "teacher", data, 0)
        assert torch.equal(teacher.eval()(x), module.eval()(x))
    file = folder / "model.safetensors"
    teacher, _ = network_of(
        load(clouds, [f"teacher={{mlp: {{hidden: [12]}}, weights: {file}}}"]).teacher, "teacher", data, 0
    )
    assert torch.equal(teacher.eval()(x), module.eval()(x))

    def wrong(words):
        network_of(load(clouds, [f"teacher={words}"]).teacher, "teacher", data, 0)

    _, four = saved("four", classes=tuple("abcd"))
    _, renamed = saved("renamed", classes=tuple("acb"))
    _, wide = saved("wide", shape=(4,))
    with problem("teacher.model", "tells 4 classes apart, and the data has 3"):
        wrong(f"{{model: {four}}}")
    with problem("teacher.weights", "tells 4 classes apart, and the data has 3"):
        wrong(f"{{mlp: {{hidden: [12]}}, weights: {four}}}")
    with problem("teacher.weights", r"has shape \(4, 12\); expected \(3, 12\).*number of classes"):
        wrong(f"{{mlp: {{hidden: [12]}}, weights: {four / 'model.safetensors'}}}")
    with problem("teacher.model", "knows the classes .*'a', 'c', 'b'.* in one order"):
        wrong(f"{{model: {renamed}}}")
    with problem("teacher.model", r"takes inputs of shape \(4,\); the data has \(3,\)"):
        wrong(f"{{model: {wide}}}")
    with problem("teacher.model", "is no folder here"):
        wrong("{model: someone/some-model}")
    with problem("teacher.weights", "is not there"):
        wrong(f"{{mlp: {{hidden: [12]}}, weights: {tmp_path / 'none'}}}")
