"""The ready-made modules: golden values of the two systems this grew from, and the behaviour that the contract fixes.

Each golden number stands beside a formula in NumPy's float64, written from the definitions, that gives it too.
"""

import copy
import io
import pickle

import numpy as np
import pytest
import torch

import tutelage as tl
from tutelage.errors import InputWarning

# The published numbers below have ten digits.
DIGITS = {"rtol": 0, "atol": 6e-11}


def log_softmax(logits, temperature=1.0):
    logits = np.asarray(logits, dtype=np.float64) / temperature
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def kl(teacher, student, temperature=1.0):
    """T² KL(teacher || student), mean over rows."""
    log_p, log_q = log_softmax(teacher, temperature), log_softmax(student, temperature)
    return temperature**2 * (np.exp(log_p) * (log_p - log_q)).sum(-1).mean()


def cross_entropy(student, labels):
    return -np.mean([row[label] for row, label in zip(log_softmax(student), labels, strict=True)])


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def agree(value, formula, golden=None):
    assert value.dtype == torch.float64
    np.testing.assert_allclose(value.detach().numpy(), formula, rtol=1e-12, atol=1e-15)
    if golden is not None:
        np.testing.assert_allclose(value.detach().numpy(), golden, **DIGITS)


S, T, Y = double([[2.0, 1.0, 0.5]]), double([[1.5, 1.2, 0.8]]), torch.tensor([0])
STUDENT = double([[7.0, 3.0, 2.0], [2.0, 8.0, 3.0], [3.0, 2.0, 7.0]])
TEACHER = double([[10.0, 2.0, 1.0], [1.0, 12.0, 2.0], [2.0, 1.0, 11.0]])
LABELS = torch.tensor([0, 1, 2])


# --- golden values of entrenar ----------------------------------------------------------------------------------------


def test_the_parts_of_the_worked_example():
    soft = tl.Objective({"soft": tl.Term(tl.ForwardKL(), temperature=2.0)})(S, {"teacher": T}).loss
    agree(soft, kl(T, S, 2.0), 0.0681120095)
    agree(tl.divergence(S, tl.Labels(Y)), cross_entropy(S, Y), 0.4643687841)


@pytest.mark.parametrize(("alpha", "golden"), [(0.5, 0.2662403968), (0.7, 0.1869890419)])
def test_the_worked_example(alpha, golden):
    formula = alpha * kl(T, S, 2.0) + (1 - alpha) * cross_entropy(S, Y)
    agree(tl.DistillationLoss(2.0, alpha)(S, T, Y), formula, golden)


@pytest.mark.parametrize(
    ("temperature", "golden"),
    [(1, 0.0186963904), (2, 0.3158365276), (3, 0.8537698485), (4, 1.2910822036), (8, 1.8733865477)],
)
def test_temperatures_of_the_example_set(temperature, golden):
    formula = 0.7 * kl(TEACHER, STUDENT, temperature) + 0.3 * cross_entropy(STUDENT, LABELS)
    agree(tl.DistillationLoss(temperature, 0.7)(STUDENT, TEACHER, LABELS), formula, golden)


def test_the_cross_entropy_of_the_example_set():
    agree(tl.DistillationLoss(alpha=0.0)(STUDENT, TEACHER, LABELS), cross_entropy(STUDENT, LABELS), 0.0195547550)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_an_ensemble_of_logits_is_their_weighted_mean(temperature):
    ensemble = tl.EnsembleDistiller([1.0, 3.0], temperature)
    combined = ensemble.combine([double([[1.0, 2.0, 3.0]]), double([[3.0, 2.0, 1.0]])])
    assert combined.tolist() == [[2.5, 2.0, 1.5]]


def test_an_ensemble_of_probabilities():
    teachers = [S, T]
    combined = tl.EnsembleDistiller.uniform(2, 2.0)
    combined = tl.EnsembleDistiller([1.0, 1.0], 2.0, space="probability").combine(teachers)
    mean = (np.exp(log_softmax(S, 2.0)) + np.exp(log_softmax(T, 2.0))) / 2
    agree(combined, 2.0 * np.log(mean))
    np.testing.assert_allclose(combined.numpy(), [[-1.662917, -2.319074, -2.764965]], rtol=0, atol=5e-7)
    # And what the loss compares with is what `combine` shows: the seed's loss used the other mean.
    ensemble = tl.EnsembleDistiller([1.0, 1.0], 2.0, space="probability")
    student = double([[0.0, 1.0, 0.0]])
    agree(ensemble(student, teachers, Y, alpha=1.0), kl(combined, student, 2.0))
    logit_mean = kl((S + T) / 2, student, 2.0)
    assert abs(ensemble(student, teachers, Y, alpha=1.0).item() - logit_mean) > 1e-5


# --- golden values of oxicuda -----------------------------------------------------------------------------------------


# (teacher, student, temperature): the golden numbers fit this order and not the other.
@pytest.mark.parametrize(
    ("teacher", "student", "temperature", "golden"),
    [
        ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0], 1.0, 1.1504207652),
        ([0.0, 2.0, 4.0], [0.0, 1.0, 2.0], 1.0, 0.1156114282),
        ([0.0, 2.0, 4.0], [0.0, 1.0, 2.0], 4.0, 0.3057212915),
    ],
)
def test_kl(teacher, student, temperature, golden):
    response = tl.ResponseDistiller.pure_kl(temperature)
    value = response(double([student]), double([teacher]), Y)
    agree(value, kl(teacher, student, temperature), golden)


def test_kl_and_mse_combined_are_two_terms():
    both = [tl.Term(tl.ForwardKL(), weight=0.5), tl.Term(tl.LogitMSE(), weight=0.5)]
    teacher, student = double([[1.0, 2.0]]), double([[1.5, 1.5]])
    formula = 0.5 * kl(teacher, student) + 0.5 * 0.25
    response = tl.ResponseDistiller(both, hard_label_weight=0.0, soft_label_weight=1.0)
    agree(response(student, teacher, Y), formula, 0.1804720358)
    agree(tl.FeatureDistiller([(1.0, both)])([student], [teacher]), formula, 0.1804720358)


def test_kl_on_features_with_a_temperature():
    teacher, student = double([[0.1, 0.7, 0.2]]), double([[0.4, 0.4, 0.2]])
    distiller = tl.FeatureDistiller.with_weights([1.0], tl.Term(tl.ForwardKL(), temperature=2.0))
    # Features that are probabilities already are named, and compared as what KL takes: logits.
    with pytest.warns(InputWarning, match="look like probabilities"):
        value = distiller([student], [teacher])
    agree(value, kl(teacher, student, 2.0), 0.0307981642)


def test_uniform_mse():
    distiller = tl.FeatureDistiller.uniform_mse(4)
    assert distiller.n_layers == 4
    assert distiller.weights == [0.25] * 4
    ones, zeros = torch.ones(2, 3), torch.zeros(2, 3)
    assert distiller.layer_loss(0, zeros, ones) == 1.0
    assert distiller([zeros] * 4, [ones, zeros, zeros, zeros]) == 0.25


def test_opposite_vectors_have_cosine_distance_2():
    vector = double([[1.0, 2.0, 3.0]])
    agree(tl.FeatureDistiller.with_weights([1.0], tl.LogitCosine())([vector], [-vector]), 2.0)


# --- DistillationLoss -------------------------------------------------------------------------------------------------


def test_defaults():
    loss = tl.DistillationLoss()
    assert (loss.temperature, loss.alpha, loss.divergence) == (4.0, 0.7, tl.ForwardKL())
    agree(
        loss(STUDENT, TEACHER, LABELS),
        0.7 * kl(TEACHER, STUDENT, 4.0) + 0.3 * cross_entropy(STUDENT, LABELS),
        1.2910822036,
    )
    assert tl.ResponseDistiller.pure_kl().soft_loss == tl.Term(tl.ForwardKL(), temperature=4.0)
    balanced = tl.ResponseDistiller.balanced()
    assert (balanced.hard_label_weight, balanced.soft_label_weight) == (0.5, 0.5)
    assert balanced.soft_loss == tl.Term(tl.ForwardKL(), temperature=4.0)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_the_gradient_is_the_one_in_the_book(temperature):
    """T alpha (q_T - p_T) + (1 - alpha) (q - onehot), over the rows: with T² in front of a 1/T."""
    student = STUDENT.clone().requires_grad_()
    tl.DistillationLoss(temperature, 0.7)(student, TEACHER, LABELS).backward()
    q, p = np.exp(log_softmax(STUDENT, temperature)), np.exp(log_softmax(TEACHER, temperature))
    formula = (0.7 * temperature * (q - p) + 0.3 * (np.exp(log_softmax(STUDENT)) - np.eye(3))) / 3
    agree(student.grad, formula)


@pytest.mark.parametrize("cls", tl.divergences.ALL.values(), ids=tl.divergences.ALL)
def test_any_divergence_is_its_term_and_the_cross_entropy(cls):
    divergence = cls()
    loss = tl.DistillationLoss(3.0, 0.4, divergence)(STUDENT, TEACHER, LABELS)
    term = tl.Term(divergence, temperature=3.0)
    soft = tl.Objective({"soft": term})(STUDENT, {"teacher": TEACHER, "labels": tl.Labels(LABELS)}).loss
    torch.testing.assert_close(loss, 0.4 * soft + 0.6 * double(cross_entropy(STUDENT, LABELS)), rtol=1e-12, atol=1e-15)


# A schedule that writes to an attribute must either work or be told that it does not.
@pytest.mark.parametrize(("name", "value"), [("temperature", 1.0), ("alpha", 0.1), ("divergence", tl.ReverseKL())])
def test_a_changed_attribute_is_not_silently_ignored(name, value):
    loss = tl.DistillationLoss(4.0, 0.7)
    try:
        setattr(loss, name, value)
    except (AttributeError, tl.errors.InputError):
        return
    expected = tl.DistillationLoss(**{"temperature": 4.0, "alpha": 0.7, name: value})
    assert loss(STUDENT, TEACHER, LABELS) == expected(STUDENT, TEACHER, LABELS)


@pytest.mark.parametrize(
    ("module", "name", "bad"),
    [
        (tl.DistillationLoss(), "alpha", 2.0),
        (tl.DistillationLoss(), "temperature", 0.0),
        (tl.ResponseDistiller(), "soft_label_weight", -1.0),
    ],
    ids=["alpha", "temperature", "weight"],
)
def test_a_changed_attribute_is_checked_like_a_first_one(module, name, bad):
    def change_and_call():
        setattr(module, name, bad)
        module(STUDENT, TEACHER, LABELS)

    with pytest.raises(tl.errors.InputError, match=f"{bad}"):
        change_and_call()


# --- ResponseDistiller ------------------------------------------------------------------------------------------------


# Weights of the seed are free: they need not sum to 1, and either may be 0.
@pytest.mark.parametrize(("hard", "soft"), [(0.5, 0.5), (1.0, 0.0), (0.0, 1.0), (2.0, 3.0)])
def test_response_weights(hard, soft):
    response = tl.ResponseDistiller(tl.Term(tl.ForwardKL(), temperature=2.0), hard, soft)
    formula = hard * cross_entropy(STUDENT, LABELS) + soft * kl(TEACHER, STUDENT, 2.0)
    agree(response(STUDENT, TEACHER, LABELS), formula)


def test_what_a_soft_loss_may_be():
    formula = 0.5 * cross_entropy(STUDENT, LABELS)
    bare = tl.ResponseDistiller(tl.ForwardKL())(STUDENT, TEACHER, LABELS)
    agree(bare, formula + 0.5 * kl(TEACHER, STUDENT))
    term = tl.Term(tl.ForwardKL(), temperature=2.0, weight=3.0)
    agree(tl.ResponseDistiller(term)(STUDENT, TEACHER, LABELS), formula + 1.5 * kl(TEACHER, STUDENT, 2.0))
    # The teacher's name in a term is for objectives; here there is but one.
    named = tl.Term(tl.ForwardKL(), teacher="big", temperature=2.0, weight=3.0)
    agree(tl.ResponseDistiller([named])(STUDENT, TEACHER, LABELS), formula + 1.5 * kl(TEACHER, STUDENT, 2.0))
    without = tl.Term(tl.ForwardKL(), temperature=2.0, scale_by_temperature=False)
    agree(tl.ResponseDistiller(without)(STUDENT, TEACHER, LABELS), formula + 0.5 * kl(TEACHER, STUDENT, 2.0) / 4)


# --- FeatureDistiller -------------------------------------------------------------------------------------------------


def test_layers_may_differ_in_width_loss_and_weight(generator):
    student, teacher = ([torch.randn(2, 3, width, generator=generator).double() for width in (4, 6)] for _ in range(2))
    distiller = tl.FeatureDistiller([(2.0, tl.LogitMSE()), (0.5, [tl.Term(tl.LogitCosine(), weight=3.0)])])
    mse = np.mean((student[0].numpy() - teacher[0].numpy()) ** 2)
    a, b = student[1].numpy(), teacher[1].numpy()
    cosine = np.mean(1 - (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1))
    agree(distiller(student, teacher), 2.0 * mse + 1.5 * cosine)
    agree(distiller.layer_loss(0, student[0], teacher[0]), mse)
    agree(distiller.layer_loss(-1, student[1], teacher[1]), 3.0 * cosine)


def test_normalizing_returns_another_distiller():
    distiller = tl.FeatureDistiller.with_weights([1.0, 3.0], tl.LogitMSE())
    assert distiller.normalize_weights().weights == [0.25, 0.75]
    assert distiller.weights == [1.0, 3.0]


def test_feature_maps_average_over_all_their_places(generator):
    student, teacher = torch.randn(2, 2, 3, 4, 5, generator=generator).double()
    expected = ((student - teacher) ** 2).mean()
    torch.testing.assert_close(tl.FeatureDistiller.uniform_mse(1)([student], [teacher]), expected)


# --- EnsembleDistiller ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["logit", "probability"])
def test_an_ensemble_of_one_is_its_teacher(space):
    ensemble = tl.EnsembleDistiller([5.0], 3.0, space)
    assert ensemble.weights == [1.0]
    expected = tl.DistillationLoss(3.0, 0.7)(STUDENT, TEACHER, LABELS)
    torch.testing.assert_close(ensemble(STUDENT, [TEACHER], LABELS), expected, rtol=1e-12, atol=0)
    assert torch.equal(ensemble.combine([TEACHER]).softmax(-1).argmax(-1), TEACHER.argmax(-1))


@pytest.mark.parametrize("space", ["logit", "probability"])
def test_the_ensemble_loss_is_the_loss_to_what_it_combines(space, generator):
    student, first, second = torch.randn(3, 2, 5, 4, generator=generator).double()
    labels = torch.randint(4, (2, 5), generator=generator)
    ensemble = tl.EnsembleDistiller([0.5, 2.0], 3.0, space)
    expected = tl.DistillationLoss(3.0, 0.6)(student, ensemble.combine([first, second]), labels)
    torch.testing.assert_close(ensemble(student, [first, second], labels, alpha=0.6), expected, rtol=1e-12, atol=0)


def test_uniform_ensemble():
    ensemble = tl.EnsembleDistiller.uniform(4, 2.0)
    assert ensemble.weights == [0.25] * 4
    assert (ensemble.temperature, ensemble.space) == (2.0, "logit")


def test_a_teacher_of_weight_0_is_not_heard():
    student, first = STUDENT, TEACHER
    for space in ("logit", "probability"):
        ensemble = tl.EnsembleDistiller([1.0, 0.0], 3.0, space)
        # One that excludes an outcome, as a masked teacher does.
        other = first.clone()
        other[:, 1] = -torch.inf
        expected = tl.EnsembleDistiller([1.0], 3.0)(student, [first], LABELS)
        torch.testing.assert_close(ensemble(student, [first, other], LABELS), expected, rtol=1e-12, atol=0)


# --- ProgressiveDistiller ---------------------------------------------------------------------------------------------


def test_progressive_is_convex(generator):
    hidden, other = torch.randn(2, 2, 3, 5, generator=generator).double()
    distiller = tl.ProgressiveDistiller([1.0, 3.0], 2.0)
    value = distiller(STUDENT, TEACHER, LABELS, list(hidden), list(other), alpha=0.7, beta=0.3)

    def cosine(a, b):
        return np.mean(1 - (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1))

    response = 0.7 * kl(TEACHER, STUDENT, 2.0) + 0.3 * cross_entropy(STUDENT, LABELS)
    layers = 0.25 * cosine(hidden[0].numpy(), other[0].numpy()) + 0.75 * cosine(hidden[1].numpy(), other[1].numpy())
    agree(value, 0.7 * response + 0.3 * layers)


def test_progressive_with_another_loss(generator):
    hidden, other = torch.randn(2, 3, 5, generator=generator).double()
    distiller = tl.ProgressiveDistiller([2.0], 2.0, loss=tl.LogitMSE())
    value = distiller(STUDENT, TEACHER, LABELS, student_hidden=[hidden], teacher_hidden=[other], alpha=1.0, beta=0.25)
    mse = np.mean((hidden.numpy() - other.numpy()) ** 2)
    agree(value, 0.75 * kl(TEACHER, STUDENT, 2.0) + 0.25 * mse)


# --- all of them ------------------------------------------------------------------------------------------------------

MODULES = {
    "DistillationLoss": (tl.DistillationLoss(2.0, 0.7), lambda m, s, t, y: m(s, t, y)),
    "ResponseDistiller": (tl.ResponseDistiller.balanced(), lambda m, s, t, y: m(s, t, y)),
    "FeatureDistiller": (tl.FeatureDistiller.uniform_mse(2), lambda m, s, t, y: m([s, 2 * s], [t, t])),
    "EnsembleDistiller": (
        tl.EnsembleDistiller([1.0, 3.0], 2.0, "probability"),
        lambda m, s, t, y: m(s, [t, -t], y, 0.6),
    ),
    "ProgressiveDistiller": (
        tl.ProgressiveDistiller([1.0, 2.0], 2.0),
        lambda m, s, t, y: m(s, t, y, student_hidden=[s, 2 * s], teacher_hidden=[t, t], alpha=0.6, beta=0.4),
    ),
}
each_module = pytest.mark.parametrize(("module", "call"), MODULES.values(), ids=MODULES)


@each_module
@pytest.mark.parametrize("shape", [(4,), (2, 3), (1, 2, 2)], ids=str)
def test_leading_dimensions_are_rows(module, call, shape, generator):
    student, teacher = torch.randn(2, *shape, 5, generator=generator).double()
    labels = torch.randint(5, shape, generator=generator)
    value = call(module, student, teacher, labels)
    flat = call(module, student.reshape(-1, 5), teacher.reshape(-1, 5), labels.reshape(-1))
    assert value.shape == ()
    torch.testing.assert_close(value, flat, rtol=1e-12, atol=0)


@each_module
def test_gradients_reach_the_student_only(module, call, generator):
    student, teacher = (torch.randn(3, 5, generator=generator).double().requires_grad_() for _ in range(2))
    labels = torch.tensor([0, 4, 2])
    call(module, student, teacher, labels).backward()
    assert teacher.grad is None
    assert student.grad.abs().max() > 0
    torch.autograd.gradcheck(lambda s: call(module, s, teacher, labels), student, atol=1e-8, rtol=1e-6)


@each_module
def test_no_module_has_state(module, call):
    assert module.state_dict() == {}
    assert list(module.parameters()) == []
    assert list(module.buffers()) == []


@each_module
def test_a_copy_is_the_same(module, call):
    sides = STUDENT, TEACHER, LABELS
    stream = io.BytesIO()
    torch.save(module, stream)
    stream.seek(0)
    copies = [copy.deepcopy(module), pickle.loads(pickle.dumps(module)), torch.load(stream, weights_only=False)]
    for other in copies:
        assert call(other, *sides) == call(module, *sides)
        assert repr(other) == repr(module)
    # Modes and moves of a model that holds the loss leave it alone.
    assert call(module.eval().train().to(torch.float16).double(), *sides) == call(module, *sides)


# What a person needs to know from a log: the class and every number that was chosen.
REPRS = {
    "DistillationLoss": ["temperature=2.0", "alpha=0.7", "ForwardKL()"],
    "ResponseDistiller": ["temperature=4.0", "hard_label_weight=0.5", "soft_label_weight=0.5", "ForwardKL()"],
    "FeatureDistiller": ["weights=[0.5, 0.5]", "LogitMSE()"],
    "EnsembleDistiller": ["weights=[0.25, 0.75]", "temperature=2.0", "space='probability'"],
    "ProgressiveDistiller": ["temperature=2.0", "weights=[0.333", "LogitCosine()"],
}


@pytest.mark.parametrize("name", REPRS)
def test_reprs_say_what_was_chosen(name):
    text = repr(MODULES[name][0])
    assert text.startswith(f"{name}(")
    for part in REPRS[name]:
        assert part in text


@each_module
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits(module, call, dtype, generator):
    student, teacher = (torch.randn(3, 5, generator=generator).to(dtype).requires_grad_() for _ in range(2))
    value = call(module, student, teacher, torch.tensor([0, 4, 2]))
    exact = call(module, student.detach().double(), teacher.detach().double(), torch.tensor([0, 4, 2]))
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), exact, rtol=1e-6, atol=1e-7)
    value.backward()
    assert student.grad.dtype == dtype
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(
    "call",
    [
        lambda *sides: tl.DistillationLoss(2.0, alpha=1.0)(*sides),
        lambda *sides: tl.ResponseDistiller.pure_kl(2.0)(*sides),
        lambda s, t, y: tl.EnsembleDistiller([1.0], 2.0)(s, [t], y, alpha=1.0),
        lambda s, t, y: tl.ProgressiveDistiller([1.0], 2.0)(s, t, y, [s], [t], alpha=1.0, beta=0.0),
    ],
    ids=["DistillationLoss", "ResponseDistiller", "EnsembleDistiller", "ProgressiveDistiller"],
)
def test_unlabelled_data_needs_no_labels(call):
    """What has no hard part asks for no labels: distilling on unlabelled data is the usual case."""
    agree(call(STUDENT, TEACHER, None), kl(TEACHER, STUDENT, 2.0))


@pytest.mark.parametrize(
    "call",
    [
        lambda: tl.DistillationLoss(2.0, alpha=0.75)(STUDENT, TEACHER, None),
        lambda: tl.ResponseDistiller(hard_label_weight=0.25)(STUDENT, TEACHER, None),
        lambda: tl.EnsembleDistiller([1.0])(STUDENT, [TEACHER], None, alpha=0.75),
        lambda: tl.ProgressiveDistiller([1.0])(STUDENT, TEACHER, None, [STUDENT], [TEACHER], alpha=0.75),
    ],
    ids=["DistillationLoss", "ResponseDistiller", "EnsembleDistiller", "ProgressiveDistiller"],
)
def test_a_hard_part_asks_for_labels(call):
    with pytest.raises(tl.errors.LabelError, match=r"labels=None.*weight 0\.25; pass labels"):
        call()
