"""Terms of weight 0 are looked at and train nothing, in every group of rows and for every kind of student."""

import pytest
import torch

import tutelage as tl

# Six rows: with two blocks of them and a group of their own for the rows of each term.
N, D, V = 6, 4, 9


def student_and_tensors(kind):
    generator = torch.Generator().manual_seed(0)
    if kind == "logits":
        values = torch.randn(N, V, generator=generator).requires_grad_()
        return tl.Logits(values), [values]
    tensors = [torch.randn(shape, generator=generator).requires_grad_() for shape in ((N, D), (V, D), (V,))]
    return tl.HeadStates(*tensors), tensors


def gradients(kind, terms, token_weights=None):
    student, tensors = student_and_tensors(kind)
    teachers = {"teacher": torch.linspace(-2, 2, N * V).reshape(N, V), "labels": tl.Labels(torch.arange(N))}
    out = tl.Objective(terms)(student, teachers, token_weights=token_weights, normalizer=6.0)
    out.loss.backward()
    return out, [tensor.grad for tensor in tensors]


# One divergence of each shape; the one over the whole batch takes no head states.
SHAPES = [tl.ForwardKL(), tl.LogitMSE(), tl.Dist()]


@pytest.mark.parametrize(
    ("kind", "divergence"),
    [("logits", divergence) for divergence in SHAPES] + [("head", divergence) for divergence in SHAPES[:2]],
    ids=str,
)
def test_an_objective_that_only_looks_has_zero_gradients(kind, divergence):
    out, grads = gradients(kind, {"soft": tl.Term(divergence, weight=0.0)})
    assert out.loss.item() == 0
    assert out.parts["soft"].item() > 0
    assert all(torch.count_nonzero(grad) == 0 for grad in grads)


@pytest.mark.parametrize("kind", ["logits", "head"])
def test_rows_that_are_only_looked_at_get_no_gradient(kind):
    soft = torch.tensor([1.0, 1, 1, 0, 0, 0])
    hard = torch.tensor([0.0, 0, 1, 1, 1, 1])
    both = {"soft": tl.Term(tl.ForwardKL()), "hard": tl.Term(tl.ForwardKL(), "labels", weight=0.0)}
    out, grads = gradients(kind, both, {"soft": soft, "hard": hard})
    alone, expected = gradients(kind, {"soft": both["soft"]}, {"soft": soft})
    assert out.parts["hard"].item() > 0
    torch.testing.assert_close(out.loss, alone.loss)
    for grad, wanted in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, wanted)
