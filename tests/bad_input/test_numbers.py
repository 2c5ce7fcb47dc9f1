"""Every number parameter takes the numbers of NumPy and tensors without dimensions, and means the literal by them."""

import math
import re
from dataclasses import fields

import numpy as np
import pytest
import torch
from transformers.modeling_outputs import SequenceClassifierOutput

import tutelage as tl
from tutelage.errors import CompatibilityError, DtypeError, LabelError, ParameterError, ShapeError, WeightError
from tutelage.training import MixingCollator

# A half is exact in every type, so that nothing but the value can differ.
HALVES = [
    np.float32(0.5),
    np.float64(0.5),
    np.float16(0.5),
    np.array(0.5),
    torch.tensor(0.5),
    torch.tensor(0.5).double(),
]
TWOS = [np.int64(2), np.int8(2), np.float32(2), torch.tensor(2), torch.tensor(2.0)]
GENERATOR = torch.Generator().manual_seed(0)
STUDENT, TEACHER = torch.randn(4, 5, generator=GENERATOR), torch.randn(4, 5, generator=GENERATOR)
LABELS = torch.tensor([0, 1, 2, 3])
IDS = torch.arange(3).expand(4, 3)
HIDDEN, WEIGHT = torch.randn(4, 3, generator=GENERATOR), torch.randn(5, 3, generator=GENERATOR)


def run(loss):
    return loss(STUDENT, TEACHER, LABELS)


def progressive(alpha, beta):
    return tl.ProgressiveDistiller([1.0])(STUDENT, TEACHER, LABELS, [STUDENT], [TEACHER], alpha, beta)


SHARES = {
    **{
        f"{cls.__name__}.{field.name}": lambda x, cls=cls, name=field.name: tl.divergence(
            STUDENT, TEACHER, cls(**{name: x}), labels=LABELS
        )
        for cls in tl.divergences.ALL.values()
        for field in fields(cls)
    },
    "Labels.smoothing": lambda x: tl.divergence(STUDENT, tl.Labels(LABELS, x)),
    "Term.weight": lambda x: tl.Objective({"a": tl.Term(tl.ForwardKL(), weight=x)})(STUDENT, {"teacher": TEACHER}).loss,
    "FeatureTerm.weight": lambda x: tl.FeatureTerm(tl.LogitMSE(), "a", "b", weight=x).weight,
    "DistillationLoss.alpha": lambda x: run(tl.DistillationLoss(alpha=x)),
    "ResponseDistiller.weights": lambda x: run(tl.ResponseDistiller(tl.ReverseKL(), x, x)),
    "FeatureDistiller.weights": lambda x: tl.FeatureDistiller.with_weights([x], tl.LogitMSE())([STUDENT], [TEACHER]),
    "EnsembleDistiller": lambda x: tl.EnsembleDistiller([x, 1.5])(STUDENT, [TEACHER, STUDENT], LABELS, x),
    "ProgressiveDistiller": lambda x: progressive(x, x),
    "Mixture.weights": lambda x: tl.divergence(STUDENT, tl.Mixture([tl.Logits(TEACHER), tl.Logits(STUDENT)], [x, 1.5])),
    "Logits.softcap and scale": lambda x: tl.divergence(tl.Logits(STUDENT, softcap=x, scale=x), TEACHER),
    "HeadStates.softcap and scale": lambda x: tl.divergence(tl.HeadStates(HIDDEN, WEIGHT, softcap=x, scale=x), TEACHER),
    "normalizer": lambda x: (
        tl.Objective({"a": tl.Term(tl.ForwardKL())})(STUDENT, {"teacher": TEACHER}, normalizer=x).loss
    ),
    "MixingCollator.beta": lambda x: MixingCollator(beta=x).beta,
}
TEMPERATURES = {
    "divergence": lambda t: tl.divergence(STUDENT, TEACHER, temperature=t),
    "divergence, backend torch, a mixture": lambda t: tl.divergence(
        STUDENT, tl.Mixture([tl.Logits(TEACHER), tl.Logits(STUDENT)]), temperature=t, backend="torch"
    ),
    "divergence of rows": lambda t: tl.divergence(STUDENT, TEACHER, temperature=t, reduction="none"),
    "divergence over a batch": lambda t: tl.divergence(STUDENT, TEACHER, tl.Dist(), temperature=t),
    "Term": lambda t: (
        tl.Objective({"a": tl.Term(tl.JensenShannon(), temperature=t)})(STUDENT, {"teacher": TEACHER}).loss
    ),
    "Term.factor": lambda t: tl.Term(tl.NormalizedKD(), temperature=t).trained[0].gamma,
    "Sampled": lambda t: tl.divergence(
        STUDENT, tl.Sampled(IDS, torch.full((4, 3), 1 / 3), temperature=t), temperature=t
    ),
    "TopK": lambda t: tl.divergence(STUDENT, tl.TopK(IDS, TEACHER[:, :3], {t: TEACHER[:, 3]}), temperature=t),
    "DistillationLoss": lambda t: run(tl.DistillationLoss(temperature=t)),
    "pure_kl": lambda t: run(tl.ResponseDistiller.pure_kl(t)),
    "EnsembleDistiller": lambda t: tl.EnsembleDistiller([1.0], t).combine([TEACHER]),
    "ProgressiveDistiller": lambda t: tl.ProgressiveDistiller([1.0], t).temperature,
}
COUNTS = {
    "VocabularyMap.prefix": lambda n: tl.VocabularyMap.prefix(n).length,
    "EnsembleDistiller.uniform": lambda n: tl.EnsembleDistiller.uniform(n).weights,
    "FeatureDistiller.uniform_mse": lambda n: tl.FeatureDistiller.uniform_mse(n).weights,
}


def same(a, b):
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("call", SHARES.values(), ids=SHARES)
def test_shares_and_weights(call):
    assert all(same(call(half), call(0.5)) for half in HALVES)


@pytest.mark.parametrize("call", TEMPERATURES.values(), ids=TEMPERATURES)
def test_temperatures(call):
    assert all(same(call(two), call(2.0)) for two in TWOS)


@pytest.mark.parametrize("call", COUNTS.values(), ids=COUNTS)
def test_counts(refused, call):
    assert all(same(call(two), call(2)) for two in (np.int64(2), torch.tensor(2)))
    for bad in (2.0, np.float32(2), torch.tensor(2.0), True, np.bool_(True)):
        with refused(ParameterError, "2|True", ">= 1"):
            call(bad)


def test_the_complement_of_a_share_is_taken_of_the_share_that_was_given():
    """1 - 0.9 in float32 is 0.10000002; a loss whose hard part counts that much is another one."""
    alpha = np.float32(0.9)
    student, teacher = STUDENT.double(), TEACHER.double()
    expected = tl.DistillationLoss(alpha=float(alpha))(student, teacher, LABELS)
    assert tl.DistillationLoss(alpha=alpha)(student, teacher, LABELS).item() == expected.item()
    hard = tl.DistillationLoss(alpha=np.float32(1 - 2**-20))(student, student, LABELS).item()
    assert hard == pytest.approx(2**-20 * torch.nn.functional.cross_entropy(student, LABELS).item(), rel=1e-12)


@pytest.mark.parametrize(
    "bad", [np.float32("nan"), np.bool_(True), torch.tensor(True), torch.ones(1), 1j, "2"], ids=repr
)
def test_what_is_no_number_stays_refused(refused, bad):
    for call in (lambda x: tl.Term(tl.ForwardKL(), weight=x), lambda x: tl.Term(tl.ForwardKL(), temperature=x)):
        with refused(ParameterError, "weight=|temperature=", "finite number"):
            call(bad)


def test_a_temperature_that_wants_a_gradient_is_refused(refused):
    temperature = torch.tensor(2.0, requires_grad=True)
    with refused(ParameterError, "requires_grad=True", r"would get no gradient here: pass \.item\(\)"):
        tl.divergence(STUDENT, TEACHER, temperature=temperature)
    with refused(ParameterError, "device='meta'", r"wait for the device: pass \.item\(\)"):
        tl.Term(tl.ForwardKL(), temperature=torch.tensor(2.0, device="meta"))


def test_weights_whose_sum_overflows():
    assert tl.EnsembleDistiller([1e308, 1e308]).weights == [0.5, 0.5]


@pytest.mark.parametrize(
    "call",
    [tl.EnsembleDistiller, tl.ProgressiveDistiller, lambda n: tl.FeatureDistiller.with_weights(n, tl.LogitMSE())],
    ids=["EnsembleDistiller", "ProgressiveDistiller", "with_weights"],
)
@pytest.mark.parametrize("bad", [2, "ab", None], ids=repr)
def test_a_number_of_teachers_in_place_of_their_weights(refused, call, bad):
    with refused(WeightError, rf"\({bad!r}\)", "expected a list of weights; for n equal ones"):
        call(bad)


def test_a_number_of_layers_in_place_of_the_layers(refused):
    with refused(CompatibilityError, r"FeatureDistiller\(2\)", r"uniform_mse\(n\)"):
        tl.FeatureDistiller(2)


# --- what is handed over instead of logits and labels -----------------------------------------------------------------

ONE_HOT = torch.nn.functional.one_hot(LABELS, 5)
LABELLED = {
    "DistillationLoss": lambda y: tl.DistillationLoss()(STUDENT, TEACHER, y),
    "ResponseDistiller": lambda y: tl.ResponseDistiller.balanced()(STUDENT, TEACHER, y),
    "EnsembleDistiller": lambda y: tl.EnsembleDistiller([1.0])(STUDENT, [TEACHER], y),
    "Labels": lambda y: tl.divergence(STUDENT, tl.Labels(y)),
    "Labels, head": lambda y: tl.divergence(tl.HeadStates(HIDDEN, WEIGHT), tl.Labels(y)),
    "labels of the divergence": lambda y: tl.divergence(STUDENT, TEACHER, tl.NormalizedKD(), labels=y),
}


@pytest.mark.parametrize("call", LABELLED.values(), ids=LABELLED)
def test_one_hot_labels(refused, call):
    with refused(ShapeError, r"\(4, 5\)", r"pass labels\.argmax\(-1\)"):
        call(ONE_HOT)
    with refused(DtypeError, "float32", r"argmax\(-1\)|expected torch.int64"):
        call(ONE_HOT.float())


@pytest.mark.parametrize("call", LABELLED.values(), ids=LABELLED)
def test_labels_of_minus_100(refused, call):
    labels = LABELS.clone()
    labels[2] = -100
    with refused(LabelError, "label -100 in row 2", r"keep = labels != -100; loss\(student\[keep\].*token_weights"):
        call(labels)


def test_the_advice_for_minus_100_gives_the_mean_over_the_labelled_rows():
    labels = torch.tensor([0, -100, 2, 3])
    keep = labels != -100
    loss = tl.DistillationLoss(alpha=0.0)(STUDENT[keep], TEACHER[keep], labels[keep])
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(STUDENT, labels))
    masked = tl.divergence(STUDENT, tl.Labels(labels), token_weights=labels != -100)
    torch.testing.assert_close(masked, torch.nn.functional.cross_entropy(STUDENT, labels))


# Of an unsigned type every value is a class: nothing is taken for -100, and the way in is an explicit .long().
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int32])
def test_other_integer_types(refused, dtype):
    labels = torch.full((4,), 100, dtype=torch.int64).to(dtype)
    with refused(DtypeError, str(dtype), r"\.long\(\)|expected torch\.int64"):
        tl.DistillationLoss()(torch.zeros(4, 200), torch.zeros(4, 200), labels)
    logits = torch.randn(4, 200, generator=GENERATOR)
    loss = tl.divergence(logits, tl.Labels(torch.full((4,), 156, dtype=torch.uint8).long()))
    assert loss.item() == pytest.approx((logits.logsumexp(-1) - logits[:, 156]).mean().item(), rel=1e-6)


OUTPUT = SequenceClassifierOutput(logits=STUDENT)
SIDES = {
    "divergence, student": lambda x: tl.divergence(x, TEACHER),
    "divergence, teacher": lambda x: tl.divergence(STUDENT, x),
    "Logits": tl.Logits,
    "Objective": lambda x: tl.Objective({"a": tl.Term(tl.ForwardKL())})(STUDENT, {"teacher": x}),
    "DistillationLoss, student": lambda x: tl.DistillationLoss()(x, TEACHER, LABELS),
    "DistillationLoss, teacher": lambda x: tl.DistillationLoss()(STUDENT, x, LABELS),
    "EnsembleDistiller": lambda x: tl.EnsembleDistiller([1.0])(STUDENT, [x], LABELS),
}


@pytest.mark.parametrize("call", SIDES.values(), ids=SIDES)
def test_outputs_and_lists_in_place_of_logits(refused, call):
    for wrong, came, remedy in (
        (OUTPUT, "SequenceClassifierOutput", r"output\.logits"),
        ([TEACHER, STUDENT], "list", r"Mixture\(\[Logits"),
        ((TEACHER, STUDENT), "tuple", r"Mixture\(\[Logits"),
    ):
        with pytest.raises((DtypeError, CompatibilityError), match=came) as caught:
            call(wrong)
        assert re.search(remedy, str(caught.value))


def test_numbers_of_numpy_in_the_loss_are_the_numbers_in_the_gradient():
    student = STUDENT.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(tl.divergence(student, TEACHER, tl.SkewReverseKL(np.float32(0.5))), student)
    (expected,) = torch.autograd.grad(tl.divergence(student, TEACHER, tl.SkewReverseKL(0.5)), student)
    assert torch.equal(gradient, expected)
    assert math.isfinite(gradient.sum())
