"""Samples from the teacher give, on average, the gradient of the dense forward KL."""

import pytest
import torch

import tutelage as tl

# 400 steps with 12 draws each for 4 rows of 30 outcomes: enough for a bias of a few per cent to stand out.
STEPS, DRAWS, N, V = 400, 12, 4, 30


def z_scores(student, teacher, temperature, weights_of):
    """Return how many standard errors the mean gradient of each logit is away from the dense one."""
    generator = torch.Generator().manual_seed(3)
    dense = student.clone().requires_grad_()
    tl.divergence(dense, teacher, temperature=temperature, reduction="sum").backward()
    p = (teacher / temperature).softmax(-1)
    gradients = []
    for _ in range(STEPS):
        ids = torch.multinomial(p, DRAWS, replacement=True, generator=generator)
        sampled = tl.Sampled(ids, weights_of(ids, p), temperature)
        leaf = student.clone().requires_grad_()
        tl.divergence(leaf, sampled, temperature=temperature, reduction="sum").backward()
        gradients.append(leaf.grad)
    gradients = torch.stack(gradients)
    return (gradients.mean(0) - dense.grad) / (gradients.std(0) / STEPS**0.5)


def sides():
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(N, V, generator=generator, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_mean_gradient_is_the_dense_one(temperature):
    student, teacher = sides()
    scores = z_scores(student, teacher, temperature, lambda ids, p: torch.full(ids.shape, 1 / DRAWS).double())
    # 120 standard normal numbers, nearly independent: their mean square is 1, give or take 1/sqrt(60).
    assert scores.square().mean() < 1.5
    assert scores.abs().max() < 4.5


def test_a_biased_sampler_is_noticed():
    """Weights by probability, as in a renormalised top-k, lean to the likely outcomes."""
    student, teacher = sides()

    def by_probability(ids, p):
        kept = p.gather(1, ids)
        return kept / kept.sum(-1, keepdim=True)

    assert z_scores(student, teacher, 1.0, by_probability).square().mean() > 5


def test_the_value_is_the_cross_entropy_less_the_entropy_that_was_kept():
    student, teacher = sides()
    p = teacher.softmax(-1)
    # Every outcome "drawn" with its own probability: the estimate is then exact.
    ids = torch.arange(V).expand(N, V).contiguous()
    entropy = -(p * p.log()).sum(-1)
    plain = tl.divergence(student, tl.Sampled(ids, p, 1.0), reduction="none")
    torch.testing.assert_close(plain, -(p * student.log_softmax(-1)).sum(-1))
    less = tl.divergence(student, tl.Sampled(ids, p, 1.0, entropy), reduction="none")
    torch.testing.assert_close(less, tl.divergence(student, teacher, reduction="none"))


def test_an_outcome_drawn_twice_counts_twice():
    student, _ = sides()
    once = tl.Sampled(torch.tensor([[3, 5]] * N), torch.tensor([[2 / 3, 1 / 3]] * N).double(), 1.0)
    twice = tl.Sampled(torch.tensor([[3, 5, 3]] * N), torch.full((N, 3), 1 / 3).double(), 1.0)
    leaves = [student.clone().requires_grad_() for _ in range(2)]
    for leaf, teacher in zip(leaves, (once, twice), strict=True):
        tl.divergence(leaf, teacher).backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=1e-6, atol=1e-9)
