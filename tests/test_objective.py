"""What an objective is: one weighted sum, whose parts say what each term is worth, however a batch is split."""

import copy
import pickle

import pytest
import torch

import tutelage as tl

N, V, TEMPERATURE = 8, 6, 3.0
# Every divergence in one objective: each power of T, each way through the executor, with and without labels.
ALL = {kind: tl.Term(cls(), weight=0.5, temperature=TEMPERATURE) for kind, cls in tl.divergences.ALL.items()}
SOFT_AND_HARD = {
    "soft": tl.Term(tl.ForwardKL(), weight=0.7, temperature=TEMPERATURE),
    "hard": tl.Term(tl.ForwardKL(), teacher="labels", weight=0.3),
}
# Only the labels of some rows are known, and fewer in one half of the batch than in the other.
UNEVEN = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 2.0])


@pytest.fixture
def sides(generator):
    student, teacher = torch.randn(2, N, V, generator=generator)
    return student.requires_grad_(), teacher, torch.randint(V, (N,), generator=generator)


def named(teacher, labels):
    return {"teacher": teacher, "labels": tl.Labels(labels)}


# --- the sum ----------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_weighted_sum_of_its_parts(sides):
    student, teacher, labels = sides
    out = tl.Objective(ALL)(student, named(teacher, labels))
    total = 0.0
    for kind, cls in tl.divergences.ALL.items():
        # NormalizedKD has its T² inside, see below: its part shows it.
        power = 0 if kind == "normalized_kd" else cls.temperature_power
        total += 0.5 * TEMPERATURE**power * out.parts[kind].item()
    assert out.loss.item() == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind != "normalized_kd"])
def test_a_part_is_the_divergence_alone(sides, kind):
    student, teacher, labels = sides
    out = tl.Objective(ALL)(student, named(teacher, labels))
    divergence = ALL[kind].divergence
    alone = tl.divergence(
        student, teacher, divergence, temperature=TEMPERATURE, labels=labels if divergence.needs_labels else None
    )
    torch.testing.assert_close(out.parts[kind], alone.detach(), rtol=1e-6, atol=0)


def test_the_gradient_is_the_sum_of_the_terms_alone(sides):
    student, teacher, labels = sides
    (together,) = torch.autograd.grad(tl.Objective(ALL)(student, named(teacher, labels)).loss, student)
    apart = torch.zeros_like(student)
    for kind, term in ALL.items():
        apart += torch.autograd.grad(tl.Objective({kind: term})(student, named(teacher, labels)).loss, student)[0]
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-6)


# The power of 1/T at which each gradient shrinks, from the contract.
POWERS = dict.fromkeys(tl.divergences.ALL, 2) | {"total_variation": 1, "logit_mse": 0, "logit_cosine": 0}


@pytest.mark.parametrize("kind", POWERS)
def test_the_factor_is_the_weight_times_a_power_of_t(kind):
    divergence = tl.divergences.ALL[kind]()
    assert divergence.temperature_power == POWERS[kind]
    expected = 0.5 * (1.0 if kind == "normalized_kd" else TEMPERATURE ** POWERS[kind])
    assert tl.Term(divergence, weight=0.5, temperature=TEMPERATURE).factor == expected
    assert tl.Term(divergence, weight=0.5, temperature=TEMPERATURE, scale_by_temperature=False).factor == 0.5


# DIST's power is its authors' convention, and AdaptiveKL's weights move with T.
@pytest.mark.parametrize("kind", [kind for kind in POWERS if kind not in ("dist", "adaptive_kl", "normalized_kd")])
def test_the_power_is_the_one_at_which_the_gradient_shrinks(sides, kind):
    student, teacher, labels = (side.detach().double() if side.is_floating_point() else side for side in sides)
    divergence = tl.divergences.ALL[kind]()
    norms = []
    for temperature in (1e3, 1e4):
        leaf = student.clone().requires_grad_()
        term = tl.Term(divergence, temperature=temperature)
        tl.Objective({"soft": term})(leaf, named(teacher, labels)).loss.backward()
        norms.append(leaf.grad.norm())
    # With the factor in front the gradient has a limit that is not 0.
    torch.testing.assert_close(norms[0], norms[1], rtol=1e-2, atol=0)
    assert norms[1] > 1e-3


def test_normalized_kd_scales_its_second_part_alone(sides):
    student, teacher, labels = sides
    term = tl.Term(tl.NormalizedKD(gamma=1.5), weight=0.5, temperature=TEMPERATURE)
    assert tl.NormalizedKD(gamma=1.5).scaled(TEMPERATURE) == (tl.NormalizedKD(gamma=1.5 * TEMPERATURE**2), 1.0)
    out = tl.Objective({"soft": term})(student, named(teacher, labels))

    def value(gamma):
        return tl.divergence(student, teacher, tl.NormalizedKD(gamma), temperature=TEMPERATURE, labels=labels)

    target, rest = value(0.0), value(1.0) - value(0.0)
    torch.testing.assert_close(out.loss, 0.5 * (target + 1.5 * TEMPERATURE**2 * rest), rtol=1e-5, atol=0)
    # The target's part is at temperature 1, so no T² is due to it.
    p = teacher.softmax(-1).gather(1, labels[:, None]).squeeze(1)
    q = student.log_softmax(-1).gather(1, labels[:, None]).squeeze(1)
    torch.testing.assert_close(target, -(p * q).mean(), rtol=1e-5, atol=0)


def test_parts_are_values(sides):
    student, teacher, labels = sides
    features = {"hidden": (student, teacher)}
    terms = SOFT_AND_HARD | {"hidden": tl.FeatureTerm(tl.LogitMSE(), "a", "b")}
    out = tl.Objective(terms)(student, named(teacher, labels), features)
    assert list(out.parts) == ["soft", "hard", "hidden"]
    assert out.loss.requires_grad
    assert not any(part.requires_grad or part.shape != () for part in out.parts.values())


def test_scale_by_temperature_false_leaves_the_part_alone(sides):
    student, teacher, _ = sides
    plain = tl.Term(tl.ForwardKL(), weight=0.5, temperature=TEMPERATURE, scale_by_temperature=False)
    out = tl.Objective({"soft": plain})(student, {"teacher": teacher})
    torch.testing.assert_close(out.loss, 0.5 * out.parts["soft"])
    torch.testing.assert_close(out.parts["soft"], tl.divergence(student, teacher, temperature=TEMPERATURE).detach())


# --- weight 0 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("divergence", [tl.ReverseKL(), tl.DecoupledKD(), tl.Dist()], ids=lambda d: d.kind)
def test_a_term_of_weight_0_is_reported_and_not_trained(sides, divergence):
    student, teacher, labels = sides
    watched = tl.Objective(SOFT_AND_HARD | {"watched": tl.Term(divergence, weight=0.0)})
    out, plain = (objective(student, named(teacher, labels)) for objective in (watched, tl.Objective(SOFT_AND_HARD)))
    assert out.loss == plain.loss
    assert out.parts["watched"] > 0
    (gradient,) = torch.autograd.grad(out.loss, student)
    assert torch.equal(gradient, torch.autograd.grad(plain.loss, student)[0])


def test_a_watched_term_may_be_infinite(sides):
    """0 times infinity must not reach the loss, nor its gradient."""
    student, teacher, labels = sides
    masked = teacher.clone()
    masked[:, 0] = -torch.inf
    terms = {"soft": SOFT_AND_HARD["soft"], "watched": tl.Term(tl.ReverseKL(), weight=0.0)}
    out = tl.Objective(terms, validate=False)(student, named(masked, labels))
    out.loss.backward()
    assert out.parts["watched"] == torch.inf
    assert out.loss.isfinite()
    assert student.grad.isfinite().all()


def test_a_watched_feature_trains_nothing(sides):
    student, teacher, labels = sides
    terms = SOFT_AND_HARD | {"watched": tl.FeatureTerm(lambda s, t: (s / 0).sum(), "a", "b", weight=0.0)}
    out = tl.Objective(terms)(student, named(teacher, labels), {"watched": (student, teacher)})
    assert out.loss == tl.Objective(SOFT_AND_HARD)(student, named(teacher, labels)).loss
    assert not out.parts["watched"].isfinite()


@pytest.mark.parametrize(
    "term",
    [
        tl.Term(tl.ForwardKL(), weight=0.0),
        tl.FeatureTerm(tl.LogitMSE(), "a", "b", weight=0.0),
        tl.FeatureTerm(torch.nn.functional.mse_loss, "a", "b", weight=0.0),
    ],
    ids=["Term", "FeatureTerm", "function"],
)
def test_an_objective_that_only_watches_has_a_graph(sides, term):
    student, teacher, _ = sides
    out = tl.Objective({"watched": term})(student, {"teacher": teacher}, {"watched": (student, teacher)})
    out.loss.backward()
    assert out.loss == 0
    assert out.parts["watched"] > 0
    assert torch.equal(student.grad, torch.zeros_like(student))


# --- token weights and normalisers, for all or for each ---------------------------------------------------------------


def test_token_weights_and_normalizers_of_their_own(sides):
    student, teacher, labels = sides
    objective = tl.Objective(SOFT_AND_HARD)
    soft = tl.divergence(student, teacher, temperature=TEMPERATURE, reduction="none")
    hard = tl.divergence(student, tl.Labels(labels), reduction="none")
    factor = 0.7 * TEMPERATURE**2

    out = objective(student, named(teacher, labels), token_weights={"hard": UNEVEN})
    torch.testing.assert_close(out.loss, factor * soft.mean() + 0.3 * (UNEVEN * hard).sum() / UNEVEN.sum())

    out = objective(student, named(teacher, labels), token_weights=UNEVEN)
    torch.testing.assert_close(out.loss, (UNEVEN * (factor * soft + 0.3 * hard)).sum() / UNEVEN.sum())

    out = objective(student, named(teacher, labels), token_weights=UNEVEN, normalizer={"soft": 20.0})
    torch.testing.assert_close(
        out.loss, factor * (UNEVEN * soft).sum() / 20 + 0.3 * (UNEVEN * hard).sum() / UNEVEN.sum()
    )
    torch.testing.assert_close(out.parts["soft"], ((UNEVEN * soft).sum() / 20).detach())

    out = objective(student, named(teacher, labels), token_weights={"hard": UNEVEN}, normalizer=torch.tensor(10))
    torch.testing.assert_close(out.loss, factor * soft.sum() / 10 + 0.3 * (UNEVEN * hard).sum() / 10)


def test_a_term_without_a_row_that_counts_is_0(sides):
    student, teacher, labels = sides
    out = tl.Objective(SOFT_AND_HARD)(student, named(teacher, labels), token_weights={"hard": torch.zeros(N)})
    soft = tl.Objective({"soft": SOFT_AND_HARD["soft"]})(student, {"teacher": teacher})
    assert out.parts["hard"] == 0
    assert out.loss == soft.loss


def test_a_batch_without_a_row_that_counts_has_a_graph(sides):
    student, teacher, labels = sides
    out = tl.Objective(SOFT_AND_HARD)(student, named(teacher, labels), token_weights=torch.zeros(N))
    out.loss.backward()
    assert out.loss == 0
    assert torch.equal(student.grad, torch.zeros(N, V))


# --- the same step, however it is split -------------------------------------------------------------------------------

SPLITS = {"1x8": [8], "2x4": [4, 4], "8x1": [1] * 8, "uneven": [1, 5, 2]}
POINTWISE = {
    "soft": SOFT_AND_HARD["soft"],
    "hard": SOFT_AND_HARD["hard"],
    "decoupled": tl.Term(tl.DecoupledKD(), weight=0.1, temperature=2.0),
    "reverse": tl.Term(tl.ReverseKL(), weight=0.2),
}


@pytest.mark.parametrize("head", [False, True], ids=["logits", "head"])
@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
def test_gradient_accumulation_trains_the_same_objective(generator, split, head):
    """With the normalisers of the whole step; local ones would weigh a micro-batch of few labels too much."""
    labels = torch.where(UNEVEN > 0, torch.randint(V, (N,), generator=generator), -100)
    hidden = torch.randn(N, 4, generator=generator)
    weight = torch.randn(V, 4, generator=generator, requires_grad=True)
    teacher = torch.randn(N, V, generator=generator)
    labelled = {"hard": UNEVEN, "decoupled": UNEVEN}
    totals = {"soft": N, "hard": UNEVEN.sum(), "decoupled": UNEVEN.sum().item(), "reverse": float(N)}
    objective = tl.Objective(POINTWISE)

    def step(sizes):
        leaf, losses, parts, start = hidden.clone().requires_grad_(), [], [], 0
        for size in sizes:
            rows = slice(start, start + size)
            start += size
            student = tl.HeadStates(leaf[rows], weight) if head else leaf[rows] @ weight.T
            out = objective(
                student,
                named(teacher[rows], labels[rows]),
                token_weights={name: weights[rows] for name, weights in labelled.items()},
                normalizer=totals,
            )
            out.loss.backward()
            losses.append(out.loss.detach())
            parts.append(out.parts)
        gradient, weight.grad = weight.grad, None
        summed = {name: torch.stack([part[name] for part in parts]).sum() for name in POINTWISE}
        return torch.stack(losses).sum(), leaf.grad, gradient, summed

    whole, pieces = step([N]), step(split)
    for expected, got in zip(whole[:3], pieces[:3], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    for name in POINTWISE:
        torch.testing.assert_close(pieces[3][name], whole[3][name], rtol=1e-6, atol=1e-7)

    # And the whole is what no splitting at all gives.
    plain = objective(hidden @ weight.T, named(teacher, labels), token_weights=labelled)
    torch.testing.assert_close(whole[0], plain.loss.detach(), rtol=1e-6, atol=1e-6)


def test_local_normalisers_do_weigh_the_split(sides):
    """Why there is a normaliser at all: the mean of the micro-batches' means is another number."""
    student, teacher, labels = sides
    objective = tl.Objective({"hard": SOFT_AND_HARD["hard"]})
    whole = objective(student, named(teacher, labels), token_weights=UNEVEN).loss
    halves = [
        objective(student[rows], named(teacher[rows], labels[rows]), token_weights=UNEVEN[rows]).loss
        for rows in (slice(0, 4), slice(4, 8))
    ]
    assert abs(torch.stack(halves).mean() - whole) > 1e-3


@pytest.mark.parametrize("split", [[4, 4], [1, 5, 2]], ids=str)
@pytest.mark.parametrize("loss", [tl.LogitMSE(), lambda s, t: (s - t).square().mean()], ids=["divergence", "function"])
def test_feature_terms_add_up_over_the_split_too(generator, split, loss):
    student, teacher = torch.randn(2, N, 3, generator=generator)
    objective = tl.Objective({"hidden": tl.FeatureTerm(loss, "a", "b", weight=0.5)})
    whole = objective(student, {}, {"hidden": (student, teacher)}).loss
    pieces = [
        objective(s, {}, {"hidden": (s, t)}, normalizer=N).loss
        for s, t in zip(student.split(split), teacher.split(split), strict=True)
    ]
    torch.testing.assert_close(torch.stack(pieces).sum(), whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("loss", [tl.LogitMSE(), torch.nn.functional.mse_loss], ids=["divergence", "function"])
def test_a_share_of_the_step_is_not_rounded_to_the_features(generator, loss, dtype):
    """Activations come in half precision under autocast; 8/792 in bfloat16 is off by three in a thousand."""
    student, teacher = torch.randn(2, N, 3, generator=generator).to(dtype)
    objective = tl.Objective({"hidden": tl.FeatureTerm(loss, "a", "b")})
    whole = objective(torch.zeros(N, V), {}, {"hidden": (student, teacher)})
    share = objective(torch.zeros(N, V), {}, {"hidden": (student, teacher)}, normalizer=99 * N)
    for one, part in ((whole.loss, share.loss), (whole.parts["hidden"], share.parts["hidden"])):
        torch.testing.assert_close(99 * part.double(), one.double(), rtol=1e-6, atol=0)


# --- features ---------------------------------------------------------------------------------------------------------


def test_a_feature_term_is_a_divergence_or_a_function(generator):
    student, teacher = torch.randn(2, N, 3, generator=generator)
    student.requires_grad_()
    logits = torch.zeros(N, V)
    features = {"a": (student, teacher), "b": (student, teacher)}
    terms = {
        "a": tl.FeatureTerm(tl.LogitMSE(), "x", "y", weight=0.5),
        "b": tl.FeatureTerm(torch.nn.functional.l1_loss, "x", "y", weight=2.0),
    }
    out = tl.Objective(terms)(logits, {}, features)
    squared, absolute = (student - teacher).square().mean(), (student - teacher).abs().mean()
    torch.testing.assert_close(out.loss, 0.5 * squared + 2.0 * absolute)
    torch.testing.assert_close(out.parts["a"], squared.detach())
    torch.testing.assert_close(out.parts["b"], absolute.detach())
    (gradient,) = torch.autograd.grad(out.loss, student)
    (expected,) = torch.autograd.grad(0.5 * squared + 2.0 * absolute, student)
    torch.testing.assert_close(gradient, expected)


def test_a_function_gets_a_teacher_without_a_graph(generator):
    student, teacher = (torch.randn(N, 3, generator=generator).requires_grad_() for _ in range(2))
    terms = {"a": tl.FeatureTerm(torch.nn.functional.mse_loss, "x", "y")}
    tl.Objective(terms)(torch.zeros(N, V), {}, {"a": (student, teacher)}).loss.backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_token_weights_mask_features_of_the_same_rows(generator):
    student, teacher = torch.randn(2, N, 3, generator=generator)
    objective = tl.Objective({"hidden": tl.FeatureTerm(tl.LogitMSE(), "x", "y")})
    out = objective(torch.zeros(N, V), {}, {"hidden": (student, teacher)}, token_weights=UNEVEN)
    each = (student - teacher).square().mean(-1)
    torch.testing.assert_close(out.loss, (UNEVEN * each).sum() / UNEVEN.sum())


def test_a_function_does_not_train_on_what_the_weights_leave_out(generator):
    """A function cannot be told which rows count: either it is refused, or padding has no gradient."""
    student, teacher = torch.randn(2, N, 3, generator=generator)
    student.requires_grad_()
    objective = tl.Objective({"hidden": tl.FeatureTerm(torch.nn.functional.mse_loss, "x", "y")})
    mask = torch.tensor([1.0] * 4 + [0.0] * 4)
    try:
        out = objective(torch.zeros(N, V), {}, {"hidden": (student, teacher)}, token_weights=mask)
    except tl.errors.InputError:
        return
    out.loss.backward()
    assert torch.equal(student.grad[4:], torch.zeros(4, 3))


@pytest.mark.parametrize("loss", [tl.LogitMSE(), torch.nn.functional.mse_loss], ids=["divergence", "function"])
def test_features_with_more_rows_than_the_logits(generator, loss):
    """Feature maps (N, C, H, W) beside logits (N, V): a normaliser of N must not change their scale."""
    student, teacher = torch.randn(2, N, 2, 3, 3, generator=generator)
    objective = tl.Objective({"maps": tl.FeatureTerm(loss, "x", "y")})
    features = {"maps": (student, teacher)}
    plain = objective(torch.zeros(N, V), {}, features).loss
    torch.testing.assert_close(plain, (student - teacher).square().mean())
    torch.testing.assert_close(objective(torch.zeros(N, V), {}, features, normalizer=N).loss, plain)
    torch.testing.assert_close(objective(torch.zeros(N, V), {}, features, normalizer=2 * N).loss, plain / 2)


# --- teachers ---------------------------------------------------------------------------------------------------------


def test_terms_choose_their_teacher_by_name(sides):
    student, teacher, labels = sides
    terms = {"big": tl.Term(tl.ForwardKL(), teacher="big"), "small": tl.Term(tl.ReverseKL(), teacher="small")}
    out = tl.Objective(terms)(student, {"big": teacher, "small": tl.Logits(-teacher), "unused": tl.Labels(labels)})
    torch.testing.assert_close(out.parts["big"], tl.divergence(student, teacher).detach())
    torch.testing.assert_close(out.parts["small"], tl.divergence(student, -teacher, tl.ReverseKL()).detach())


def test_labels_are_found_under_their_name(sides):
    student, teacher, labels = sides
    objective = tl.Objective({"soft": tl.Term(tl.DecoupledKD())})
    out = objective(student, named(teacher, labels))
    torch.testing.assert_close(out.loss, tl.divergence(student, teacher, tl.DecoupledKD(), labels=labels))
    other = objective(student, named(teacher, (labels + 1) % V))
    assert other.loss != out.loss


def test_one_teacher_of_two_terms_is_read_at_both_temperatures(sides):
    student, teacher, _ = sides
    kept, ids = teacher.topk(2)
    rest = teacher.scatter(1, ids, -torch.inf)
    tails = {temperature: (rest / temperature).logsumexp(-1) for temperature in (1.0, 2.0)}
    terms = {"warm": tl.Term(tl.ForwardKL(), temperature=2), "cold": tl.Term(tl.ReverseKL())}
    out = tl.Objective(terms)(student, {"teacher": tl.TopK(ids, kept, tails)})
    for name, term in terms.items():
        alone = tl.divergence(student, tl.TopK(ids, kept, tails), term.divergence, temperature=term.temperature)
        torch.testing.assert_close(out.parts[name], alone.detach(), rtol=1e-6, atol=0)


def test_a_map_holds_for_soft_terms_and_not_for_labels(sides):
    student, teacher, _ = sides
    last = torch.full((N,), V - 1)
    out = tl.Objective(SOFT_AND_HARD)(student, named(teacher[:, :4], last), vocabulary=tl.VocabularyMap.prefix(4))
    soft = tl.divergence(student[:, :4], teacher[:, :4], temperature=TEMPERATURE)
    torch.testing.assert_close(out.parts["soft"], soft.detach())
    torch.testing.assert_close(out.parts["hard"], torch.nn.functional.cross_entropy(student, last).detach())


def test_float64_sides_give_float64_values(sides):
    student, teacher, labels = sides
    student, teacher = student.detach().double().requires_grad_(), teacher.double()
    out = tl.Objective(SOFT_AND_HARD)(student, named(teacher, labels), token_weights={"hard": UNEVEN / 3})
    log_p, log_q = (side / TEMPERATURE for side in (teacher, student))
    log_p, log_q = log_p.log_softmax(-1), log_q.log_softmax(-1)
    soft = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    hard = (UNEVEN.double() * torch.nn.functional.cross_entropy(student, labels, reduction="none")).sum() / 5
    assert out.loss.dtype == torch.float64
    torch.testing.assert_close(out.loss, 0.7 * TEMPERATURE**2 * soft + 0.3 * hard, rtol=1e-12, atol=0)
    torch.testing.assert_close(out.parts["hard"], hard.detach(), rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(out.loss, student)
    (expected,) = torch.autograd.grad(0.7 * TEMPERATURE**2 * soft + 0.3 * hard, student)
    torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=1e-15)


# --- an objective is a value ------------------------------------------------------------------------------------------


def test_the_terms_cannot_be_changed_from_outside(sides):
    student, teacher, labels = sides
    terms = dict(SOFT_AND_HARD)
    objective = tl.Objective(terms)
    terms.clear()
    assert list(objective.terms) == ["soft", "hard"]
    assert objective(student, named(teacher, labels)).loss > 0


@pytest.mark.parametrize("again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_a_copy_is_the_same_objective(sides, again):
    student, teacher, labels = sides
    objective = tl.Objective(ALL, backend="torch", validate=True)
    twin = again(objective)
    assert twin.terms == objective.terms
    assert (twin.backend, twin.validate) == ("torch", True)
    assert repr(twin) == repr(objective)
    assert twin(student, named(teacher, labels)).loss == objective(student, named(teacher, labels)).loss


def test_terms_are_values():
    assert tl.Term(tl.ForwardKL(), weight=0.5) == tl.Term(tl.ForwardKL(), weight=0.5)
    assert tl.Term(tl.ForwardKL()) != tl.Term(tl.ReverseKL())
    assert len({tl.Term(tl.AlphaBeta(0.2, 0.3)), tl.Term(tl.AlphaBeta(0.2, 0.3)), tl.Term(tl.AlphaBeta())}) == 2
    assert tl.FeatureTerm(tl.LogitMSE(), "a", "b") in {tl.FeatureTerm(tl.LogitMSE(), "a", "b")}


def test_the_repr_says_what_is_trained():
    text = repr(tl.Objective(SOFT_AND_HARD, backend="torch"))
    for part in ("soft", "hard", "ForwardKL()", "weight=0.7", "temperature=3.0", "teacher='labels'", "backend='torch'"):
        assert part in text
