"""The student with its teachers and objective: what a call returns, what is inside and what is not."""

import copy
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn

import tutelage as tl
from tutelage.errors import LayerError, ModuleError, TeacherError

X = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 2, -100, 1, -100, -100])


def network(seed, hidden=7):
    torch.manual_seed(seed)
    layers = [
        ("first", nn.Linear(5, hidden)),
        ("act", nn.Tanh()),
        ("drop", nn.Dropout(0.5)),
        ("head", nn.Linear(hidden, 3)),
    ]
    return nn.Sequential(OrderedDict(layers))


def make(terms=None, teachers=None, **given):
    terms = terms or {
        "soft": tl.Term(tl.ForwardKL(), temperature=2.0, weight=0.6),
        "hard": tl.Term(tl.ForwardKL(), teacher="labels", weight=0.4),
    }
    return tl.DistillationModel(
        network(1), {"teacher": network(2)} if teachers is None else teachers, tl.Objective(terms), **given
    )


def test_the_loss_is_the_one_pytorch_computes():
    model = make().eval()
    out = model(inputs=X, labels=LABELS)
    z, t = model.student(X), model.teachers["teacher"].module(X)
    soft = F.kl_div(F.log_softmax(z / 2, -1), F.softmax(t / 2, -1), reduction="batchmean")
    hard = F.cross_entropy(z, LABELS)
    torch.testing.assert_close(out["parts"]["soft"], soft.detach())
    torch.testing.assert_close(out["parts"]["hard"], hard.detach())
    torch.testing.assert_close(out["loss"], 0.6 * 4 * soft + 0.4 * hard)
    assert out["loss"].requires_grad
    torch.testing.assert_close(out["logits"], z.detach())
    assert not out["logits"].requires_grad
    torch.testing.assert_close(out["teachers"]["teacher"], t)
    assert model.combine({n: p.item() for n, p in out["parts"].items()}) == pytest.approx(out["loss"].item(), rel=1e-6)


def test_training_mode_is_the_students_alone():
    model = make().train()
    assert model.student.drop.training
    one, other = (model(inputs=X, labels=LABELS) for _ in range(2))
    assert one["loss"] != other["loss"]  # the student's dropout draws
    assert "teachers" not in one
    assert not model.teachers["teacher"].module.drop.training


def test_teachers_are_no_part_of_what_is_saved_or_trained():
    model = make()
    assert all(name.startswith("student.") for name in model.state_dict())
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in model.student.parameters())
    before = copy.deepcopy(model.teachers["teacher"].module.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(inputs=X, labels=LABELS)["loss"].backward()
    optimizer.step()
    after = model.teachers["teacher"].module.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_rows_without_labels_count_in_no_term_that_reads_them():
    model = make({"dkd": tl.Term(tl.DecoupledKD()), "hard": tl.Term(tl.ForwardKL(), teacher="labels")}).eval()
    known = LABELS != -100
    out, alone = model(inputs=X, labels=LABELS), model(inputs=X[known], labels=LABELS[known])
    for name in ("dkd", "hard"):
        torch.testing.assert_close(out["parts"][name], alone["parts"][name])
    for labels in ({}, {"labels": torch.full((6,), -100)}):
        none = model(inputs=X, **labels)
        assert none["parts"] == {"dkd": 0, "hard": 0}
        none["loss"].backward()


def test_counts_of_the_terms():
    terms = {
        "soft": tl.Term(tl.ForwardKL()),
        "dkd": tl.Term(tl.DecoupledKD()),
        "hard": tl.Term(tl.ForwardKL(), teacher="labels"),
        "hidden": tl.FeatureTerm(tl.LogitMSE(), "first", "first"),
    }
    model = make(terms)
    counts = {name: float(count) for name, count in model.term_counts({"inputs": X, "labels": LABELS}).items()}
    assert counts == {"soft": 6, "dkd": 3, "hard": 3, "hidden": 6}
    assert {float(count) for count in model.term_counts({"inputs": X}).values()} == {6, 0}


def test_the_shares_of_micro_batches_sum_to_the_whole():
    terms = {
        "soft": tl.Term(tl.ForwardKL(), temperature=2.0),
        "hard": tl.Term(tl.ForwardKL(), teacher="labels"),
        "hidden": tl.FeatureTerm(tl.LogitMSE(), "first", "first"),
    }
    model = make(terms).eval()
    batch = {"inputs": X, "labels": LABELS}
    whole, counts = model(**batch), model.term_counts(batch)
    shares = [model(counts, inputs=X[part], labels=LABELS[part]) for part in (slice(0, 1), slice(1, 4), slice(4, 6))]
    torch.testing.assert_close(sum(share["loss"] for share in shares), whole["loss"])
    for name, value in whole["parts"].items():
        torch.testing.assert_close(sum(share["parts"][name] for share in shares), value)


def test_features_and_projectors():
    projector = nn.Linear(7, 9)
    terms = {"hidden": tl.FeatureTerm(tl.LogitMSE(), "act", "act", projector=projector, weight=0.5)}
    model = make(terms, {"teacher": network(3, hidden=9)}).eval()
    out = model(inputs=X)
    mine, theirs = torch.tanh(model.student.first(X)), torch.tanh(model.teachers["teacher"].module.first(X))
    torch.testing.assert_close(out["loss"], 0.5 * F.mse_loss(projector(mine), theirs))
    out["loss"].backward()
    assert projector.weight.grad is not None
    assert model.student.head.weight.grad is None
    assert {"projectors.hidden.weight", "projectors.hidden.bias"} <= set(model.state_dict())
    assert not any("projector" in name for name in model.student.state_dict())
    assert not any(layer._forward_hooks for layer in model.student.modules())


def test_a_teacher_that_is_only_tapped_needs_no_logits():
    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(5, 7)

        def forward(self, x):
            return {"hidden": self.body(x)}

    terms = {"hidden": tl.FeatureTerm(tl.LogitMSE(), "first", "body", teacher="backbone")}
    model = make(terms, {"backbone": Backbone(), "other": network(2)})
    assert model(inputs=X)["parts"]["hidden"] > 0
    assert list(model.eval()(inputs=X)["teachers"]) == ["other"]


def test_several_teachers():
    terms = {
        "a": tl.Term(tl.ForwardKL(), teacher="first"),
        "b": tl.Term(tl.ReverseKL(), teacher="second"),
    }
    model = make(terms, {"first": network(2), "second": network(3), "third": network(4)}).eval()
    out = model(inputs=X)
    assert sorted(out["teachers"]) == ["first", "second", "third"]
    z, t = (F.log_softmax(f(X), -1) for f in (model.student, model.teachers["second"].module))
    torch.testing.assert_close(out["parts"]["b"], F.kl_div(t, z, log_target=True, reduction="batchmean").detach())


def test_a_vocabulary_that_both_share():
    torch.manual_seed(0)
    wide = nn.Linear(5, 4)
    model = make({"soft": tl.Term(tl.ForwardKL())}, {"teacher": wide}, vocabulary=tl.VocabularyMap.prefix(3)).eval()
    expected = F.kl_div(F.log_softmax(model.student(X), -1), F.softmax(wide(X)[:, :3], -1), reduction="batchmean")
    torch.testing.assert_close(model(inputs=X)["loss"], expected)


def test_what_trainers_ask_is_the_students():
    model = make()
    assert not hasattr(model, "config")
    model.student.config = {"width": 7}  # which is none of transformers', and what trainers ask for is
    assert not hasattr(model, "config")
    model.student.config = transformers.PreTrainedConfig()
    model.student.gradient_checkpointing_enable = lambda: "on"
    assert model.config is model.student.config
    assert model.gradient_checkpointing_enable() == "on"
    assert not hasattr(model, "head")
    with pytest.raises(AttributeError, match="head"):
        _ = model.head


@pytest.mark.parametrize(
    ("given", "error", "came", "remedy"),
    [
        ({"terms": {"s": tl.Term(tl.ForwardKL(), teacher="big")}}, TeacherError, "'s' wants the teacher 'big'", "pass"),
        ({"teachers": {}}, TeacherError, r"the model has \[\]", "pass it by that name"),
        ({"teachers": network(2)}, TeacherError, "teachers are Sequential", "by name"),
        ({"teachers": {"teacher": network(2), "labels": network(3)}}, TeacherError, "named 'labels'", "another name"),
        (
            {"terms": {"f": tl.FeatureTerm(tl.LogitMSE(), "fist", "first")}},
            LayerError,
            r"student .* no layer 'fist'",
            r"\['first'",
        ),
        (
            {"terms": {"f": tl.FeatureTerm(tl.LogitMSE(), "first", "hed")}},
            LayerError,
            r"teacher 'teacher' .* no layer 'hed'",
            "'head'",
        ),
        (
            {"terms": {"f": tl.FeatureTerm(tl.LogitMSE(), "first", "first", projector="linear")}},
            LayerError,
            "'linear'",
            r"torch\.nn\.Linear",
        ),
        (
            {"terms": {"f.x": tl.FeatureTerm(tl.LogitMSE(), "first", "first", projector=nn.Linear(7, 7))}},
            tl.errors.ParameterError,
            "'f.x'",
            "no dot",
        ),
    ],
)
def test_refused_before_the_first_batch(given, error, came, remedy, refused):
    with refused(error, came, remedy):
        make(**given)


def test_wrong_kinds_of_things(refused):
    objective = tl.Objective({"hard": tl.Term(tl.ForwardKL(), teacher="labels")})
    with refused(ModuleError, "student is str", "torch.nn.Module"):
        tl.DistillationModel("gpt", {}, objective)
    with refused(tl.errors.CompatibilityError, "objective is Term", "Objective of terms"):
        tl.DistillationModel(network(1), {}, objective.terms["hard"])
    same = network(1)
    with refused(TeacherError, "share 4 parameters", "deepcopy"):
        tl.DistillationModel(same, {"teacher": same}, objective)


def test_another_class_count_is_an_error(refused):
    model = make({"soft": tl.Term(tl.ForwardKL())}, {"teacher": nn.Linear(5, 4)})
    with refused(tl.errors.VocabularyError, "4", "VocabularyMap"):
        model(inputs=X)


def test_hidden_states_of_the_student():
    """A student may hand over hidden states and head; then the logits never exist, and are not returned."""

    class Lean(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(5, 7), nn.Linear(7, 3)

        def forward(self, x):
            return tl.HeadStates(self.body(x), self.head.weight, self.head.bias)

    objective = tl.Objective({"soft": tl.Term(tl.ForwardKL()), "hard": tl.Term(tl.ForwardKL(), teacher="labels")})
    lean = Lean()
    out = tl.DistillationModel(lean, {"teacher": network(2)}, objective).eval()(inputs=X, labels=LABELS)
    assert "logits" not in out
    expected = F.cross_entropy(lean.head(lean.body(X)), LABELS)
    torch.testing.assert_close(out["parts"]["hard"], expected.detach())
