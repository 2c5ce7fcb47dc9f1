"""What can be told from shapes, dtypes, devices and numbers alone: refused before any value is looked at."""

import math
import re
from dataclasses import fields, replace

import pytest
import torch

import tutelage as tl
from tutelage.errors import (
    CompatibilityError,
    DeviceError,
    DtypeError,
    EmptyInputError,
    LabelError,
    ParameterError,
    ShapeError,
    TeacherError,
    VocabularyError,
    WeightError,
)

N, V, K, D = 2, 4, 3, 5
LOGITS = torch.zeros(N, V)
IDS = torch.arange(K).expand(N, K)
KEPT = torch.zeros(N, K)
TAIL = torch.zeros(N)
LABELS = torch.zeros(N, dtype=torch.int64)
HIDDEN, WEIGHT, BIAS = torch.zeros(N, D), torch.zeros(V, D), torch.zeros(V)


def soft(**arguments):
    return tl.Objective({"soft": tl.Term(tl.ForwardKL())})(LOGITS, {"teacher": LOGITS}, **arguments)


# --- temperature ------------------------------------------------------------------------------------------------------

# Zero and below, what is not finite, and what is no number: each is wrong in its own way, None is a forgotten setting.
NOT_A_TEMPERATURE = [0, 0.0, -1.0, math.inf, -math.inf, math.nan, True, "2", None]
# Every place that takes a temperature.
TAKES_A_TEMPERATURE = {
    "divergence": lambda t: tl.divergence(LOGITS, LOGITS, temperature=t),
    "Term": lambda t: tl.Term(tl.ForwardKL(), temperature=t),
    "Sampled": lambda t: tl.Sampled(IDS, torch.full((N, K), 1 / K), temperature=t),
    "TopK.log_tails": lambda t: tl.TopK(IDS, KEPT, {t: TAIL}),
    "DistillationLoss": lambda t: tl.DistillationLoss(temperature=t),
    "pure_kl": lambda t: tl.ResponseDistiller.pure_kl(t),
    "EnsembleDistiller": lambda t: tl.EnsembleDistiller([1.0], temperature=t),
    "EnsembleDistiller.uniform": lambda t: tl.EnsembleDistiller.uniform(1, temperature=t),
    "ProgressiveDistiller": lambda t: tl.ProgressiveDistiller([1.0], temperature=t),
}


@pytest.mark.parametrize("bad", NOT_A_TEMPERATURE, ids=repr)
@pytest.mark.parametrize("call", TAKES_A_TEMPERATURE.values(), ids=TAKES_A_TEMPERATURE)
def test_temperature(refused, call, bad):
    with refused(ParameterError, rf"temperature={bad!r}", "finite number > 0"):
        call(bad)


# T = 1e200 is a finite number > 0, but its square is none; 1e-50 is 0 in float32, where the logits are divided by it.
@pytest.mark.parametrize("extreme", [1e200, 1e-50])
def test_a_temperature_out_of_the_range_of_the_arithmetic(refused, extreme):
    with refused(ParameterError, f"temperature.*{re.escape(repr(extreme))}", "expected|must"):
        tl.DistillationLoss(temperature=extreme)(LOGITS, LOGITS, LABELS)


# --- parameters of divergences, terms and modules ---------------------------------------------------------------------

NO_NUMBER = [math.nan, math.inf, "1", None, True]
# For each parameter: numbers outside its interval. The ends count only where the interval is open.
OUTSIDE = {
    tl.JensenShannon: {"beta": [-0.1, 1.1]},
    tl.SkewForwardKL: {"skew": [0.0, 1.0, -0.1, 1.1]},
    tl.SkewReverseKL: {"skew": [0.0, 1.0, -0.1, 1.1]},
    tl.AlphaBeta: {"alpha": [-0.1], "beta": [-0.1]},
    tl.AdaptiveKL: {"mu": [0.0, 1.0, -0.1]},
    tl.DecoupledKD: {"alpha": [-0.1], "beta": [-0.1]},
    tl.NormalizedKD: {"gamma": [-0.1]},
    tl.Dist: {"beta": [-0.1], "gamma": [-0.1]},
}


def test_every_parameter_of_every_divergence_is_in_the_table():
    assert OUTSIDE.keys() == {cls for cls in tl.divergences.ALL.values() if fields(cls)}
    assert all(set(names) == {field.name for field in fields(cls)} for cls, names in OUTSIDE.items())


@pytest.mark.parametrize(
    ("cls", "name", "bad"),
    [
        (cls, name, bad)
        for cls, names in OUTSIDE.items()
        for name, outside in names.items()
        for bad in [*outside, *NO_NUMBER]
    ],
)
def test_parameters_of_divergences(refused, cls, name, bad):
    with refused(ParameterError, rf"{cls.__name__}\({name}={bad!r}\)", rf"{name} must be a finite number in [\[(]\d"):
        cls(**{name: bad})


def test_alpha_beta_needs_one_of_them(refused):
    with refused(ParameterError, "alpha=0, beta=0", r"must be > 0; \(1, 0\) is the forward KL"):
        tl.AlphaBeta(0.0, 0.0)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, True, "1", None], ids=repr)
@pytest.mark.parametrize(
    "make",
    [
        lambda weight: tl.Term(tl.ForwardKL(), weight=weight),
        lambda weight: tl.FeatureTerm(tl.LogitMSE(), "a", "b", weight=weight),
    ],
    ids=["Term", "FeatureTerm"],
)
def test_term_weight(refused, make, bad):
    with refused(ParameterError, rf"Term\(weight={bad!r}\)", "finite number >= 0"):
        make(bad)


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan, math.inf, True, "1", None], ids=repr)
@pytest.mark.parametrize(
    ("name", "call"),
    [
        pytest.param("alpha", lambda a: tl.DistillationLoss(alpha=a), id="DistillationLoss"),
        pytest.param("alpha", lambda a: tl.EnsembleDistiller([1])(LOGITS, [LOGITS], LABELS, a), id="EnsembleDistiller"),
        pytest.param(
            "alpha",
            lambda a: tl.ProgressiveDistiller([1])(LOGITS, LOGITS, LABELS, [LOGITS], [LOGITS], alpha=a),
            id="ProgressiveDistiller-alpha",
        ),
        pytest.param(
            "beta",
            lambda b: tl.ProgressiveDistiller([1])(LOGITS, LOGITS, LABELS, [LOGITS], [LOGITS], beta=b),
            id="ProgressiveDistiller-beta",
        ),
    ],
)
def test_shares(refused, name, call, bad):
    with refused(ParameterError, rf"{name}={bad!r}", r"share in \[0, 1\]"):
        call(bad)


PARAMETERS = {
    "softcap-zero": (lambda: tl.Logits(LOGITS, softcap=0.0), r"Logits\(softcap=0.0\)", "> 0, or None"),
    "softcap-negative": (lambda: tl.HeadStates(HIDDEN, WEIGHT, softcap=-1.0), r"softcap=-1.0", "> 0, or None"),
    "softcap-infinite": (lambda: tl.Logits(LOGITS, softcap=math.inf), r"softcap=inf", "finite number > 0, or None"),
    "scale-zero": (lambda: tl.HeadStates(HIDDEN, WEIGHT, scale=0.0), r"HeadStates\(scale=0.0\)", "> 0, or None"),
    "scale-nan": (lambda: tl.Logits(LOGITS, scale=math.nan), r"scale=nan", "finite number > 0, or None"),
    "smoothing-negative": (lambda: tl.Labels(LABELS, smoothing=-0.1), r"smoothing=-0.1", r"in \[0, 1\]"),
    "smoothing-above-1": (lambda: tl.Labels(LABELS, smoothing=1.1), r"smoothing=1.1", r"in \[0, 1\]"),
    "smoothing-nan": (lambda: tl.Labels(LABELS, smoothing=math.nan), r"smoothing=nan", r"in \[0, 1\]"),
    "tail": (lambda: tl.TopK(IDS, KEPT, tail="rest"), "tail='rest'", "'bucket' or 'renormalize'"),
    "space": (lambda: tl.Mixture([tl.Logits(LOGITS)], space="odds"), "space='odds'", "'probability' or 'logit'"),
    "ensemble-space": (
        lambda: tl.EnsembleDistiller([1.0], space="odds"),
        "space='odds'",
        "'logit' or 'probability'",
    ),
    "reduction": (
        lambda: tl.divergence(LOGITS, LOGITS, reduction="batchmean"),
        "reduction='batchmean'",
        "'mean', 'sum' or 'none'",
    ),
    "teacher-name": (lambda: tl.Term(tl.ForwardKL(), teacher=3), "teacher=3", "name of a teacher"),
    "uniform-mse": (lambda: tl.FeatureDistiller.uniform_mse(0), r"uniform_mse\(0\)", "number of layers >= 1"),
    "uniform": (lambda: tl.EnsembleDistiller.uniform(0), r"uniform\(0\)", "number of teachers >= 1"),
    "layer": (
        lambda: tl.FeatureDistiller.uniform_mse(2).layer_loss(2, LOGITS, LOGITS),
        "layer 2 does not exist",
        "layers 0 to 1",
    ),
    "token-weights-of-no-term": (
        lambda: soft(token_weights={"hard": TAIL}),
        "token_weights names.*'hard'",
        r"\['soft'\]",
    ),
    "normalizer-of-no-term": (lambda: soft(normalizer={"hard": 1.0}), "normalizer names.*'hard'", r"\['soft'\]"),
}


@pytest.mark.parametrize(("call", "came", "remedy"), PARAMETERS.values(), ids=PARAMETERS)
def test_parameter(refused, call, came, remedy):
    with refused(ParameterError, came, remedy):
        call()


# --- empty input, shapes, class counts --------------------------------------------------------------------------------

EMPTY = {
    "no-rows": (
        lambda: tl.divergence(torch.zeros(0, V), torch.zeros(0, V)),
        r"\(0, 4\), without elements",
        r"\.\.\., V",
    ),
    "no-columns": (lambda: tl.Logits(torch.zeros(N, 0)), r"\(2, 0\), without elements", r"\(\.\.\., V\)"),
    "no-positions": (lambda: tl.Logits(torch.zeros(N, 0, V)), r"\(2, 0, 4\)", r"\(\.\.\., V\)"),
    "no-hidden": (lambda: tl.HeadStates(torch.zeros(0, D), WEIGHT), r"hidden has shape \(0, 5\)", r"\(\.\.\., D\)"),
    "no-outcomes": (lambda: tl.HeadStates(HIDDEN, torch.zeros(0, D)), r"weight has shape \(0, 5\)", r"\(V, D\)"),
    "no-kept-ids": (lambda: tl.TopK(IDS[:, :0], KEPT[:, :0], {1.0: TAIL}), r"\(2, 0\)", r"\(\.\.\., K\)"),
    "no-samples": (lambda: tl.Sampled(IDS[:, :0], KEPT[:, :0], 1.0), r"\(2, 0\)", r"\(\.\.\., K\)"),
    "no-labels": (lambda: tl.Labels(LABELS[:0]), r"Labels.targets has shape \(0,\)", "at least one label"),
    "no-parts": (lambda: tl.Mixture([]), r"Mixture\(\[\]\)", "at least one teacher"),
    "no-terms": (lambda: tl.Objective({}), r"Objective\(\{\}\)", "at least one term"),
    "no-teachers": (lambda: tl.EnsembleDistiller([]), r"EnsembleDistiller\(\[\]\)", "at least one teacher"),
    "no-layers": (lambda: tl.FeatureDistiller([]), r"FeatureDistiller\(\[\]\)", "at least one layer"),
    "no-progressive-layers": (lambda: tl.ProgressiveDistiller([]), r"Distiller\(\[\]\)", "at least one layer"),
    "no-soft-terms": (lambda: tl.ResponseDistiller([]), "list of terms is empty", "at least one Term"),
    "no-batch": (
        lambda: tl.DistillationLoss()(torch.zeros(0, V), torch.zeros(0, V), LABELS[:0]),
        r"without elements|has shape \(0",
        "expected",
    ),
}


@pytest.mark.parametrize(("call", "came", "remedy"), EMPTY.values(), ids=EMPTY)
def test_empty(refused, call, came, remedy):
    with refused(EmptyInputError, came, remedy):
        call()


SHAPES = {
    "a-number": (lambda: tl.Logits(torch.tensor(1.0)), "single number", r"shape \(\.\.\., V\)"),
    "rows": (
        lambda: tl.divergence(LOGITS, torch.zeros(N + 1, V)),
        r"rows \(2,\).*\(3,\)",
        "same leading dimensions on both sides",
    ),
    # A teacher that would broadcast is as wrong as one that would not.
    "one-row-for-all": (lambda: tl.divergence(LOGITS, LOGITS[:1]), r"rows \(2,\).*\(1,\)", "same leading dimensions"),
    "dimensions": (lambda: tl.divergence(LOGITS, LOGITS[None]), r"rows \(2,\).*\(1, 2\)", "same leading dimensions"),
    "batch-of-labels": (
        lambda: tl.DistillationLoss()(LOGITS, LOGITS, torch.zeros(3, dtype=torch.int64)),
        r"rows \(2,\).*\(Labels\) \(3,\)",
        "same leading dimensions",
    ),
    "one-hot-labels": (
        lambda: tl.divergence(LOGITS, tl.Labels(torch.zeros(N, V, dtype=torch.int64))),
        r"rows \(2,\).*\(Labels\) \(2, 4\)",
        "same leading dimensions",
    ),
    "labels-of-the-divergence": (
        lambda: tl.divergence(LOGITS, LOGITS, tl.DecoupledKD(), labels=torch.zeros(3, dtype=torch.int64)),
        r"labels have shape \(3,\)",
        r"expected \(2,\), one per row",
    ),
    "token-weights": (
        lambda: tl.divergence(LOGITS, LOGITS, token_weights=torch.ones(3)),
        r"token_weights have shape \(3,\)",
        r"expected \(2,\), one per row",
    ),
    "token-weights-column": (
        lambda: tl.divergence(LOGITS, LOGITS, token_weights=torch.ones(N, 1)),
        r"token_weights have shape \(2, 1\)",
        r"expected \(2,\), one per row",
    ),
    "token-weight-one-for-all": (
        lambda: tl.divergence(LOGITS, LOGITS, token_weights=torch.ones(())),
        r"token_weights have shape \(\)",
        r"expected \(2,\), one per row",
    ),
    "head-weight-transposed": (
        lambda: tl.HeadStates(HIDDEN, WEIGHT.T),
        r"weight has shape \(5, 4\)",
        r"expected weight \(V, 5\)",
    ),
    "head-weight-a-vector": (lambda: tl.HeadStates(HIDDEN, BIAS), r"weight has shape \(4,\)", r"weight \(V, 5\)"),
    "head-bias": (lambda: tl.HeadStates(HIDDEN, WEIGHT, BIAS[:3]), r"bias has shape \(3,\)", r"expected \(4,\)"),
    "top-k-logits": (lambda: tl.TopK(IDS, KEPT[:, :2], {1.0: TAIL}), r"\(2, 2\) and indices \(2, 3\)", "the same"),
    "top-k-tail": (
        lambda: tl.TopK(IDS, KEPT, {1.0: TAIL, 2.0: TAIL[:, None]}),
        r"log_tails\[2\] has shape \(2, 1\)",
        r"expected \(2,\), one value per row",
    ),
    "samples": (lambda: tl.Sampled(IDS, KEPT[:1], 1.0), r"\(1, 3\) and indices \(2, 3\)", "expected the same"),
    "entropy": (lambda: tl.Sampled(IDS, KEPT, 1.0, KEPT), r"entropy has shape \(2, 3\)", r"expected \(2,\)"),
    "mixture-rows": (
        lambda: tl.Mixture([tl.Logits(LOGITS), tl.Logits(LOGITS[:1])]),
        r"part 1 has rows \(1,\) and part 0 \(2,\)",
        "expected the same",
    ),
    "mixture-outcomes": (
        lambda: tl.Mixture([tl.Logits(LOGITS), tl.Logits(LOGITS[:, :3])]),
        "part 1 has 3 outcomes and part 0 4",
        "expected the same",
    ),
    "mixture-kept-ids": (
        lambda: tl.Mixture([tl.TopK(IDS, KEPT, {1.0: TAIL}), tl.TopK(IDS[:, :2], KEPT[:, :2], {1.0: TAIL})]),
        "part 1 keeps 2 ids and part 0 3",
        "share their indices",
    ),
    "normalizer": (lambda: soft(normalizer=torch.ones(3)), r"normalizer has shape \(3,\)", "one number per term"),
    "feature-loss-a-vector": (
        lambda: tl.Objective({"hidden": tl.FeatureTerm(lambda s, t: (s - t).square().mean(-1), "a", "b")})(
            LOGITS, {}, {"hidden": (LOGITS, LOGITS)}
        ),
        r"'hidden' returned \(2,\)",
        "without dimensions",
    ),
    "feature-loss-a-float": (
        lambda: tl.Objective({"hidden": tl.FeatureTerm(lambda s, t: 1.0, "a", "b")})(
            LOGITS, {}, {"hidden": (LOGITS, LOGITS)}
        ),
        "'hidden' returned float",
        "expected a tensor",
    ),
    "feature-lists": (
        lambda: tl.FeatureDistiller.uniform_mse(2)([LOGITS], [LOGITS, LOGITS]),
        "1 student and 2 teacher features came for 2 layers",
        "expected one each per layer",
    ),
    "hidden-lists": (
        lambda: tl.ProgressiveDistiller([1, 1])(LOGITS, LOGITS, LABELS, [LOGITS], [LOGITS]),
        "1 student and 1 teacher features came for 2 layers",
        "expected one each per layer",
    ),
    "teachers": (
        lambda: tl.EnsembleDistiller([1, 1])(LOGITS, [LOGITS], LABELS),
        "1 teachers came for 2 weights",
        "expected one each",
    ),
    "combine": (lambda: tl.EnsembleDistiller([1]).combine([]), "0 teachers came for 1 weights", "one each"),
}


@pytest.mark.parametrize(("call", "came", "remedy"), SHAPES.values(), ids=SHAPES)
def test_shape(refused, call, came, remedy):
    with refused(ShapeError, came, remedy):
        call()


CLASS_COUNTS = {
    "logits": lambda: tl.divergence(LOGITS, LOGITS[:, :3]),
    "head": lambda: tl.divergence(tl.HeadStates(HIDDEN, WEIGHT), LOGITS[:, :3]),
    "head-teacher": lambda: tl.divergence(LOGITS, tl.HeadStates(HIDDEN, WEIGHT[:3])),
    "mixture": lambda: tl.divergence(LOGITS, tl.Mixture([tl.Logits(LOGITS[:, :3])] * 2)),
    "per-token": lambda: tl.divergence(LOGITS, LOGITS[:, :3], tl.LogitMSE()),
    "whole-batch": lambda: tl.divergence(LOGITS, LOGITS[:, :3], tl.Dist()),
    "DistillationLoss": lambda: tl.DistillationLoss()(LOGITS, LOGITS[:, :3], LABELS),
    "ResponseDistiller": lambda: tl.ResponseDistiller.balanced()(LOGITS, LOGITS[:, :3], LABELS),
    "EnsembleDistiller": lambda: tl.EnsembleDistiller([1])(LOGITS, [LOGITS[:, :3]], LABELS),
}


@pytest.mark.parametrize("call", CLASS_COUNTS.values(), ids=CLASS_COUNTS)
def test_class_counts(refused, call):
    with refused(VocabularyError, "student has 4 outcomes and the teacher 3", r"VocabularyMap\.prefix\(n\)"):
        call()


# Features have a width, no vocabulary: the way out is a projector, and no map of columns.
@pytest.mark.parametrize(
    "call",
    [
        lambda: tl.FeatureDistiller.uniform_mse(1)([LOGITS], [LOGITS[:, :3]]),
        lambda: tl.Objective({"hidden": tl.FeatureTerm(tl.LogitMSE(), "a", "b")})(
            LOGITS, {}, {"hidden": (LOGITS, LOGITS[:, :3])}
        ),
    ],
    ids=["FeatureDistiller", "FeatureTerm"],
)
def test_widths_of_features(refused, call):
    with refused(ShapeError, r"4\b.*\b3\b", "projector"):
        call()


# --- dtypes -----------------------------------------------------------------------------------------------------------

NOT_FLOATING = [torch.int64, torch.bool, torch.complex64]
# Every tensor of real numbers, with the name that the message must give it.
REAL = {
    "Logits.values": lambda x: tl.divergence(x(LOGITS), LOGITS),
    "the teacher 'teacher'": lambda x: tl.divergence(LOGITS, x(LOGITS)),
    "HeadStates.hidden": lambda x: tl.HeadStates(x(HIDDEN), WEIGHT),
    "HeadStates.weight": lambda x: tl.HeadStates(HIDDEN, x(WEIGHT)),
    "HeadStates.bias": lambda x: tl.HeadStates(HIDDEN, WEIGHT, x(BIAS)),
    "TopK.logits": lambda x: tl.TopK(IDS, x(KEPT), {1.0: TAIL}),
    r"TopK.log_tails\[1\]": lambda x: tl.TopK(IDS, KEPT, {1.0: x(TAIL)}),
    "log_probs": lambda x: tl.TopK.from_log_probs(IDS, x(KEPT)),
    "Sampled.weights": lambda x: tl.Sampled(IDS, x(KEPT), 1.0),
    "Sampled.entropy": lambda x: tl.Sampled(IDS, KEPT, 1.0, x(TAIL)),
}


@pytest.mark.parametrize("dtype", NOT_FLOATING)
@pytest.mark.parametrize(("name", "call"), REAL.items())
def test_tensors_of_real_numbers(refused, name, call, dtype):
    with refused(DtypeError, rf"{name} (has dtype|is a tensor of) {dtype}", "floating.point"):
        call(lambda tensor: tensor.to(dtype))


@pytest.mark.parametrize(("name", "call"), REAL.items())
def test_lists_in_place_of_tensors(refused, name, call):
    error = CompatibilityError if name == "Logits.values" else DtypeError
    with refused(error, "the student is list" if name == "Logits.values" else rf"{name} is (a )?list", "expected a?"):
        call(lambda tensor: tensor.tolist())


NOT_IDS = [torch.int32, torch.uint8, torch.bool, torch.float32]
INTEGER = {
    "Labels.targets has dtype": lambda x: tl.Labels(x(LABELS)),
    "TopK.indices has dtype": lambda x: tl.TopK(x(IDS), KEPT, {1.0: TAIL}),
    "Sampled.indices has dtype": lambda x: tl.Sampled(x(IDS), KEPT, 1.0),
    "labels are": lambda x: tl.divergence(LOGITS, LOGITS, tl.NormalizedKD(), labels=x(LABELS)),
}


@pytest.mark.parametrize("dtype", NOT_IDS)
@pytest.mark.parametrize(("name", "call"), INTEGER.items())
def test_tensors_of_ids(refused, name, call, dtype):
    with refused(DtypeError, f"{name} {dtype}", r"expected torch\.int64"):
        call(lambda tensor: tensor.to(dtype))


@pytest.mark.parametrize("call", INTEGER.values(), ids=INTEGER)
def test_lists_of_ids(refused, call):
    with refused(DtypeError, "list", r"int64"):
        call(lambda tensor: tensor.tolist())


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("bad", [[1.0, 1.0], torch.ones(N, dtype=torch.complex64)], ids=["list", "complex"])
def test_token_weights_are_a_tensor_of_numbers(refused, bad, reduction):
    with refused(DtypeError, "token_weights are (list|torch.complex64)", "expected a tensor"):
        tl.divergence(LOGITS, LOGITS, token_weights=bad, reduction=reduction)


def test_the_teacher_named_labels_is_no_tensor(refused):
    objective = tl.Objective({"hard": tl.Term(tl.ForwardKL(), teacher="labels")})
    with refused(DtypeError, "the teacher 'labels' is a tensor of torch.int64", r"Labels\(ids\)"):
        objective(LOGITS, {"labels": LABELS})


# --- devices ----------------------------------------------------------------------------------------------------------


def away(tensor):
    """The "meta" device is a second device on every machine."""
    return tensor.to("meta")


SAMPLES = torch.full((N, K), 1 / K)
ELSEWHERE = {
    "Logits.values": lambda: tl.divergence(LOGITS, away(LOGITS)),
    "student.weight": lambda: tl.divergence(tl.HeadStates(HIDDEN, away(WEIGHT)), LOGITS),
    "student.bias": lambda: tl.divergence(tl.HeadStates(HIDDEN, WEIGHT, away(BIAS)), LOGITS),
    "HeadStates.hidden": lambda: tl.divergence(LOGITS, tl.HeadStates(away(HIDDEN), WEIGHT)),
    "HeadStates.weight": lambda: tl.divergence(LOGITS, tl.HeadStates(HIDDEN, away(WEIGHT))),
    "TopK.indices": lambda: tl.divergence(LOGITS, tl.TopK(away(IDS), KEPT, {1.0: TAIL})),
    "TopK.logits": lambda: tl.divergence(LOGITS, tl.TopK(IDS, away(KEPT), {1.0: TAIL})),
    r"TopK.log_tails\[1\]": lambda: tl.divergence(LOGITS, tl.TopK(IDS, KEPT, {1.0: away(TAIL)})),
    "Sampled.weights": lambda: tl.divergence(LOGITS, tl.Sampled(IDS, away(SAMPLES), 1.0)),
    "Sampled.entropy": lambda: tl.divergence(LOGITS, tl.Sampled(IDS, SAMPLES, 1.0, away(TAIL))),
    "Labels.targets": lambda: tl.divergence(LOGITS, tl.Labels(away(LABELS))),
    r"Mixture.parts\[1\].values": lambda: tl.divergence(
        LOGITS, tl.Mixture([tl.Logits(LOGITS), tl.Logits(away(LOGITS))])
    ),
    "token_weights": lambda: tl.divergence(LOGITS, LOGITS, token_weights=away(TAIL)),
    "labels": lambda: tl.divergence(LOGITS, LOGITS, tl.DecoupledKD(), labels=away(LABELS)),
    "values is on cpu and student.values on meta|values": lambda: tl.divergence(away(LOGITS), LOGITS),
}


@pytest.mark.parametrize(("name", "call"), ELSEWHERE.items())
def test_devices(refused, name, call):
    with refused(DeviceError, rf"({name}) is on (meta|cpu) and student\.\w+ on (cpu|meta)", "to one device"):
        call()


# --- what goes with what ----------------------------------------------------------------------------------------------

TEACHERS = {
    "Logits": tl.Logits(LOGITS),
    "HeadStates": tl.HeadStates(HIDDEN, WEIGHT),
    "Mixture(space='probability')": tl.Mixture([tl.Logits(LOGITS)] * 2),
    "Mixture(space='logit')": tl.Mixture([tl.Logits(LOGITS)] * 2, space="logit"),
    "TopK": tl.TopK(IDS, KEPT, {1.0: TAIL}),
    "Mixture(space='probability') of TopK": tl.Mixture([tl.TopK(IDS, KEPT, {1.0: TAIL})] * 2),
    "Sampled": tl.Sampled(IDS, SAMPLES, 1.0),
    "Labels(smoothing=0)": tl.Labels(LABELS),
    "Labels(smoothing=0.1)": tl.Labels(LABELS, smoothing=0.1),
}
# The whole table, written from the definitions and not read from the code: what is missing here must work.
KEEPS_A_FEW = "needs all of the teacher's logits, TopK keeps a few"
NO_LOGITS = "labels are no logits; use forward_kl"
NO_RAW_LOGITS = r"a mixture of probabilities has none; use Mixture\(space='logit'\)"
WHOLE = "never exist as a whole in HeadStates; pass Logits"
EXCLUDED = r"labels exclude every other outcome; use forward_kl, or Labels\(smoothing > 0\)"
REFUSED = {("Sampled", kind): "use forward_kl" for kind in tl.divergences.ALL if kind != "forward_kl"}
REFUSED |= {("Labels(smoothing=0)", kind): EXCLUDED for kind in ("reverse_kl", "jeffreys")}
REFUSED |= {
    (teacher, kind): reason
    for kind in ("adaptive_kl", "logit_mse", "logit_cosine", "decoupled_kd", "normalized_kd", "dist", "standardized_kl")
    for teacher, reason in {
        "TopK": KEEPS_A_FEW,
        "Mixture(space='probability') of TopK": KEEPS_A_FEW,
        "Labels(smoothing=0)": NO_LOGITS,
        "Labels(smoothing=0.1)": NO_LOGITS,
    }.items()
}
REFUSED |= {
    ("Mixture(space='probability')", kind): NO_RAW_LOGITS
    for kind in ("logit_mse", "logit_cosine", "normalized_kd", "standardized_kl")
}
REFUSED[("HeadStates", "dist")] = WHOLE


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("kind", tl.divergences.ALL)
def test_which_divergence_takes_which_teacher(refused, kind, teacher):
    divergence = tl.divergences.ALL[kind]()

    def call():
        return tl.divergence(LOGITS, TEACHERS[teacher], divergence, labels=LABELS if divergence.needs_labels else None)

    if (reason := REFUSED.get((teacher, kind))) is None:
        assert tl.execution.refusal(divergence, TEACHERS[teacher]) is None
        assert call().isfinite()
    else:
        # What is expected is the reason's own words, the class of the teacher, and the way out where there is one.
        with refused(CompatibilityError, f"{kind} cannot compare Logits with (a )?{teacher.split('(')[0]}", reason):
            call()


# Two divergences change their table with a parameter: at these ends they are the reverse KL.
@pytest.mark.filterwarnings("ignore:.*by convention:tutelage.errors.ConventionWarning")
@pytest.mark.parametrize("make", [lambda: tl.JensenShannon(beta=1), lambda: tl.AlphaBeta(0, 1)], ids=["js", "ab"])
def test_a_limit_that_is_the_reverse_kl_is_refused_for_labels(refused, make):
    with refused(CompatibilityError, r"Labels\(smoothing=0\)", EXCLUDED):
        tl.divergence(LOGITS, tl.Labels(LABELS), make())
    assert tl.divergence(LOGITS, tl.Labels(LABELS, smoothing=0.5), make()).isfinite()


def test_the_whole_batch_of_a_head_does_not_exist(refused):
    with refused(CompatibilityError, "dist cannot compare HeadStates with Logits", WHOLE):
        tl.divergence(tl.HeadStates(HIDDEN, WEIGHT), LOGITS, tl.Dist())


COMPATIBILITY = {
    "a-value-per-row-of-the-batch": (
        lambda: tl.divergence(LOGITS, LOGITS, tl.Dist(), reduction="none"),
        "dist is one value for the batch",
        "'mean' or 'sum'",
    ),
    "a-class": (
        lambda: tl.divergence(LOGITS, LOGITS, tl.ForwardKL),
        "class .*ForwardKL",
        r"parentheses: ForwardKL\(\)",
    ),
    "a-class-in-a-term": (lambda: tl.Term(tl.Dist), "Term.divergence=.*Dist", r"add parentheses: Dist\(\)"),
    "a-class-in-a-module": (
        lambda: tl.DistillationLoss(divergence=tl.ReverseKL),
        "class .*ReverseKL",
        r"parentheses: ReverseKL\(\)",
    ),
    "a-class-in-a-response": (lambda: tl.ResponseDistiller(tl.ForwardKL), "class .*ForwardKL", r"ForwardKL\(\)"),
    "a-class-of-a-layer": (
        lambda: tl.FeatureDistiller.with_weights([1.0], tl.LogitMSE),
        "class .*LogitMSE",
        r"LogitMSE\(\)",
    ),
    "a-name": (lambda: tl.divergence(LOGITS, LOGITS, "forward_kl"), "'forward_kl'", r"such as ForwardKL\(\)"),
    "no-divergence": (lambda: tl.Term(None), "divergence=None", r"such as ForwardKL\(\)"),
    "no-loss": (lambda: tl.ResponseDistiller(None), "None", "expected a divergence, a Term"),
    "a-divergence-for-a-term": (lambda: tl.Objective({"soft": tl.ForwardKL()}), "'soft' is ForwardKL", "a Term or"),
    "a-divergence-among-terms": (lambda: tl.ResponseDistiller([tl.LogitMSE()]), r"LogitMSE\(\)", "a list of Terms"),
    "a-module-class-as-a-loss": (
        lambda: tl.FeatureTerm(torch.nn.MSELoss, "a", "b"),
        "class .*MSELoss",
        r"such as LogitMSE\(\), or a function",
    ),
    "labels-as-student": (
        lambda: tl.divergence(tl.Labels(LABELS), LOGITS),
        "student is Labels",
        "Logits or HeadStates",
    ),
    "top-k-as-student": (
        lambda: tl.divergence(TEACHERS["TopK"], LOGITS),
        "student is TopK",
        "expected a tensor of logits, Logits or HeadStates",
    ),
    "a-model-output-as-student": (lambda: tl.divergence({"logits": LOGITS}, LOGITS), "student is dict", "a tensor of"),
    "tensors-in-a-mixture": (lambda: tl.Mixture([LOGITS]), "part 0 is Tensor", "expected all Logits or"),
    "a-mixture-of-kinds": (
        lambda: tl.Mixture([tl.Logits(LOGITS), TEACHERS["TopK"]]),
        "part 1 is TopK and part 0 Logits",
        "a Term of their own",
    ),
    "labels-in-a-mixture": (lambda: tl.Mixture([tl.Labels(LABELS)]), "part 0 is Labels", "a Term of their own"),
    "a-mixture-of-tails": (
        lambda: tl.Mixture([TEACHERS["TopK"], tl.TopK(IDS, KEPT, tail="renormalize")]),
        "part 1 has tail='renormalize' and part 0 tail='bucket'",
        "expected the same",
    ),
    "logits-of-buckets": (
        lambda: tl.Mixture([TEACHERS["TopK"]] * 2, space="logit"),
        "space='logit'.*tail='bucket'",
        "use space='probability', or tail='renormalize'",
    ),
}


@pytest.mark.parametrize(("call", "came", "remedy"), COMPATIBILITY.values(), ids=COMPATIBILITY)
def test_compatibility(refused, call, came, remedy):
    with refused(CompatibilityError, came, remedy):
        call()


# --- what is missing --------------------------------------------------------------------------------------------------

TEACHER_ERRORS = {
    "no-tails": (lambda: tl.TopK(IDS, KEPT), "without log_tails", "logsumexp .* or choose tail='renormalize'"),
    "another-temperature": (
        lambda: tl.divergence(LOGITS, TEACHERS["TopK"], temperature=2.0),
        "temperature 2 came with a TopK.* captured at 1",
        "train at a captured temperature, or capture",
    ),
    "another-temperature-of-samples": (
        lambda: tl.divergence(LOGITS, TEACHERS["Sampled"], temperature=2.0),
        "temperature 2 came with a Sampled.* captured at 1",
        "train at a captured temperature, or capture",
    ),
    "another-temperature-of-a-part": (
        lambda: tl.divergence(
            LOGITS, tl.Mixture([tl.TopK(IDS, KEPT, {1.0: TAIL, 3.0: TAIL}), TEACHERS["TopK"]]), temperature=3.0
        ),
        "temperature 3 came with a TopK.* captured at 1",
        "capture the teacher at this one too",
    ),
    "only-one-of-two-terms": (
        lambda: tl.Objective(
            {"a": tl.Term(tl.ForwardKL()), "b": tl.Term(tl.ReverseKL(), temperature=4.0)},
        )(LOGITS, {"teacher": TEACHERS["TopK"]}),
        "temperature 4 came with a TopK.* captured at 1",
        "capture the teacher at this one too",
    ),
    "no-such-teacher": (
        lambda: tl.Objective({"soft": tl.Term(tl.ForwardKL(), teacher="big")})(LOGITS, {"small": LOGITS}),
        "'soft' wants the teacher 'big'",
        r"got \['small'\]",
    ),
    "no-features": (
        lambda: tl.Objective({"hidden": tl.FeatureTerm(tl.LogitMSE(), "a", "b")})(LOGITS, {}),
        "'hidden' compares features",
        r"pass features=\{'hidden': \(student, teacher\)\}",
    ),
    "features-of-another-term": (
        lambda: tl.Objective({"hidden": tl.FeatureTerm(tl.LogitMSE(), "a", "b")})(LOGITS, {}, {"h": (LOGITS, LOGITS)}),
        "'hidden' compares features",
        r"pass features=\{'hidden': \(student, teacher\)\}",
    ),
}


@pytest.mark.parametrize(("call", "came", "remedy"), TEACHER_ERRORS.values(), ids=TEACHER_ERRORS)
def test_teacher(refused, call, came, remedy):
    with refused(TeacherError, came, remedy):
        call()


# Without a second side a tensor of two rows would be taken for both of them.
@pytest.mark.parametrize("pair", [LOGITS, (LOGITS,), (LOGITS, LOGITS, LOGITS)], ids=["tensor", "one", "three"])
def test_features_are_a_pair(refused, pair):
    objective = tl.Objective({"hidden": tl.FeatureTerm(tl.LogitMSE(), "a", "b")})
    with refused(TeacherError, "hidden", r"\(student, teacher\)"):
        objective(LOGITS, {}, {"hidden": pair})


@pytest.mark.parametrize("divergence", [tl.DecoupledKD(), tl.NormalizedKD()], ids=lambda d: d.kind)
@pytest.mark.parametrize(
    "call",
    [
        lambda divergence: tl.divergence(LOGITS, LOGITS, divergence),
        lambda divergence: tl.Objective({"soft": tl.Term(divergence)})(LOGITS, {"teacher": LOGITS}),
        # Logits under that name are a teacher as any other.
        lambda divergence: tl.Objective({"soft": tl.Term(divergence)})(LOGITS, {"teacher": LOGITS, "labels": LOGITS}),
        lambda divergence: tl.FeatureDistiller.with_weights([1.0], divergence)([LOGITS], [LOGITS]),
    ],
    ids=["divergence", "Objective", "no-Labels", "FeatureDistiller"],
)
def test_missing_labels(refused, divergence, call):
    with refused(LabelError, divergence.kind, r"pass labels, int64, shape \(2,\)"):
        call(divergence)


# --- weights of layers, teachers, parts -------------------------------------------------------------------------------

TAKES_SHARES = {
    "Mixture": lambda w: tl.Mixture([tl.Logits(LOGITS)] * 2, w),
    "EnsembleDistiller": lambda w: tl.EnsembleDistiller(w),
    "FeatureDistiller": lambda w: tl.FeatureDistiller.with_weights(w, tl.LogitMSE()),
    "ProgressiveDistiller": lambda w: tl.ProgressiveDistiller(w),
}


@pytest.mark.parametrize(
    ("weights", "came", "remedy"),
    [
        ([1.0, -0.5], r"\[1.0, -0.5\]", "must be finite and >= 0"),
        ([1.0, math.nan], r"\[1.0, nan\]", "must be finite and >= 0"),
        ([1.0, math.inf], r"\[1.0, inf\]", "must be finite and >= 0"),
        ([0.0, 0.0], r"\[0.0, 0.0\] sum to 0", "at least one weight must be > 0"),
    ],
    ids=["negative", "nan", "inf", "zeros"],
)
@pytest.mark.parametrize("call", TAKES_SHARES.values(), ids=TAKES_SHARES)
def test_weights_that_share(refused, call, weights, came, remedy):
    with refused(WeightError, came, remedy):
        call(weights)


def test_one_weight_for_each_part(refused):
    with refused(WeightError, "1 numbers for 2 entries", "one weight for each"):
        tl.Mixture([tl.Logits(LOGITS)] * 2, [1.0])


@pytest.mark.parametrize("name", ["hard_label_weight", "soft_label_weight"])
@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_weights_of_a_response_distiller(refused, name, bad):
    with refused(WeightError, rf"{name} = \[?{bad}", "finite and >= 0"):
        tl.ResponseDistiller(**{name: bad})


def test_a_response_distiller_must_train_something(refused):
    with refused(WeightError, "both 0", "nothing would be trained"):
        tl.ResponseDistiller(hard_label_weight=0.0, soft_label_weight=0.0)
    with refused(WeightError, "0", "nothing would be trained"):
        tl.ResponseDistiller(tl.Term(tl.ForwardKL(), weight=0.0), hard_label_weight=0.0)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("wrap", [float, torch.tensor, lambda value: {"soft": value}], ids=["float", "tensor", "dict"])
def test_normalizer(refused, wrap, bad):
    with refused(WeightError, f"normalizer={bad:g}", "sum of the token weights of the whole step"):
        soft(normalizer=wrap(bad))


@pytest.mark.parametrize("weights", [None, torch.tensor([0.0, 2.0])], ids=["ones", "given"])
def test_a_normalizer_of_0_with_weights(refused, weights):
    with refused(WeightError, "normalizer=0 came with token weights that sum to 2", "this one included"):
        soft(normalizer=0.0, token_weights=weights)


def test_a_normalizer_of_0_is_fine_where_nothing_counts():
    out = soft(normalizer=0.0, token_weights=torch.zeros(N))
    assert out.loss == 0
    assert out.parts["soft"] == 0


def test_replacing_a_field_checks_it_again(refused):
    with refused(ParameterError, "weight=-1", ">= 0"):
        replace(tl.Term(tl.ForwardKL()), weight=-1)
    with refused(ParameterError, "skew=2", r"\(0, 1\)"):
        replace(tl.SkewForwardKL(), skew=2)


# --- slips of the hand ------------------------------------------------------------------------------------------------

KL = {"soft": tl.Term(tl.ForwardKL())}
HIDDEN_MSE = {"hidden": tl.FeatureTerm(tl.LogitMSE(), "a", "b")}
# What one writes when one thinks of another library, or forgets a bracket: a named error, not an AttributeError.
SLIPS = {
    "one-teacher": (lambda: tl.Objective(KL)(LOGITS, LOGITS), "teacher"),
    "a-list-of-terms": (lambda: tl.Objective([tl.Term(tl.ForwardKL())]), "term"),
    "one-term": (lambda: tl.Objective(tl.Term(tl.ForwardKL())), "term"),
    "labels-that-nobody-reads": (lambda: tl.divergence(LOGITS, LOGITS, labels=[0, 0]), "labels"),
    "a-list-of-normalizers": (lambda: soft(normalizer=[2.0]), "normalizer"),
    "a-word-for-a-normalizer": (lambda: soft(normalizer="sum"), "normalizer"),
    "no-teacher-feature": (lambda: tl.Objective(HIDDEN_MSE)(LOGITS, {}, {"hidden": (LOGITS, None)}), "hidden"),
    "a-function-without-a-teacher": (
        lambda: tl.Objective({"hidden": tl.FeatureTerm(torch.nn.functional.mse_loss, "a", "b")})(
            LOGITS, {}, {"hidden": (LOGITS, None)}
        ),
        "hidden",
    ),
    "layers-without-weights": (lambda: tl.FeatureDistiller([tl.LogitMSE()]), "layer"),
    "one-part": (lambda: tl.Mixture(tl.Logits(LOGITS)), "Mixture"),
}


@pytest.mark.parametrize(("call", "names"), SLIPS.values(), ids=SLIPS)
def test_slips(call, names):
    with pytest.raises(tl.errors.InputError, match=rf"(?i){names}.*(expected|give|pass)"):
        call()
