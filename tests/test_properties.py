"""The properties that the two systems this grew from state, and the traps that their peers fell into.

The softmax is read off the public API: the cross-entropy to outcome v is -log q_v, at any temperature.
"""

import math

import pytest
import torch
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

import tutelage as tl

# Among all inputs there are rows that sum to 1.
pytestmark = pytest.mark.filterwarnings("ignore::tutelage.errors.InputWarning")
bounded = settings(max_examples=30, deadline=None, derandomize=True)
# Two outcomes are the fewest that can differ; +-50 covers what trained models give. One step in a million keeps
# hypothesis from building gaps that float64 cannot tell from 0.
numbers = st.integers(-50_000_000, 50_000_000).map(lambda i: i / 1_000_000)
rows = st.lists(numbers, min_size=2, max_size=8)
# Below 0.5 probabilities of such logits underflow, above 20 all of them look alike.
temperatures = st.floats(0.5, 20)
DISTANCES = [
    cls() for kind, cls in tl.divergences.ALL.items() if kind != "normalized_kd"
]  # a cross-entropy, no distance
by_kind = pytest.mark.parametrize("divergence", DISTANCES, ids=lambda divergence: divergence.kind)


def log_softmax(logits, temperature=1.0):
    logits = torch.as_tensor(logits, dtype=torch.float64)
    every = tl.Labels(torch.arange(len(logits)))
    return -tl.divergence(logits.expand(len(logits), -1), every, temperature=temperature, reduction="none")


def softmax(logits, temperature=1.0):
    return log_softmax(logits, temperature).exp()


def entropy(logits, temperature):
    log_q = log_softmax(logits, temperature)
    return -(log_q.exp() * log_q).sum()


@st.composite
def pairs(draw, min_rows=1, max_rows=3, elements=numbers):
    """Student and teacher (N, V), and labels (N,)."""
    n, v = draw(st.integers(min_rows, max_rows)), draw(st.integers(2, 6))
    row = st.lists(elements, min_size=v, max_size=v)
    student, teacher = (torch.tensor([draw(row) for _ in range(n)], dtype=torch.float64) for _ in range(2))
    labels = torch.tensor([draw(st.integers(0, v - 1)) for _ in range(n)])
    return student, teacher, labels


def measure(student, teacher, divergence, labels, **arguments):
    if student.shape[-1] < divergence.least_outcomes:
        reject()
    return tl.divergence(student, teacher, divergence, labels=labels if divergence.needs_labels else None, **arguments)


# --- softmax ----------------------------------------------------------------------------------------------------------


@bounded
@given(rows, temperatures)
def test_softmax_is_a_distribution(logits, temperature):
    q = softmax(logits, temperature)
    assert abs(q.sum() - 1) < 1e-12
    assert (q > 0).all()
    assert (q <= 1).all()


@bounded
@given(rows, temperatures, st.floats(-1000, 1000))
def test_softmax_is_shift_invariant(logits, temperature, shift):
    shifted = [logit + shift for logit in logits]
    torch.testing.assert_close(softmax(shifted, temperature), softmax(logits, temperature), rtol=1e-10, atol=0)


@bounded
@given(rows, temperatures)
def test_softmax_keeps_the_order(logits, temperature):
    q = softmax(logits, temperature)
    for i, a in enumerate(logits):
        for j, b in enumerate(logits):
            if a < b:
                assert q[i] < q[j]
            elif a == b:
                assert abs(q[i] / q[j] - 1) < 1e-14


@bounded
@given(numbers, st.integers(2, 8), temperatures)
def test_softmax_of_equal_logits_is_uniform(logit, count, temperature):
    torch.testing.assert_close(
        softmax([logit] * count, temperature), torch.full((count,), 1 / count, dtype=torch.float64), rtol=1e-14, atol=0
    )


# The largest logit of a float16 model is 65,504; exp overflows float32 at 89.
@pytest.mark.parametrize("shift", [1000.0, -1000.0, 65_504.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softmax_is_stable(shift, dtype):
    near, far = torch.tensor([[0.0, 1.0, 2.0]], dtype=dtype), torch.tensor([[0.0, 1.0, 2.0]], dtype=dtype) + shift
    teacher = torch.tensor([[1.0, 0.0, 0.5]], dtype=dtype)
    assert tl.divergence(far, teacher) == tl.divergence(near, teacher)
    assert tl.divergence(near, far) == 0
    spread = torch.tensor([[1000.0, 0.0, -1000.0]], dtype=dtype, requires_grad=True)
    loss = tl.divergence(spread, tl.Labels(torch.tensor([2])))
    loss.backward()
    assert loss == 2000
    torch.testing.assert_close(spread.grad, torch.tensor([[1.0, 0.0, -1.0]], dtype=dtype))


@bounded
@given(rows, temperatures, st.floats(1.1, 5))
def test_a_higher_temperature_raises_the_entropy(logits, temperature, times):
    low, high = entropy(logits, temperature), entropy(logits, temperature * times)
    assert high >= low - 1e-12
    assert high <= math.log(len(logits)) + 1e-12
    if max(logits) - min(logits) > 0.1 and low > 1e-6:
        assert high > low


def test_the_ends_of_the_temperature():
    logits = [2.0, 1.0, 0.5]
    torch.testing.assert_close(softmax(logits, 1e8), torch.full((3,), 1 / 3, dtype=torch.float64), rtol=1e-7, atol=0)
    torch.testing.assert_close(softmax(logits, 1e-3), torch.tensor([1.0, 0, 0], dtype=torch.float64))


@bounded
@given(pairs(), temperatures)
def test_the_gradient_of_forward_kl_is_the_difference_of_the_softmaxes(sides, temperature):
    student, teacher, _ = sides
    student.requires_grad_()
    tl.divergence(student, teacher, temperature=temperature, reduction="sum").backward()
    q, p = (torch.stack([softmax(row, temperature) for row in side.detach()]) for side in (student, teacher))
    torch.testing.assert_close(student.grad, (q - p) / temperature, rtol=1e-9, atol=1e-14)


# --- divergences ------------------------------------------------------------------------------------------------------


@by_kind
@bounded
@given(pairs(), temperatures)
def test_equal_sides_are_at_distance_0(divergence, sides, temperature):
    student, _, labels = sides
    student.requires_grad_()
    value = measure(student, student, divergence, labels, temperature=temperature)
    value.backward()
    assert value == 0
    assert student.grad.abs().max() < 1e-14


@by_kind
@bounded
@given(pairs(), temperatures)
def test_no_distance_is_negative(divergence, sides, temperature):
    student, teacher, labels = sides
    assert measure(student, teacher, divergence, labels, temperature=temperature) >= 0


def test_normalized_kd_is_least_where_the_sides_agree():
    """It is a cross-entropy: not 0 at equal sides, but smaller than nearby, for the target's probability too."""
    teacher, labels = torch.tensor([[2.0, 0.0, 0.0, 1.0]], dtype=torch.float64), torch.tensor([1])
    at = tl.divergence(teacher, teacher, tl.NormalizedKD(), labels=labels)
    assert at > 0
    among_the_rest = teacher + torch.tensor([[0.1, 0.0, 0.0, -0.1]])
    # What is compared among the rest: normalise away the change in the target's own logarithm.
    target = -(teacher.softmax(-1)[0, 1] * among_the_rest.log_softmax(-1)[0, 1])
    plain = -(teacher.softmax(-1)[0, 1] * teacher.log_softmax(-1)[0, 1])
    assert tl.divergence(among_the_rest, teacher, tl.NormalizedKD(), labels=labels) - target > at - plain


BOUNDS = {
    tl.JensenShannon(): math.log(2),
    tl.JensenShannon(beta=0.1): -(0.1 * math.log(0.1) + 0.9 * math.log(0.9)),
    tl.TotalVariation(): 1.0,
    tl.Hellinger(): 1.0,
    tl.SkewForwardKL(skew=0.1): math.log(10),
    tl.SkewReverseKL(skew=0.2): math.log(5),
    tl.LogitCosine(): 2.0,
    tl.Dist(): 4.0,
}


@pytest.mark.parametrize(("divergence", "bound"), BOUNDS.items(), ids=str)
@bounded
@given(pairs())
def test_bounds(divergence, bound, sides):
    student, teacher, _ = sides
    assert tl.divergence(student, teacher, divergence) <= bound * (1 + 1e-12)


@pytest.mark.parametrize(("divergence", "bound"), BOUNDS.items(), ids=str)
def test_bounds_are_met(divergence, bound):
    if isinstance(divergence, (tl.LogitCosine, tl.Dist)):
        student, teacher = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    else:
        student, teacher = torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 1e4]])
    torch.testing.assert_close(tl.divergence(student, teacher, divergence).item(), bound, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "divergence",
    [tl.Jeffreys(), tl.JensenShannon(), tl.TotalVariation(), tl.Hellinger(), tl.AlphaBeta(1, 1), tl.LogitMSE()],
    ids=lambda divergence: divergence.kind,
)
@bounded
@given(pairs())
def test_symmetric_divergences(divergence, sides):
    student, teacher, _ = sides
    there, back = tl.divergence(student, teacher, divergence), tl.divergence(teacher, student, divergence)
    torch.testing.assert_close(there, back, rtol=1e-9, atol=1e-15)


@bounded
@given(pairs(), temperatures)
def test_forward_and_reverse_change_places_with_the_sides(sides, temperature):
    student, teacher, _ = sides
    forward = tl.divergence(student, teacher, tl.ForwardKL(), temperature=temperature)
    reverse = tl.divergence(teacher, student, tl.ReverseKL(), temperature=temperature)
    torch.testing.assert_close(forward, reverse, rtol=1e-9, atol=1e-15)


def test_forward_kl_is_the_teacher_against_the_student():
    """The seeds' documentation says the reverse of their code, and a successor shipped it reversed."""
    student, teacher = torch.tensor([[0.0, 1.0, 0.0]]).double(), torch.tensor([[2.0, 0.0, 0.0]]).double()
    assert abs(tl.divergence(student, teacher, tl.ForwardKL()) - 0.7793650531) < 1e-10
    assert abs(tl.divergence(student, teacher, tl.ReverseKL()) - 0.8403338218) < 1e-10


def test_nothing_is_clamped():
    """Implementations that clamp probabilities at 1e-10 or 1e-12 say 10.8 or 13.1 here, and lose the gradient."""
    student = torch.tensor([[0.0, 60.0]], requires_grad=True)
    loss = tl.divergence(student, torch.zeros(1, 2))
    loss.backward()
    assert abs(loss.item() - 29.30685) < 1e-5
    torch.testing.assert_close(student.grad, torch.tensor([[-0.5, 0.5]]))


# --- reduction: the most frequent bug of the field --------------------------------------------------------------------


@pytest.mark.parametrize(
    "divergence", [d for d in DISTANCES if d.kind != "dist"], ids=lambda divergence: divergence.kind
)
@bounded
@given(pairs(min_rows=2), temperatures)
def test_a_batch_is_the_mean_of_its_rows(divergence, sides, temperature):
    student, teacher, labels = sides
    whole = measure(student, teacher, divergence, labels, temperature=temperature)
    assert whole.shape == ()
    each = [
        measure(student[i : i + 1], teacher[i : i + 1], divergence, labels[i : i + 1], temperature=temperature)
        for i in range(len(student))
    ]
    torch.testing.assert_close(whole, torch.stack(each).mean(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("divergence", [cls() for cls in tl.divergences.ALL.values()], ids=lambda d: d.kind)
def test_repeating_the_batch_changes_nothing(divergence, generator):
    student, teacher = torch.randn(2, 3, 7, generator=generator).double()
    labels = torch.tensor([0, 3, 6])
    once = measure(student, teacher, divergence, labels)
    twice = measure(student.repeat(2, 1), teacher.repeat(2, 1), divergence, labels.repeat(2))
    torch.testing.assert_close(twice, once, rtol=1e-12, atol=0)


@pytest.mark.parametrize("divergence", [cls() for cls in tl.divergences.ALL.values()], ids=lambda d: d.kind)
def test_positions_are_rows_and_a_mask_leaves_some_out(divergence, generator):
    student, teacher = torch.randn(2, 2, 5, 7, generator=generator).double()
    labels = torch.randint(7, (2, 5), generator=generator)
    mask = torch.tensor([[1, 1, 0, 1, 0], [0, 1, 1, 0, 0]], dtype=torch.bool)
    masked = measure(student, teacher, divergence, labels, token_weights=mask)
    gathered = measure(student[mask], teacher[mask], divergence, labels[mask])
    torch.testing.assert_close(masked, gathered, rtol=1e-12, atol=0)


# DIST correlates within a row, MSE and cosine average over V, standardising takes the logit into account.
@pytest.mark.parametrize(
    "divergence",
    [cls() for kind, cls in tl.divergences.ALL.items() if not kind.startswith(("logit_", "dist", "standardized"))],
    ids=lambda d: d.kind,
)
def test_an_impossible_class_changes_nothing(divergence, generator):
    student, teacher = torch.randn(2, 3, 7, generator=generator)
    labels = torch.tensor([0, 3, 6])
    more = [torch.nn.functional.pad(side, (0, 1), value=-1e4) for side in (student, teacher)]
    torch.testing.assert_close(
        measure(*more, divergence, labels), measure(student, teacher, divergence, labels), rtol=1e-6, atol=0
    )


@bounded
@given(pairs(min_rows=2, elements=st.integers(-5_000, 5_000).map(lambda i: i / 1_000)))
def test_a_high_temperature_compares_centred_logits(sides):
    """T² KL tends to the mean squared difference of the centred logits, over 2: the reason for the factor T²."""
    student, teacher, _ = sides
    difference = (student - student.mean(-1, keepdim=True)) - (teacher - teacher.mean(-1, keepdim=True))
    limit = difference.square().mean(-1).mean() / 2
    objective = tl.Objective({"soft": tl.Term(tl.ForwardKL(), temperature=1e4)})
    torch.testing.assert_close(objective(student, {"teacher": teacher}).loss, limit, rtol=2e-3, atol=1e-6)


# --- alpha ------------------------------------------------------------------------------------------------------------


@bounded
@given(pairs(), temperatures)
def test_alpha_1_is_pure_distillation(sides, temperature):
    student, teacher, labels = sides
    loss = tl.DistillationLoss(temperature, alpha=1.0)
    value = loss(student, teacher, labels)
    kl = tl.divergence(student, teacher, temperature=temperature)
    torch.testing.assert_close(value, temperature**2 * kl, rtol=1e-12, atol=0)
    assert loss(student, teacher, (labels + 1) % student.shape[1]) == value


@bounded
@given(pairs(), temperatures)
def test_alpha_0_is_pure_cross_entropy(sides, temperature):
    student, teacher, labels = sides
    student.requires_grad_()
    loss = tl.DistillationLoss(temperature, alpha=0.0)
    value = loss(student, teacher, labels)
    torch.testing.assert_close(value, torch.nn.functional.cross_entropy(student, labels), rtol=1e-9, atol=1e-12)
    # What the teacher says does not enter at all: not by a product with 0, which a NaN would survive.
    for other in (teacher + 7, -teacher, teacher * math.nan, torch.full_like(teacher, -math.inf)):
        assert loss(student, other, labels) == value
    loss(student, teacher * math.nan, labels).backward()
    expected = (student.softmax(-1) - torch.nn.functional.one_hot(labels, student.shape[1])) / len(labels)
    torch.testing.assert_close(student.grad, expected.detach(), rtol=1e-9, atol=1e-14)


@bounded
@given(pairs(), temperatures, st.floats(0.01, 0.99))
def test_alpha_goes_straight_from_one_to_the_other(sides, temperature, alpha):
    soft, hard, mixed = (tl.DistillationLoss(temperature, a)(*sides) for a in (1.0, 0.0, alpha))
    torch.testing.assert_close(mixed, alpha * soft + (1 - alpha) * hard, rtol=1e-9, atol=1e-12)


@bounded
@given(pairs())
def test_alpha_of_the_other_modules(sides):
    student, teacher, labels = sides
    soft, hard = tl.DistillationLoss(3.0, 1.0)(*sides), tl.DistillationLoss(3.0, 0.0)(*sides)
    ensemble = tl.EnsembleDistiller([1.0], 3.0)
    torch.testing.assert_close(ensemble(student, [teacher], labels, alpha=1.0), soft)
    torch.testing.assert_close(ensemble(student, [teacher * math.nan], labels, alpha=0.0), hard)
    progressive = tl.ProgressiveDistiller([1.0], 3.0)
    hidden = [student], [teacher]
    torch.testing.assert_close(progressive(*sides, *hidden, alpha=1.0, beta=0.0), soft)
    torch.testing.assert_close(progressive(*sides, *hidden, alpha=0.0, beta=0.0), hard)
    cosine = tl.divergence(student, teacher, tl.LogitCosine())
    torch.testing.assert_close(progressive(*sides, *hidden, alpha=0.3, beta=1.0), cosine)


# --- features ---------------------------------------------------------------------------------------------------------


@bounded
@given(pairs())
def test_identical_features_give_0(sides):
    features, logits, labels = sides
    for loss in (tl.LogitMSE(), tl.LogitCosine(), tl.ForwardKL()):
        assert tl.FeatureDistiller.with_weights([0.3, 0.7], loss)([features] * 2, [features] * 2) == 0
    progressive = tl.ProgressiveDistiller([1.0, 2.0])
    value = progressive(logits, logits, labels, [features] * 2, [features] * 2, alpha=1.0, beta=0.5)
    assert value == 0


@bounded
@given(pairs(), st.floats(0.01, 100))
def test_cosine_distance(sides, times):
    x, y, _ = sides
    assume((x.norm(dim=-1) > 0.1).all())
    assume((y.norm(dim=-1) > 0.1).all())
    distance = tl.FeatureDistiller.with_weights([1.0], tl.LogitCosine())
    torch.testing.assert_close(distance([x], [-x]).item(), 2.0, rtol=1e-12, atol=0)
    torch.testing.assert_close(distance([times * x], [x]).item(), 0.0, rtol=0, atol=1e-12)
    torch.testing.assert_close(distance([times * x], [y]), distance([x], [y]), rtol=1e-9, atol=1e-12)
    right = torch.stack([-y[:, 1], y[:, 0]], -1)
    assume((y[:, :2].norm(dim=-1) > 0.1).all())
    torch.testing.assert_close(distance([y[:, :2]], [right]).item(), 1.0, rtol=1e-12, atol=0)


shares = st.lists(st.floats(0.01, 10), min_size=2, max_size=2)


@bounded
@given(pairs(), shares, st.floats(0.01, 100))
def test_layer_and_teacher_weights_are_normalised(sides, weights, times):
    student, teacher, labels = sides
    scaled = [times * weight for weight in weights]
    hidden, other = [student, teacher], [teacher, -student]
    ensembles = [tl.EnsembleDistiller(w, 2.0, space="probability") for w in (weights, scaled)]
    a, b = (ensemble(student, [teacher, -teacher], labels) for ensemble in ensembles)
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    progressives = [tl.ProgressiveDistiller(w, 2.0) for w in (weights, scaled)]
    a, b = (progressive(student, teacher, labels, hidden, other) for progressive in progressives)
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    assert abs(sum(ensembles[0].weights) - 1) < 1e-12
    # A feature distiller takes its weights as they are, until it is asked.
    features = [tl.FeatureDistiller.with_weights(w, tl.LogitMSE()) for w in (weights, scaled)]
    assert features[0].weights == weights
    a, b = (distiller(hidden, other) for distiller in features)
    torch.testing.assert_close(times * a, b, rtol=1e-9, atol=1e-12)
    a, b = (distiller.normalize_weights()(hidden, other) for distiller in features)
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@bounded
@given(pairs(min_rows=2))
def test_modules_are_means_over_rows(sides):
    modules = {
        "loss": lambda s, t, y: tl.DistillationLoss(2.0, 0.7)(s, t, y),
        "response": lambda s, t, y: tl.ResponseDistiller.balanced()(s, t, y),
        "features": lambda s, t, y: tl.FeatureDistiller.uniform_mse(1)([s], [t]),
        "ensemble": lambda s, t, y: tl.EnsembleDistiller.uniform(2)(s, [t, -t], y),
        "progressive": lambda s, t, y: tl.ProgressiveDistiller([1.0])(s, t, y, [s], [t]),
    }
    for name, module in modules.items():
        each = [module(*(side[i : i + 1] for side in sides)) for i in range(len(sides[0]))]
        torch.testing.assert_close(module(*sides), torch.stack(each).mean(), rtol=1e-9, atol=1e-12, msg=name)
