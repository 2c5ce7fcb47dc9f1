"""On a device the host must never ask for a value. The meta device has none: asking for one raises there.

It stands in for a GPU: everything but the CPU takes the same path (rows masked instead of grouped, nothing validated).
"""

import warnings

import pytest
import torch

import tutelage as tl
from tutelage.execution import refusal

N, V, K, T = 6, 11, 3, 2.0


def meta(*shape, requires_grad=False):
    return torch.empty(shape, device="meta", requires_grad=requires_grad)


def ids(*shape):
    return torch.zeros(*shape, dtype=torch.int64, device="meta")


def teachers(outcomes):
    logits = tl.Logits(meta(N, outcomes))
    top_k = tl.TopK(ids(N, K), meta(N, K), {T: meta(N)})
    return {
        "logits": logits,
        "head": tl.HeadStates(meta(N, 5), meta(outcomes, 5), softcap=3.0, scale=0.5),
        "top-k": top_k,
        "renormalize": tl.TopK(ids(N, K), meta(N, K), tail="renormalize"),
        "sampled": tl.Sampled(ids(N, K), meta(N, K), T),
        "labels": tl.Labels(ids(N)),
        "smoothed": tl.Labels(ids(N), smoothing=0.1),
        "mixture": tl.Mixture([logits, logits]),
        "logit mixture": tl.Mixture([logits, logits], space="logit"),
        "top-k mixture": tl.Mixture([top_k, top_k]),
    }


def objectives(outcomes):
    """Yield one objective per teacher, of all divergences that take it."""
    for name, teacher in teachers(outcomes).items():
        terms = {}
        for kind, cls in tl.divergences.ALL.items():
            if refusal(cls(), teacher) is None:
                terms[kind] = tl.Term(cls(), teacher=name, temperature=T)
        yield name, teacher, terms


MAPS = {"all": None, "prefix": tl.VocabularyMap.prefix(7), "ids": tl.VocabularyMap([1, 3, 5], [0, 4, 2])}


# Every two of student, map and weights meet.
@pytest.mark.parametrize(("columns", "head"), [(columns, head) for columns in MAPS for head in (False, True)])
def test_a_step_asks_the_device_for_nothing(columns, head):
    vocabulary, weights = MAPS[columns], meta(N) if head == (columns == "all") else None
    if head:
        tensors = [meta(N, 4, requires_grad=True), meta(V, 4, requires_grad=True), meta(V, requires_grad=True)]
        student = tl.HeadStates(*tensors)
    else:
        tensors = [meta(N, V, requires_grad=True)]
        student = tl.Logits(*tensors)
    for name, teacher, terms in objectives(V):
        if head:
            terms.pop("dist", None)
        outcome = tl.Objective(terms)(
            student,
            {name: teacher, "labels": tl.Labels(ids(N))},
            token_weights=weights,
            normalizer=meta(),
            vocabulary=vocabulary,
        )
        outcome.loss.backward()
        assert all(tensor.grad is not None and tensor.grad.shape == tensor.shape for tensor in tensors), name


def test_the_stand_in_would_notice():
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool(meta(3).isfinite().all())
    with pytest.raises((RuntimeError, NotImplementedError)), warnings.catch_warnings():
        meta(3).nonzero()
    with pytest.raises((RuntimeError, NotImplementedError)):
        tl.divergence(meta(N, V), meta(N, V), validate=True)
