"""Ten thousand inputs at the edge of what floats can say: wherever the loss is finite, so are value and gradients."""

import math

import pytest
import torch

import tutelage as tl
from reference.divergences import REFERENCES
from tutelage.errors import InfiniteDivergenceError, NonFiniteError

# Nine outcomes, so that a row can be all of one kind; 70 rows per call, 16 divergences, 3 dtypes and 3 temperatures:
# 10,080 rows, and as many again for the sparse teachers.
V, ROWS, DTYPES, TEMPERATURES = 9, 70, (torch.float32, torch.bfloat16, torch.float16), (0.5, 1.0, 4.0)


def extreme_rows(seed, dtype, minus_inf):
    """Return rows of +-1e4, one-hot rows, equal rows, tiny and ordinary ones, and some outcomes that are excluded."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(6, (ROWS, 1), generator=generator)
    noise = torch.randn(ROWS, V, generator=generator)
    one_hot = torch.zeros(ROWS, V).scatter_(1, torch.randint(V, (ROWS, 1), generator=generator), 1.0)
    rows = torch.where(kinds == 0, 1e4 * noise.sign(), noise)
    rows = torch.where(kinds == 1, 1e4 * one_hot, rows)
    rows = torch.where(kinds == 2, torch.full_like(rows, 1e4), rows)
    # The gradient of a direction is 1 over the length: what float16 cannot hold, no code can give in float16.
    rows = torch.where(kinds == 3, (1e-3 if dtype == torch.float16 else 1e-7) * noise, rows)
    rows = torch.where(kinds == 4, 1e4 * (noise / noise.abs().amax()), rows)
    if minus_inf:
        excluded = torch.rand(ROWS, V, generator=generator) < 0.3
        excluded &= rows < rows.amax(-1, keepdim=True)
        rows = rows.masked_fill(excluded, -math.inf)
    return rows.to(dtype)


def finite_rows(values):
    return torch.as_tensor(values).isfinite()


def step(student, teacher, divergence, temperature, labels, weights):
    student = student.clone().requires_grad_()
    value = tl.divergence(
        student, teacher, divergence, temperature=temperature, labels=labels, token_weights=weights, reduction="sum"
    )
    value.backward()
    return value.detach(), student.grad


@pytest.mark.parametrize("minus_inf", [False, True], ids=["finite logits", "excluded outcomes"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", tl.divergences.ALL)
def test_a_finite_loss_has_finite_gradients(kind, dtype, minus_inf):
    divergence = tl.divergences.ALL[kind]()
    if minus_inf and getattr(divergence, "refuses_minus_inf", False):
        with pytest.raises(NonFiniteError):
            tl.divergence(extreme_rows(0, dtype, True), extreme_rows(1, dtype, False), divergence)
        return
    labels = torch.randint(V, (ROWS,), generator=torch.Generator().manual_seed(9))
    for place, temperature in enumerate(TEMPERATURES):
        student, teacher = extreme_rows(3 * place, dtype, minus_inf), extreme_rows(3 * place + 1, dtype, minus_inf)
        if kind == "dist":
            counts = torch.ones(ROWS, dtype=torch.bool)
        else:
            counts = finite_rows(REFERENCES[kind](student.double(), teacher.double(), temperature, labels))
            assert counts.any()
        value, gradient = step(student, teacher, divergence, temperature, labels, counts)
        assert value.isfinite()
        assert gradient.isfinite().all()
        assert not gradient[~counts].any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jeffreys"])
def test_what_is_infinite_says_so(kind, dtype):
    student, teacher = extreme_rows(0, dtype, True), extreme_rows(1, dtype, True)
    p, q = (side.double().softmax(-1) for side in (teacher, student))
    # Mass below 1e-37 is none in float32: whether -inf meets it is then a matter of rounding.
    missed = {"forward_kl": [(p, student)], "reverse_kl": [(q, teacher)], "jeffreys": [(p, student), (q, teacher)]}[
        kind
    ]
    infinite = sum(((mass > 1e-37) & (other == -math.inf)).any(-1) for mass, other in missed) > 0
    doubtful = sum(((mass > 0) & (mass <= 1e-37)).any(-1) for mass, _ in missed) > 0
    assert infinite.any()
    assert not infinite.all()
    with pytest.raises(InfiniteDivergenceError):
        tl.divergence(student, teacher, tl.divergences.ALL[kind]())
    rows = tl.divergence(student, teacher, tl.divergences.ALL[kind](), reduction="none", validate=False)
    assert torch.equal(rows[~doubtful].isposinf(), infinite[~doubtful])


@pytest.mark.parametrize("tail", ["bucket", "renormalize"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "kind", [kind for kind, cls in tl.divergences.ALL.items() if issubclass(cls, tl.divergences.Pointwise)]
)
def test_sparse_teachers(kind, dtype, tail):
    divergence = tl.divergences.ALL[kind]()
    for place, temperature in enumerate(TEMPERATURES):
        student, full = extreme_rows(5 * place, dtype, False), extreme_rows(5 * place + 2, dtype, False)
        kept, ids = full.topk(3)
        tails = (full.double() / temperature).scatter(1, ids, -math.inf).logsumexp(-1).to(dtype)
        teacher = tl.TopK(ids, kept, {temperature: tails}, tail)
        value, gradient = step(student, teacher, divergence, temperature, None, None)
        assert value.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_labels(dtype, smoothing):
    student = extreme_rows(4, dtype, False)
    labels = torch.arange(ROWS) % V
    value, gradient = step(student, tl.Labels(labels, smoothing), tl.ForwardKL(), 1.0, None, None)
    expected = torch.nn.functional.cross_entropy(student.double(), labels, label_smoothing=smoothing, reduction="sum")
    p = torch.full((V,), smoothing / V, dtype=torch.float64)
    p[0] += 1 - smoothing
    entropy = -torch.special.xlogy(p, p).sum() * ROWS
    assert value.double().item() == pytest.approx((expected - entropy).item(), rel=1e-6)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", tl.divergences.ALL)
def test_all_masked_is_0_with_a_graph(kind, dtype):
    student = torch.full((4, V), math.nan, dtype=dtype)
    value, gradient = step(
        student, student.clone(), tl.divergences.ALL[kind](), 1.0, torch.full((4,), -100), torch.zeros(4)
    )
    assert value == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))
