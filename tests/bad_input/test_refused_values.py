"""What only a look at the values can tell. `validate=False` does not look, and lets what is not finite through.

Rows of weight 0 are never looked at: whatever stands in them, the other rows get the same value and gradient.
"""

import math

import pytest
import torch

import tutelage as tl
from tutelage.errors import (
    InfiniteDivergenceError,
    LabelError,
    NonFiniteError,
    TeacherError,
    VocabularyError,
    WeightError,
)

INF, NAN = math.inf, math.nan
# Two rows, so that the bad one is not the first: its number must be found, not assumed.
GOOD = torch.tensor([[0.0, 1.0, 2.0, 0.5], [1.0, -1.0, 0.5, 0.0]])
OTHER = torch.tensor([[1.0, 0.0, 0.5, 0.0], [0.0, 2.0, 0.0, -0.5]])
LABELS = torch.tensor([0, 2])
HEAD = torch.eye(4)


def with_entry(tensor, value, row=1, column=2):
    tensor = tensor.clone()
    tensor[row, column] = value
    return tensor


def labels_for(divergence):
    return LABELS if divergence.needs_labels else None


def top_k(logits=None, tails=None, ids=None):
    logits = torch.tensor([[2.0, 1.0], [1.0, 0.0]]) if logits is None else logits
    tails = torch.zeros(2) if tails is None else tails
    return tl.TopK(torch.tensor([[0, 3], [2, 1]]) if ids is None else torch.tensor(ids), logits, {1.0: tails})


def sampled(weights=((0.5, 0.5), (0.25, 0.75)), ids=((0, 3), (2, 2)), entropy=None):
    return tl.Sampled(torch.tensor(ids), torch.tensor(weights), 1.0, None if entropy is None else torch.tensor(entropy))


# --- NaN and infinities -----------------------------------------------------------------------------------------------

SIDES = {
    "student": lambda bad: (bad(GOOD), OTHER),
    "student's head": lambda bad: (tl.HeadStates(bad(GOOD), HEAD), OTHER),
    "teacher": lambda bad: (GOOD, bad(OTHER)),
    "teacher's head": lambda bad: (GOOD, tl.HeadStates(bad(OTHER), HEAD)),
    "a part of a mixture": lambda bad: (GOOD, tl.Mixture([tl.Logits(OTHER), tl.Logits(bad(OTHER))])),
    "a part of a mixture of logits": lambda bad: (GOOD, tl.Mixture([tl.Logits(bad(OTHER))] * 2, space="logit")),
}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("value", "name"), [(NAN, "NaN"), (INF, r"\+inf")], ids=["nan", "inf"])
def test_logits_that_are_no_numbers(refused, side, value, name):
    # Through a head an infinity meets its zeros, so that all columns are NaN.
    head = "head" in side
    student, teacher = SIDES[side](lambda logits: with_entry(logits, value))
    who = "student" if "student" in side else "teacher"
    where = "contain NaN in row 1" if head else rf"contain {name} in row 1 \(forward_kl\), column 2"
    with refused(NonFiniteError, f"the {who}'s logits {where}", "broken or has overflowed .* use bfloat16 or float32"):
        tl.divergence(student, teacher)
    assert not tl.divergence(student, teacher, validate=False).isfinite()


# Every divergence, for each path through the executor; a row of -inf is no distribution for any of them.
@pytest.mark.parametrize("divergence", [cls() for cls in tl.divergences.ALL.values()], ids=lambda d: d.kind)
@pytest.mark.parametrize("value", [NAN, INF], ids=["nan", "inf"])
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_no_divergence_lets_them_through(refused, divergence, value, side):
    student, teacher = SIDES[side](lambda logits: with_entry(logits, value))
    with refused(NonFiniteError, f"the {side}'s logits contain", divergence.kind):
        tl.divergence(student, teacher, divergence, labels=labels_for(divergence))
    value = tl.divergence(student, teacher, divergence, labels=labels_for(divergence), validate=False)
    assert not value.isfinite()


@pytest.mark.parametrize("divergence", [cls() for cls in tl.divergences.ALL.values()], ids=lambda d: d.kind)
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_rows_of_minus_inf(refused, divergence, side):
    def exclude_all(logits):
        return torch.where(torch.tensor([[False], [True]]), -INF, logits)

    student, teacher = SIDES[side](exclude_all)
    with refused(NonFiniteError, f"the {side}'s logits", "at least one finite logit|expected finite numbers"):
        tl.divergence(student, teacher, divergence, labels=labels_for(divergence))
    value = tl.divergence(student, teacher, divergence, labels=labels_for(divergence), validate=False)
    assert not value.isfinite()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_every_reduction_looks(refused, reduction):
    with refused(NonFiniteError, "NaN in row 1", "use bfloat16"):
        tl.divergence(with_entry(GOOD, NAN), OTHER, reduction=reduction)


def test_the_row_is_counted_over_all_blocks_and_past_masked_rows(refused):
    student, weights = torch.zeros(50, 3), torch.ones(50)
    student[41, 1], weights[::2] = NAN, 0.0
    with tl.execution.byte_budget(64), refused(NonFiniteError, "NaN in row 41 .*column 1", "use bfloat16"):
        tl.divergence(student, torch.zeros(50, 3), token_weights=weights)


# What -inf on one side does to each divergence, from its formula: infinite where the other side has mass there,
# refused where logits themselves are compared, finite in all others.
INFINITE = {"forward_kl": "s", "reverse_kl": "t", "jeffreys": "st", "adaptive_kl": "st", "decoupled_kd": "s"}
INFINITE["normalized_kd"] = "s"
COMPARES_LOGITS = ("logit_mse", "logit_cosine", "standardized_kl")


@pytest.mark.parametrize("kind", tl.divergences.ALL)
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_one_side_excludes_an_outcome(refused, kind, side):
    divergence = tl.divergences.ALL[kind]()
    # In row 1 column 2 is the label; column 3 is one of the rest.
    student, teacher = SIDES[side](lambda logits: with_entry(logits, -INF, column=3))

    def call(**arguments):
        return tl.divergence(student, teacher, divergence, labels=labels_for(divergence), **arguments)

    if side[0] in INFINITE.get(kind, ""):
        with refused(InfiniteDivergenceError, rf"infinite in row 1 \({kind}\)", "jensen_shannon.*VocabularyMap"):
            call()
        assert call(validate=False) == INF
    elif kind in COMPARES_LOGITS:
        with refused(NonFiniteError, f"the {side}'s logits contain -inf in row 1.*column 3", "VocabularyMap"):
            call()
        assert not call(validate=False).isfinite()
    else:
        assert call().isfinite()


@pytest.mark.parametrize("kind", [kind for kind in tl.divergences.ALL if kind not in COMPARES_LOGITS])
def test_both_sides_exclude_an_outcome(kind):
    divergence = tl.divergences.ALL[kind]()
    student, teacher = (with_entry(logits, -INF, column=3).requires_grad_() for logits in (GOOD, OTHER))
    loss = tl.divergence(student, teacher, divergence, labels=labels_for(divergence))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


EXCLUDED = {
    "label": lambda: tl.divergence(with_entry(GOOD, -INF), tl.Labels(LABELS)),
    "smoothed": lambda: tl.divergence(with_entry(GOOD, -INF, column=0), tl.Labels(LABELS, smoothing=0.1)),
    "kept": lambda: tl.divergence(with_entry(GOOD, -INF, column=1), top_k()),
    "bucket": lambda: tl.divergence(torch.tensor([[0.0, 1, 2, 3], [-INF, 1, 2, -INF]]), top_k()),
    "sampled": lambda: tl.divergence(with_entry(GOOD, -INF), sampled()),
    "no bucket": lambda: tl.divergence(GOOD, top_k(tails=torch.tensor([0.0, -INF])), tl.ReverseKL()),
}


@pytest.mark.parametrize("call", EXCLUDED.values(), ids=EXCLUDED)
def test_excluded_outcomes_of_sparse_teachers(refused, call):
    with refused(InfiniteDivergenceError, "infinite in row 1", "jensen_shannon.*VocabularyMap"):
        call()


# Not every infinity comes from -inf: the square of 1e25 is beyond float32. The error must not accuse the wrong one.
@pytest.mark.parametrize(
    ("student", "divergence"),
    [(with_entry(GOOD, 1e25), tl.LogitMSE()), (with_entry(GOOD, 1e25), tl.AlphaBeta(1e-20, 0.0))],
    ids=["logit_mse", "alpha_beta"],
)
def test_overflow_is_no_exclusion(student, divergence):
    with pytest.raises(tl.errors.InputError) as caught:
        tl.divergence(student, OTHER, divergence)
    assert "a logit of -inf" not in str(caught.value)


# --- TopK -------------------------------------------------------------------------------------------------------------

KEPT = torch.tensor([[2.0, 1.0], [1.0, 0.0]])
BAD_TOP_K = {
    "nan": lambda: top_k(with_entry(KEPT, NAN, column=0)),
    "inf": lambda: top_k(with_entry(KEPT, INF, column=0)),
    "tail-nan": lambda: top_k(tails=torch.tensor([0.0, NAN])),
    "tail-inf": lambda: top_k(tails=torch.tensor([0.0, INF])),
    "sum-above-1": lambda: tl.TopK.from_log_probs(
        torch.tensor([[0, 1], [0, 1]]), torch.tensor([[0.5, 0.5], [0.9, 0.2]]).log()
    ),
}


@pytest.mark.parametrize("make", BAD_TOP_K.values(), ids=BAD_TOP_K)
def test_values_of_top_k(refused, make):
    with refused(NonFiniteError, r"NaN or \+inf in row 1", "probabilities sum to more than 1"):
        tl.divergence(GOOD, make())
    assert not tl.divergence(GOOD, make(), validate=False).isfinite()


def test_top_k_without_mass(refused):
    teacher = top_k(torch.tensor([[2.0, 1.0], [-INF, -INF]]), torch.tensor([0.0, -INF]))
    with refused(NonFiniteError, "all logits and tails of TopK are -inf in row 1", "needs some mass"):
        tl.divergence(GOOD, teacher)
    assert tl.divergence(GOOD, teacher, validate=False).isnan()


BAD_IDS = {
    "beyond": ([[0, 3], [2, 4]], "contain 4", "expected ids from 0 to 3.*VocabularyMap"),
    "negative": ([[0, 3], [-1, 2]], "contain -1", "expected ids from 0 to 3"),
    "repeated": ([[0, 3], [2, 2]], "repeat an id in a row", "expected distinct ids"),
}


@pytest.mark.parametrize("tail", ["bucket", "renormalize"])
@pytest.mark.parametrize(("ids", "came", "remedy"), BAD_IDS.values(), ids=BAD_IDS)
def test_ids_of_top_k(refused, ids, came, remedy, tail):
    teacher = tl.TopK(torch.tensor(ids), KEPT, {1.0: torch.zeros(2)}, tail)
    with refused(TeacherError, f"TopK.indices {came}", remedy):
        tl.divergence(GOOD, teacher)


def test_the_repeated_id_is_named(refused):
    with refused(TeacherError, r"\b2\b", "distinct ids"):
        tl.divergence(GOOD, top_k(ids=[[0, 3], [2, 2]]))
    # Through a map, too, it is the teacher's id that the user knows.
    shared = tl.VocabularyMap([0, 1, 2], [1, 3, 0])
    with refused(TeacherError, r"\b3\b", "distinct ids"):
        tl.divergence(GOOD, top_k(ids=[[0, 3], [3, 3]]), vocabulary=shared)


@pytest.mark.parametrize("ids", [[0, 1, 2, 3, 0], [0, 1, 2, 3, 4]], ids=["repeated", "beyond"])
def test_more_kept_ids_than_outcomes(refused, ids):
    teacher = tl.TopK(torch.tensor([ids]), torch.zeros(1, 5), tail="renormalize")
    with refused(TeacherError, "TopK.indices (repeat|contain)", "distinct ids|from 0 to 3"):
        tl.divergence(GOOD[:1], teacher)


def test_a_tail_beside_all_ids(refused):
    ids = torch.arange(4).expand(2, 4)
    with refused(TeacherError, r"keeps all 4 ids, yet log_tails\[1\]", "expected -inf"):
        tl.divergence(GOOD, tl.TopK(ids, OTHER, {1.0: torch.tensor([-INF, 0.0])}))


def test_parts_that_keep_other_ids(refused):
    mixture = tl.Mixture([top_k(), top_k(ids=[[0, 3], [1, 2]])])
    with refused(TeacherError, "part 1 keeps other ids than part 0", "must share their indices"):
        tl.divergence(GOOD, mixture)


# --- Sampled ----------------------------------------------------------------------------------------------------------

BAD_WEIGHTS = {
    "sum-below": ([0.5, 0.4], "sum to 0.9"),
    "sum-above": ([0.5, 0.6], "sum to 1.1"),
    "zeros": ([0.0, 0.0], "sum to 0"),
    "negative": ([1.5, -0.5], "least weight.* -0.5"),
    "nan": ([NAN, 0.5], "sum to nan"),
    "inf": ([INF, 0.0], "sum to inf"),
    "counts": ([3.0, 1.0], "sum to 4"),
}


@pytest.mark.parametrize(("weights", "came"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_weights_of_samples(refused, weights, came):
    with refused(TeacherError, came, "sum to 1: counts divided by the number of draws"):
        tl.divergence(GOOD, sampled(weights=[[0.5, 0.5], weights]))


@pytest.mark.parametrize(("bad", "came"), [(4, "contain 4"), (-1, "contain -1")])
def test_ids_of_samples(refused, bad, came):
    with refused(TeacherError, f"Sampled.indices {came}", "expected ids from 0 to 3"):
        tl.divergence(GOOD, sampled(ids=[[0, 3], [bad, 2]]))


@pytest.mark.parametrize("bad", [NAN, INF])
def test_entropy(refused, bad):
    teacher = sampled(entropy=[0.5, bad])
    with refused(NonFiniteError, "entropy.*not finite in row 1", "capture that row again"):
        tl.divergence(GOOD, teacher)
    assert not tl.divergence(GOOD, teacher, validate=False).isfinite()


def test_a_sample_of_weight_0_says_nothing():
    """Rows with fewer draws are padded so; what the student excludes there must not matter."""
    student = with_entry(GOOD, -INF)
    padded = sampled(weights=[[0.5, 0.5], [1.0, 0.0]], ids=[[0, 3], [1, 2]])
    plain = tl.Sampled(torch.tensor([[1]]), torch.ones(1, 1), 1.0)
    per_row = tl.divergence(student, padded, reduction="none")
    assert per_row[1] == tl.divergence(student[1:], plain)


# --- labels and token weights -----------------------------------------------------------------------------------------

BAD_LABELS = {
    "cross-entropy": (lambda bad, **kw: tl.divergence(GOOD, tl.Labels(bad), **kw), 3),
    "smoothed": (lambda bad, **kw: tl.divergence(GOOD, tl.Labels(bad, smoothing=0.1), **kw), 3),
    "not-lumped": (lambda bad, **kw: tl.divergence(GOOD, tl.Labels(bad), tl.AlphaBeta(1, 1), **kw), 3),
    "decoupled": (lambda bad, **kw: tl.divergence(GOOD, OTHER, tl.DecoupledKD(), labels=bad, **kw), 3),
    "normalized": (lambda bad, **kw: tl.divergence(GOOD, OTHER, tl.NormalizedKD(), labels=bad, **kw), 3),
    # Labels are ids of the student's vocabulary, also where the teacher's is narrower.
    "mapped": (
        lambda bad, **kw: tl.divergence(GOOD, tl.Labels(bad), vocabulary=tl.VocabularyMap.prefix(2), **kw),
        3,
    ),
    "mapped-decoupled": (
        lambda bad, **kw: tl.divergence(
            GOOD, OTHER, tl.DecoupledKD(), labels=bad, vocabulary=tl.VocabularyMap.prefix(3), **kw
        ),
        2,
    ),
    "DistillationLoss": (lambda bad: tl.DistillationLoss()(GOOD, OTHER, bad), 3),
    "EnsembleDistiller": (lambda bad: tl.EnsembleDistiller([1])(GOOD, [OTHER], bad), 3),
}


# 4 is one beyond the last; -100 is what PyTorch would ignore: here a weight says what does not count.
@pytest.mark.parametrize("bad", [4, -1, -100])
@pytest.mark.parametrize(("call", "last"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_labels_out_of_range(refused, call, last, bad):
    with refused(LabelError, f"label {bad} in row 1", f"expected 0 to {last}.*token weight 0"):
        call(torch.tensor([0, bad]))


def test_a_label_outside_the_map(refused):
    shared = tl.VocabularyMap([0, 1, 3], [0, 1, 2])
    with refused(LabelError, "label 2 in row 1", "compared columns"):
        tl.divergence(GOOD, OTHER, tl.DecoupledKD(), labels=LABELS, vocabulary=shared)


@pytest.mark.parametrize(("bad", "name"), [(-0.5, "-0.5"), (NAN, "nan"), (INF, "inf"), (-INF, "-inf")])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_token_weights(refused, bad, name, reduction):
    weights = torch.tensor([1.0, bad])
    with refused(WeightError, rf"token_weights contain {name} \(row 1\)", "finite and >= 0"):
        tl.divergence(GOOD, OTHER, token_weights=weights, reduction=reduction)
    if bad != -0.5:
        value = tl.divergence(GOOD, OTHER, token_weights=weights, reduction=reduction, validate=False)
        assert not value.isfinite().all()


# Weights whose sum, or whose inverse, is beyond float32. An error is fine, so is the right value; 0 or inf is not.
@pytest.mark.parametrize("scale", [1e38, 1e-40])
def test_token_weights_at_the_ends_of_the_range(scale):
    even = tl.divergence(GOOD, OTHER)
    try:
        value = tl.divergence(GOOD.repeat(4, 1), OTHER.repeat(4, 1), token_weights=torch.full((8,), scale))
    except WeightError:
        return
    torch.testing.assert_close(value, even, rtol=1e-3, atol=0)


def test_validate_false_in_an_objective():
    objective = tl.Objective({"soft": tl.Term(tl.ForwardKL())}, validate=False)
    assert objective(with_entry(GOOD, NAN), {"teacher": OTHER}).loss.isnan()
    with pytest.raises(NonFiniteError):
        tl.Objective({"soft": tl.Term(tl.ForwardKL())})(with_entry(GOOD, NAN), {"teacher": OTHER})


# --- rows of weight 0 -------------------------------------------------------------------------------------------------


def junk_row(good, junk):
    return torch.cat([good[:1], torch.full_like(good[1:], junk)])


# Each entry: (student, teacher, arguments) whose second row is junk that would be refused if it counted.
JUNK = {
    "student-nan": lambda: (junk_row(GOOD, NAN), OTHER, {}),
    "student-minus-inf": lambda: (junk_row(GOOD, -INF), OTHER, {}),
    "hidden-nan": lambda: (tl.HeadStates(junk_row(GOOD, NAN), HEAD), OTHER, {}),
    "teacher-nan": lambda: (GOOD, junk_row(OTHER, NAN), {}),
    "teacher-inf": lambda: (GOOD, junk_row(OTHER, INF), {}),
    "teacher-hidden-nan": lambda: (GOOD, tl.HeadStates(junk_row(OTHER, NAN), HEAD), {}),
    "mixture-nan": lambda: (GOOD, tl.Mixture([tl.Logits(OTHER), tl.Logits(junk_row(OTHER, NAN))]), {}),
    "excluded": lambda: (with_entry(GOOD, -INF), OTHER, {}),
    "label": lambda: (GOOD, tl.Labels(torch.tensor([0, -100])), {}),
    "label-beyond": lambda: (GOOD, tl.Labels(torch.tensor([0, 99])), {}),
    "label-smoothed": lambda: (GOOD, tl.Labels(torch.tensor([0, -100]), smoothing=0.2), {}),
    "label-not-lumped": lambda: (GOOD, tl.Labels(torch.tensor([0, -100])), {"divergence": tl.AlphaBeta(1, 1)}),
    "label-decoupled": lambda: (GOOD, OTHER, {"divergence": tl.DecoupledKD(), "labels": torch.tensor([0, -100])}),
    "label-mapped": lambda: (
        GOOD,
        OTHER,
        {"divergence": tl.NormalizedKD(), "labels": torch.tensor([0, 3]), "vocabulary": tl.VocabularyMap.prefix(3)},
    ),
    "whole-batch": lambda: (junk_row(GOOD, NAN), junk_row(OTHER, INF), {"divergence": tl.Dist()}),
    "per-token": lambda: (junk_row(GOOD, NAN), junk_row(OTHER, -INF), {"divergence": tl.LogitCosine()}),
    "top-k-beyond": lambda: (GOOD, top_k(ids=[[0, 3], [99, -7]]), {}),
    "top-k-repeated": lambda: (GOOD, top_k(ids=[[0, 3], [2, 2]]), {}),
    "top-k-nan": lambda: (GOOD, top_k(junk_row(KEPT, NAN), torch.tensor([0.0, NAN])), {}),
    "top-k-no-mass": lambda: (GOOD, top_k(junk_row(KEPT, -INF), torch.tensor([0.0, -INF])), {}),
    "top-k-all-kept": lambda: (
        GOOD,
        tl.TopK(torch.arange(4).expand(2, 4), OTHER, {1.0: torch.tensor([-INF, 5.0])}),
        {},
    ),
    "top-k-unmapped": lambda: (
        GOOD,
        top_k(ids=[[0, 3], [1, 2]]),
        {"vocabulary": tl.VocabularyMap([0, 1, 2], [0, 3, 4])},
    ),
    "top-k-above-1": lambda: (
        GOOD,
        tl.TopK.from_log_probs(torch.tensor([[0, 1], [0, 1]]), torch.tensor([[0.5, 0.3], [0.9, 0.9]]).log()),
        {},
    ),
    "mixture-of-other-ids": lambda: (GOOD, tl.Mixture([top_k(), top_k(ids=[[0, 3], [1, 2]])]), {}),
    "samples-beyond": lambda: (GOOD, sampled(ids=[[0, 3], [99, -7]]), {}),
    "samples-sum": lambda: (GOOD, sampled(weights=[[0.5, 0.5], [9.0, -3.0]]), {}),
    "samples-nan": lambda: (GOOD, sampled(weights=[[0.5, 0.5], [NAN, NAN]], entropy=[0.1, NAN]), {}),
    "samples-unmapped": lambda: (GOOD, sampled(ids=[[0, 3], [1, 2]]), {"vocabulary": tl.VocabularyMap([0, 1], [0, 3])}),
}


def first_row(side):
    """Return the side with its first row alone."""
    if isinstance(side, torch.Tensor):
        return side[:1]
    if isinstance(side, tl.HeadStates):
        return tl.HeadStates(side.hidden[:1], side.weight)
    if isinstance(side, tl.TopK):
        tails = {temperature: tail[:1] for temperature, tail in side.log_tails.items()}
        return tl.TopK(side.indices[:1], side.logits[:1], tails, side.tail)
    if isinstance(side, tl.Sampled):
        entropy = None if side.entropy is None else side.entropy[:1]
        return tl.Sampled(side.indices[:1], side.weights[:1], side.temperature, entropy)
    if isinstance(side, tl.Labels):
        return tl.Labels(side.targets[:1], side.smoothing)
    if isinstance(side, tl.Logits):
        return tl.Logits(side.values[:1])
    return tl.Mixture([first_row(part) for part in side.parts], side.weights, side.space)


def with_leaf(student):
    """Return the student, with a leaf in it that gathers the gradient."""
    if isinstance(student, tl.HeadStates):
        leaf = student.hidden.clone().requires_grad_()
        return tl.HeadStates(leaf, student.weight), leaf
    leaf = student.clone().requires_grad_()
    return leaf, leaf


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("make", JUNK.values(), ids=JUNK)
def test_rows_of_weight_0_are_never_looked_at(make, reduction, validate):
    student, teacher, arguments = make()
    if isinstance(arguments.get("divergence"), tl.Dist) and reduction == "none":
        reduction = "mean"
    alone, alone_leaf = with_leaf(first_row(student))
    student, leaf = with_leaf(student)
    loss = tl.divergence(
        student, teacher, token_weights=torch.tensor([1.0, 0.0]), reduction=reduction, validate=validate, **arguments
    )
    loss.sum().backward()

    if "labels" in arguments:
        arguments["labels"] = arguments["labels"][:1]
    expected = tl.divergence(alone, first_row(teacher), reduction="sum", **arguments)
    expected.backward()

    assert loss.sum() == expected
    assert torch.equal(leaf.grad[:1], alone_leaf.grad)
    assert torch.equal(leaf.grad[1:], torch.zeros_like(leaf.grad[1:]))


def test_a_row_may_count_for_one_term_only():
    """An unlabelled row is soft only; a row without a teacher's output is hard only."""
    student = GOOD.clone().requires_grad_()
    objective = tl.Objective({"soft": tl.Term(tl.ForwardKL()), "hard": tl.Term(tl.ForwardKL(), teacher="labels")})
    out = objective(
        student,
        {"teacher": torch.cat([OTHER[:1], torch.full((1, 4), NAN)]), "labels": tl.Labels(torch.tensor([-100, 2]))},
        token_weights={"soft": torch.tensor([1.0, 0.0]), "hard": torch.tensor([0.0, 1.0])},
    )
    out.loss.backward()
    q, p = GOOD.softmax(-1), OTHER.softmax(-1)
    expected = torch.stack([q[0] - p[0], q[1] - torch.eye(4)[2]])
    torch.testing.assert_close(student.grad, expected, rtol=1e-6, atol=1e-7)
    assert out.parts["soft"] == tl.divergence(GOOD[:1], OTHER[:1])
    torch.testing.assert_close(out.parts["hard"], -GOOD[1].log_softmax(-1)[2], rtol=1e-6, atol=0)


@pytest.mark.parametrize("cls", tl.divergences.ALL.values(), ids=tl.divergences.ALL)
def test_all_rows_of_weight_0(cls):
    student = torch.full((2, 4), NAN, requires_grad=True)
    divergence = cls()
    loss = tl.divergence(
        student,
        student.detach(),
        divergence,
        labels=torch.tensor([99, -1]) if divergence.needs_labels else None,
        token_weights=torch.zeros(2),
    )
    loss.backward()
    assert loss == 0
    assert torch.equal(student.grad, torch.zeros(2, 4))


# --- vocabulary maps --------------------------------------------------------------------------------------------------


def test_a_sparse_teacher_that_the_map_leaves_out(refused):
    shared = tl.VocabularyMap([0, 1], [0, 3])
    with refused(VocabularyError, "1 rows of TopK keep no id", "capture the teacher over the shared columns"):
        tl.divergence(GOOD, top_k(ids=[[0, 3], [1, 2]]), vocabulary=shared)
    with refused(VocabularyError, "ids that the vocabulary map leaves out", "sample over the shared columns"):
        tl.divergence(GOOD, sampled(ids=[[0, 3], [0, 2]]), vocabulary=shared)


@pytest.mark.parametrize("make", [top_k, sampled], ids=["TopK", "Sampled"])
def test_a_negative_teacher_id_under_a_map(refused, make):
    with refused(TeacherError, "contain -1", "expected ids (>=|from) 0"):
        tl.divergence(GOOD, make(ids=[[0, 3], [-1, 2]]), vocabulary=tl.VocabularyMap.prefix(4))


@pytest.mark.parametrize(
    ("shared", "came"),
    [
        (tl.VocabularyMap.prefix(5), "student id 4, but the student's vocabulary has only ids 0 to 3"),
        (tl.VocabularyMap([0, 7], [0, 1]), "student id 7, but the student's vocabulary has only ids 0 to 3"),
        (tl.VocabularyMap([0, 1], [6, 1]), "teacher id 6, but the teacher's vocabulary has only ids 0 to 4"),
    ],
    ids=["prefix", "student", "teacher"],
)
@pytest.mark.parametrize("head", [False, True])
def test_a_map_beyond_a_side(refused, shared, came, head):
    student = tl.HeadStates(GOOD, HEAD) if head else GOOD
    with refused(VocabularyError, came, "leave the id out of the map, or give the (student|teacher) it was made for"):
        tl.divergence(student, torch.zeros(2, 5), vocabulary=shared)
