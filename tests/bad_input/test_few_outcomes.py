"""One output is certain whatever its logit: a divergence between probabilities would train nothing, and is refused."""

import pytest
import torch
import transformers
from torch import nn

import tutelage as tl
from tutelage.errors import VocabularyError
from tutelage.training import DistillationTrainer

GENERATOR = torch.Generator().manual_seed(0)
NEEDS = {"logit_mse": 1, "standardized_kl": 3}  # two outcomes for all others


def sides(columns):
    student = torch.randn(4, columns, generator=GENERATOR, requires_grad=True)
    return student, torch.randn(4, columns, generator=GENERATOR), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize("kind", tl.divergences.ALL)
def test_the_fewest_outcomes(refused, kind):
    """One fewer is refused, and with as many there is a gradient."""
    least, divergence = NEEDS.get(kind, 2), tl.divergences.ALL[kind]()
    student, teacher, labels = sides(least)
    tl.divergence(student, teacher, divergence, labels=labels).backward()
    assert student.grad.abs().max() > 1e-3 or kind == "logit_cosine"
    if least > 1:
        student, teacher, labels = sides(least - 1)
        with refused(VocabularyError, f"{kind} needs at least {least} outcomes", "LogitMSE|use another divergence"):
            tl.divergence(student, teacher, divergence, labels=labels)


def top_k(kept, tail="renormalize"):
    ids = torch.arange(kept).expand(4, kept)
    return tl.TopK(
        ids, torch.randn(4, kept, generator=GENERATOR), {} if tail == "renormalize" else {1.0: torch.zeros(4)}, tail
    )


STUDENT, TEACHER, LABELS = sides(1)
WIDE, OTHER, _ = sides(5)
HEAD = tl.HeadStates(torch.randn(4, 3, generator=GENERATOR), torch.randn(1, 3, generator=GENERATOR))
ONE = tl.VocabularyMap([1], [2])
HALVES = tl.TopK(torch.tensor([[0, 1], [0, 3], [3, 0], [4, 0]]), torch.zeros(4, 2), tail="renormalize")
SINGLE = {
    "a head": lambda: tl.divergence(HEAD, TEACHER),
    "labels": lambda: tl.divergence(STUDENT, tl.Labels(LABELS)),
    "smoothed labels": lambda: tl.divergence(STUDENT, tl.Labels(LABELS, 0.1), tl.ReverseKL()),
    "a mixture": lambda: tl.divergence(STUDENT, tl.Mixture([tl.Logits(TEACHER)] * 2)),
    "samples": lambda: tl.divergence(STUDENT, tl.Sampled(LABELS[:, None], torch.ones(4, 1), 1.0)),
    "a bucket of none": lambda: tl.divergence(STUDENT, tl.TopK(LABELS[:, None], TEACHER, {1.0: torch.zeros(4)})),
    "rows": lambda: tl.divergence(STUDENT, TEACHER, reduction="none"),
    "Objective": lambda: tl.Objective({"soft": tl.Term(tl.ForwardKL())})(STUDENT, {"teacher": TEACHER}),
    "a term that is only watched": lambda: tl.Objective(
        {"soft": tl.Term(tl.ForwardKL(), weight=0.0), "fit": tl.Term(tl.LogitMSE())}
    )(STUDENT, {"teacher": TEACHER}),
    "a feature": lambda: tl.Objective({"hidden": tl.FeatureTerm(tl.LogitCosine(), "a", "b")})(
        WIDE, {}, {"hidden": (STUDENT, TEACHER)}
    ),
    "DistillationLoss": lambda: tl.DistillationLoss()(STUDENT, TEACHER, LABELS),
    "DistillationLoss, soft alone": lambda: tl.DistillationLoss(alpha=1.0)(STUDENT, TEACHER),
    "DistillationLoss, hard alone": lambda: tl.DistillationLoss(alpha=0.0)(STUDENT, TEACHER, LABELS),
    "ResponseDistiller": lambda: tl.ResponseDistiller.pure_kl()(STUDENT, TEACHER),
    "EnsembleDistiller": lambda: tl.EnsembleDistiller.uniform(1)(STUDENT, [TEACHER], LABELS),
}


@pytest.mark.parametrize("call", SINGLE.values(), ids=SINGLE)
def test_a_single_output(refused, call):
    with refused(VocabularyError, "needs at least 2 outcomes", r"single output.*LogitMSE\(\)|features|sigmoid"):
        call()


def test_a_map_that_leaves_one_column(refused):
    for call in (
        lambda: tl.divergence(WIDE, OTHER, vocabulary=ONE),
        lambda: tl.divergence(WIDE, OTHER, tl.Hellinger(), vocabulary=tl.VocabularyMap.prefix(1)),
        lambda: tl.divergence(WIDE, top_k(3, "bucket"), vocabulary=tl.VocabularyMap.prefix(1)),
    ):
        with refused(VocabularyError, "needs at least 2 outcomes", "vocabulary map leaves 1 of the columns"):
            call()
    # Labels keep the student's whole vocabulary, and a squared error of one column is one.
    assert tl.divergence(WIDE, tl.Labels(LABELS), vocabulary=ONE) > 0
    expected = (WIDE[:, 1] - OTHER[:, 2]).square().mean()
    torch.testing.assert_close(tl.divergence(WIDE, OTHER, tl.LogitMSE(), vocabulary=ONE), expected)


def test_one_kept_id(refused):
    for teacher in (top_k(1), tl.Mixture([top_k(1), top_k(1)])):
        with refused(VocabularyError, "needs at least 2 outcomes", "keeps 1 id of each row.*tail='bucket'"):
            tl.divergence(WIDE, teacher)
    # Beside a bucket one id is a comparison: of its probability against the rest.
    teacher = top_k(1, "bucket")
    log_p = torch.cat([teacher.logits, torch.zeros(4, 1)], -1).log_softmax(-1)
    log_q = WIDE.log_softmax(-1)
    log_q = torch.stack([log_q[:, 0], log_q[:, 1:].logsumexp(-1)], -1)
    torch.testing.assert_close(tl.divergence(WIDE, teacher), (log_p.exp() * (log_p - log_q)).sum(-1).mean())


def test_one_kept_id_that_is_mapped(refused):
    shared = tl.VocabularyMap([1, 2, 3, 4], [1, 2, 3, 4])
    with refused(VocabularyError, "single id that the vocabulary map compares", "tail='bucket'"):
        tl.divergence(WIDE, HALVES, vocabulary=shared)
    # A row among others may: it has nothing to learn from, the others do.
    student = WIDE.detach().clone().requires_grad_()
    tl.divergence(student, HALVES, vocabulary=tl.VocabularyMap.prefix(3)).backward()
    assert student.grad[0].abs().max() > 1e-3
    assert not student.grad[1:].any()


def test_the_squared_error_of_a_regression():
    loss = tl.Objective({"fit": tl.Term(tl.LogitMSE(), weight=2.0)})(STUDENT, {"teacher": TEACHER}).loss
    torch.testing.assert_close(loss, 2 * torch.nn.functional.mse_loss(STUDENT, TEACHER))


def test_the_advice_for_a_binary_head_is_the_binary_divergence():
    both = [torch.cat([torch.zeros_like(z), z], -1) for z in (STUDENT, TEACHER)]
    p, q = TEACHER.sigmoid(), STUDENT.sigmoid()
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    torch.testing.assert_close(tl.divergence(*both), expected)


class Scorer(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 1)

    def forward(self, x):
        return self.head(x)


def test_the_trainer(refused, tmp_path):
    rows = [{"x": torch.ones(3) * i, "labels": 0} for i in range(4)]
    args = transformers.TrainingArguments(str(tmp_path), max_steps=1, report_to=[], use_cpu=True)
    trainer = DistillationTrainer(
        model=Scorer(),
        teacher=Scorer(),
        objective=tl.Objective({"soft": tl.Term(tl.ForwardKL())}),
        args=args,
        train_dataset=rows,
    )
    with refused(VocabularyError, "forward_kl needs at least 2 outcomes", "single output"):
        trainer.train()
