"""Probabilities where logits belong, and swapped sides: legal, finite, and another objective, so there is a warning."""

import time
import warnings

import pytest
import torch

import tutelage as tl
from tutelage.errors import InputWarning
from tutelage.execution import looks_like_probabilities

GENERATOR = torch.Generator().manual_seed(0)
LOGITS, OTHER = torch.randn(6, 5, generator=GENERATOR), torch.randn(6, 5, generator=GENERATOR)
P, Q = LOGITS.softmax(-1), OTHER.softmax(-1)
LABELS = torch.tensor([0, 1, 2, 3, 4, 0])
HIDDEN = torch.randn(6, 3, generator=GENERATOR), torch.randn(5, 3, generator=GENERATOR)
SOFT = tl.Objective({"soft": tl.Term(tl.ReverseKL()), "hard": tl.Term(tl.ForwardKL(), teacher="labels")})
# (student, teacher) -> a value, through every door.
DOORS = {
    **{
        kind: lambda s, t, cls=cls: tl.divergence(s, t, cls(), labels=LABELS)
        for kind, cls in tl.divergences.ALL.items()
    },
    "rows": lambda s, t: tl.divergence(s, t, reduction="none"),
    "Objective": lambda s, t: SOFT(s, {"teacher": t, "labels": tl.Labels(LABELS)}),
    "DistillationLoss": lambda s, t: tl.DistillationLoss()(s, t, LABELS),
    "ResponseDistiller": lambda s, t: tl.ResponseDistiller.pure_kl()(s, t),
    "EnsembleDistiller": lambda s, t: tl.EnsembleDistiller.uniform(2)(s, [OTHER, t], LABELS),
    "ProgressiveDistiller": lambda s, t: tl.ProgressiveDistiller([1.0])(s, t, LABELS, [P], [Q]),
    "Mixture": lambda s, t: tl.divergence(s, tl.Mixture([tl.Logits(t), tl.Logits(OTHER)], space="logit")),
}
# A squared error or a cosine may compare probabilities, attention maps for example.
RAW = {"logit_mse", "logit_cosine"}


@pytest.mark.parametrize("door", [name for name in DOORS if name not in RAW])
def test_probabilities_in_place_of_logits(door):
    with pytest.warns(InputWarning, match=r"every row of the teacher .* Pass the logits, or probabilities\.log\(\)"):
        DOORS[door](LOGITS, Q)
    with pytest.warns(InputWarning, match="every row of the student"):
        DOORS[door](P, OTHER)


@pytest.mark.parametrize("door", DOORS)
def test_no_false_alarms(door):
    call = DOORS[door]
    call(LOGITS, OTHER)
    call(P.log(), Q.log())  # log-probabilities are logits
    call(LOGITS.abs(), OTHER.abs())
    almost = Q.clone()
    almost[3] = OTHER[3]
    call(LOGITS, almost)
    if door in RAW:
        call(P, Q)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("columns", [2, 1000])
def test_every_precision(dtype, columns):
    logits = torch.randn(7, columns, generator=GENERATOR)
    assert looks_like_probabilities(logits.softmax(-1).to(dtype))
    assert not looks_like_probabilities((2 * logits.softmax(-1)).to(dtype))
    assert not looks_like_probabilities(logits.log_softmax(-1).to(dtype))


def test_only_rows_that_count_are_looked_at():
    padded, weights = torch.cat([Q, 100 * OTHER[:2]]), torch.tensor([1.0] * 6 + [0.0] * 2)
    student = torch.cat([LOGITS, LOGITS[:2]])
    with pytest.warns(InputWarning, match="teacher"):
        tl.divergence(student, padded, token_weights=weights)
    tl.divergence(student, torch.cat([OTHER, Q[:2]]), token_weights=weights)
    tl.divergence(student, padded, token_weights=torch.zeros(8))


def test_one_hot_rows():
    """As a teacher these are labels, and the message says so; a student of zeros and ones is a small example."""
    one_hot = torch.nn.functional.one_hot(LABELS, 5).float()
    with pytest.warns(InputWarning, match=r"for class labels use Labels\(ids\)"):
        tl.divergence(LOGITS, one_hot)
    tl.divergence(one_hot, OTHER)


def test_other_kinds_of_sides_are_left_alone():
    tl.divergence(tl.HeadStates(*HIDDEN), OTHER)
    tl.divergence(LOGITS, tl.Sampled(torch.arange(3).expand(6, 3), torch.full((6, 3), 1 / 3), 1.0))
    tl.divergence(LOGITS, tl.Labels(LABELS))
    tl.divergence(LOGITS, tl.Logits(Q, scale=30.0))
    tl.divergence(LOGITS, Q, validate=False)  # as on a GPU: no value is looked at


def test_once_for_each_line():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            tl.divergence(LOGITS, Q)
        tl.DistillationLoss()(LOGITS, Q, LABELS)
    assert len(caught) == 2
    assert {warning.filename for warning in caught} == {__file__}


SWAPPED = {name: DOORS[name] for name in ("forward_kl", "dist", "rows", "Objective", "DistillationLoss", "Mixture")}


@pytest.mark.parametrize("call", SWAPPED.values(), ids=SWAPPED)
def test_swapped_sides(call):
    student = LOGITS.clone().requires_grad_()
    with pytest.warns(InputWarning, match=r"student has no graph .* The order is \(student, teacher\)"):
        call(OTHER, student)
    call(student, OTHER)
    call(student, student * 2)
    call(LOGITS, OTHER)  # measured, not trained: neither side has a graph
    with torch.no_grad():
        call(OTHER, student)
    call(LOGITS.clone(), student.detach())


def test_swapped_heads():
    hidden, weight = HIDDEN
    trained = tl.HeadStates(hidden, weight.clone().requires_grad_())
    with pytest.warns(InputWarning, match="student has no graph"):
        tl.divergence(tl.HeadStates(hidden, weight), trained)
    tl.divergence(trained, tl.HeadStates(hidden, weight))


def test_the_checks_cost_no_noticeable_time():
    """Logits give themselves away in the first row, whatever the number of rows."""
    few, many = torch.randn(8, 1000, generator=GENERATOR), torch.randn(80_000, 100, generator=GENERATOR)

    def seconds(values):
        best = []
        for _ in range(20):
            start = time.perf_counter()
            assert not looks_like_probabilities(values)
            best.append(time.perf_counter() - start)
        return min(best)

    assert seconds(many) < 5 * seconds(few) + 1e-4
