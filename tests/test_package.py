"""The surface: what the names are, that they are documented, and that they come without waiting for torch."""

import copy
import importlib
import inspect
import pickle
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass

import pytest
import torch

import tutelage as tl
from tutelage.divergences import ALL, Divergence, PerToken, Pointwise, WholeBatch

PUBLIC_MODULES = ["tutelage", "tutelage.divergences", "tutelage.errors", "tutelage.execution"]
ERRORS = [getattr(tl.errors, name) for name in tl.errors.__all__]


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


# --- importing --------------------------------------------------------------------------------------------------------


def test_importing_loads_no_torch():
    heavy = "['torch', 'numpy', 'transformers', 'triton']"
    assert run(f"import sys, tutelage; print([name for name in {heavy} if name in sys.modules])") == "[]\n"
    # Nor does asking what there is, which shells and completions do.
    assert run("import sys, tutelage; dir(tutelage); tutelage.errors; print('torch' in sys.modules)") == "False\n"
    assert run("import sys, tutelage; tutelage.ForwardKL; print('torch' in sys.modules)") == "True\n"


def test_importing_is_quick():
    """The best of three, with the interpreter's own start taken off: a hundredth of what torch takes."""
    code = "import time; start = time.process_time(); import tutelage; print(time.process_time() - start)"
    assert min(float(run(code)) for _ in range(3)) < 0.1


def test_a_name_that_does_not_exist():
    with pytest.raises(AttributeError, match="module 'tutelage' has no attribute 'Forward_KL'"):
        _ = tl.Forward_KL
    with pytest.raises(ImportError, match="Forward_KL"):
        from tutelage import Forward_KL  # noqa: F401


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_all_is_sorted_and_true(name):
    module = importlib.import_module(name)
    assert list(module.__all__) == sorted(set(module.__all__))
    for public in module.__all__:
        assert getattr(module, public) is not None


def test_what_is_public_is_what_can_be_had():
    assert dir(tl) == tl.__all__
    lazy = {*tl._HOME_OF, *tl._MODULES}
    assert lazy == set(tl.__all__)
    assert not any(name.startswith("_") for name in tl.__all__)
    # The names for type checkers are the same ones.
    source = inspect.getsource(tl)
    checked = source.split("if TYPE_CHECKING:")[1].split("__version__")[0]
    assert set(re.findall(r"\b[A-Za-z]\w*\b", re.sub(r"from [\w.]+ import", "", checked))) == set(tl.__all__)


def test_the_contract_is_there():
    contract = [
        "AdaptiveKL",
        "AlphaBeta",
        "DecoupledKD",
        "Dist",
        "DistillationLoss",
        "EnsembleDistiller",
        "FeatureDistiller",
        "FeatureTerm",
        "ForwardKL",
        "HeadStates",
        "Hellinger",
        "Jeffreys",
        "JensenShannon",
        "Labels",
        "LogitCosine",
        "LogitMSE",
        "Logits",
        "Mixture",
        "NormalizedKD",
        "Objective",
        "ProgressiveDistiller",
        "ResponseDistiller",
        "ReverseKL",
        "Sampled",
        "SkewForwardKL",
        "SkewReverseKL",
        "StandardizedKL",
        "Term",
        "TopK",
        "TotalVariation",
        "VocabularyMap",
        "divergence",
        "divergences",
        "errors",
    ]
    assert set(contract) <= set(tl.__all__)


def test_star_import():
    namespace = {}
    exec("from tutelage import *", namespace)
    assert set(tl.__all__) <= set(namespace)


def test_the_version_is_the_installed_one():
    assert re.fullmatch(r"\d+\.\d+\.\d+\w*", tl.__version__)
    assert importlib.import_module("importlib.metadata").version("tutelage") == tl.__version__


# --- documentation ----------------------------------------------------------------------------------------------------


def documented():
    for module_name in PUBLIC_MODULES:
        module = importlib.import_module(module_name)
        yield pytest.param(module, id=module_name)
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                yield pytest.param(value, id=f"{module_name}.{name}")


@pytest.mark.parametrize("value", list(documented()))
def test_every_name_is_documented(value):
    own = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
    assert own is not None
    # A dataclass without a docstring gets its signature for one.
    assert not own.startswith(f"{value.__name__}(")
    assert len(own.split("\n")[0]) > 20
    assert own.split("\n")[0].rstrip().endswith((".", ":"))


PUBLIC_CLASSES = [value for value in map(tl.__getattr__, tl.__all__) if inspect.isclass(value)]


@pytest.mark.parametrize("cls", PUBLIC_CLASSES, ids=lambda cls: cls.__name__)
def test_every_public_method_is_documented(cls):
    # What a base class documents, its subclasses need not say again.
    for name, member in inspect.getmembers(cls, lambda m: inspect.isroutine(m) or isinstance(m, property)):
        home = next((base for base in cls.__mro__ if name in vars(base)), None)
        if not name.startswith("_") and home is not None and home.__module__.startswith("tutelage"):
            assert inspect.getdoc(getattr(cls, name)), f"{cls.__name__}.{name}"
            assert member is not None


EXAMPLES = [cls for cls in PUBLIC_CLASSES if cls is not tl.Outcome]


@pytest.mark.parametrize("value", [*EXAMPLES, tl.divergence, tl.execution.byte_budget], ids=lambda v: v.__name__)
def test_every_door_has_an_example(value):
    assert ">>> " in value.__doc__


@pytest.mark.parametrize("cls", ALL.values(), ids=ALL)
def test_the_docstring_of_a_divergence_is_complete(cls):
    text = cls.__doc__
    assert re.search(r"`[^`]*\b[pqtz](_\w+)?\b[^`]*`", text), "a formula"
    named = r"p the teacher,\s+q\s+the\s+student|t the teacher's logits,\s+z\s+the\s+student's"
    assert re.search(named, text), "who is who"
    assert re.search(r"Shapes \((\.\.\.|N), V\)(, labels \(\.\.\.\))? -> \((\.\.\.)?\)", text), "shapes"
    assert re.search(r"[Rr]ange\s+\[", text), "a range"
    assert re.search(r"[Pp]apers?:.*?\d{4}", text, re.DOTALL), "a paper and its year"
    assert "tl.divergence(" in text, "an example that runs it"
    assert re.search(r"nats per token|no unit|a probability|squared logits", text), "a unit"
    for field in fields(cls):
        assert field.name in text, field.name
    if fields(cls):
        assert "ParameterError" in text


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_stands_in_the_tree(error):
    assert error.__name__ in tl.errors.__doc__
    assert tl.errors.__doc__.index(error.__name__) > 0


def test_the_tree_of_errors():
    for error in ERRORS:
        if error in (tl.errors.ConventionWarning, tl.errors.InputWarning):
            assert issubclass(error, UserWarning)
            continue
        assert issubclass(error, tl.errors.TutelageError)
        if error not in (tl.errors.TutelageError, tl.errors.DoubleBackwardError):
            assert issubclass(error, ValueError)
        assert str(pickle.loads(pickle.dumps(error("what came; what was expected")))) == "what came; what was expected"
    assert issubclass(tl.errors.DoubleBackwardError, RuntimeError)
    listed = [line for line in tl.errors.__doc__.split("\n") if "├── " in line or "└── " in line]
    assert len(listed) == len(ERRORS) - 3  # without the root, and the warnings below the tree


# --- divergences are values -------------------------------------------------------------------------------------------

# The contract's kinds, in the form in which recipes write them.
KINDS = [
    "forward_kl",
    "reverse_kl",
    "jensen_shannon",
    "skew_forward_kl",
    "skew_reverse_kl",
    "jeffreys",
    "total_variation",
    "hellinger",
    "alpha_beta",
    "adaptive_kl",
    "logit_mse",
    "logit_cosine",
    "decoupled_kd",
    "normalized_kd",
    "dist",
    "standardized_kl",
]


def test_all_divergences_are_listed():
    assert list(ALL) == KINDS
    public = {value for value in PUBLIC_CLASSES if issubclass(value, Divergence)}
    assert set(ALL.values()) == public
    concrete, queue = set(), [Pointwise, PerToken, WholeBatch]
    while queue:
        cls = queue.pop()
        queue += cls.__subclasses__()
        if not inspect.isabstract(cls) and cls.__module__.startswith("tutelage."):
            concrete.add(cls)
    assert concrete == public


@pytest.mark.parametrize(("kind", "cls"), ALL.items())
def test_the_kind_is_the_snake_case_of_the_name(kind, cls):
    assert cls.kind == kind
    assert kind.replace("_", "") == cls.__name__.lower()
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]+", cls.__name__)
    assert kind == "_".join(word.lower() for word in words)


# Each parameter moved off its default, so that a copy that forgets one is noticed.
MOVED = {
    "jensen_shannon": tl.JensenShannon(beta=0.2),
    "skew_forward_kl": tl.SkewForwardKL(skew=0.2),
    "skew_reverse_kl": tl.SkewReverseKL(skew=0.2),
    "alpha_beta": tl.AlphaBeta(alpha=0.2, beta=0.7),
    "adaptive_kl": tl.AdaptiveKL(mu=0.3),
    "decoupled_kd": tl.DecoupledKD(alpha=2.0, beta=1.0),
    "normalized_kd": tl.NormalizedKD(gamma=1.0),
    "dist": tl.Dist(beta=2.0, gamma=3.0),
}


@pytest.mark.parametrize("kind", ALL)
def test_divergences_are_values(kind):
    default, moved = ALL[kind](), MOVED.get(kind, ALL[kind]())
    assert is_dataclass(default)
    for one in (default, moved):
        for twin in (
            copy.deepcopy(one),
            copy.copy(one),
            pickle.loads(pickle.dumps(one)),
            eval(repr(one), tl_names()),
        ):
            assert twin == one
            assert hash(twin) == hash(one)
            assert type(twin) is type(one)
            assert vars(twin) == vars(one)
    assert (default == moved) is (kind not in MOVED)
    assert default != ALL["forward_kl" if kind != "forward_kl" else "reverse_kl"]()
    for field in fields(default):
        with pytest.raises(AttributeError):
            setattr(default, field.name, 0.5)


def tl_names():
    return {name: getattr(tl, name) for name in tl.__all__}


def test_unpickling_warns_no_more_than_making():
    with pytest.warns(tl.errors.ConventionWarning, match=r"beta = 0 is the forward KL by convention.*tends to 0"):
        end = tl.JensenShannon(beta=0.0)
    assert pickle.loads(pickle.dumps(end)) == end  # warnings are errors here
    assert copy.deepcopy(end) == end


# --- distributions ----------------------------------------------------------------------------------------------------


def test_distributions_are_compared_by_identity():
    """Tensors have no truth value: comparing by contents would raise, and hashing by contents would wait."""
    logits = torch.zeros(2, 3)
    one, two = tl.Logits(logits), tl.Logits(logits)
    assert one == one
    assert one != two
    assert len({one, two}) == 2


@pytest.mark.parametrize(
    "side",
    [
        tl.Logits(torch.zeros(2, 3), softcap=5.0),
        tl.HeadStates(torch.zeros(2, 4), torch.zeros(3, 4), torch.zeros(3), scale=2.0),
        tl.TopK(torch.tensor([[0], [1]]), torch.zeros(2, 1), {2.0: torch.zeros(2)}),
        tl.Sampled(torch.tensor([[0], [1]]), torch.ones(2, 1), 2.0, torch.zeros(2)),
        tl.Labels(torch.tensor([0, 2]), smoothing=0.1),
        tl.Mixture([tl.Logits(torch.zeros(2, 3)), tl.Logits(torch.ones(2, 3))], [1.0, 2.0]),
    ],
    ids=lambda side: type(side).__name__,
)
def test_distributions_can_be_sent(side):
    twin = pickle.loads(pickle.dumps(side))
    assert type(twin) is type(side)
    assert twin.batch_shape == side.batch_shape == torch.Size([2])
    assert twin.vocabulary_size == side.vocabulary_size
    for (name, mine), (other, theirs) in zip(twin.tensors(), side.tensors(), strict=True):
        assert name == other
        assert torch.equal(mine, theirs)
    student = torch.randn(2, 3)
    temperature = 2.0
    value = tl.divergence(student, side, temperature=temperature)
    assert tl.divergence(student, twin, temperature=temperature) == value
