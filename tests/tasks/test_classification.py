"""What a batch means, and what networks may return and be called with."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import tutelage as tl
from tutelage.errors import DtypeError, ModuleError, ShapeError
from tutelage.tasks import Classification, batch_length, call

TASK = Classification()
X = torch.arange(6.0).reshape(2, 3)


def module(forward):
    made = nn.Module()
    made.forward = forward
    return made


def test_labels_and_what_has_none():
    labels, known = TASK.targets({"labels": torch.tensor([3, -100, 0])})
    assert labels.targets.tolist() == [3, 0, 0]
    assert known.tolist() == [1, 0, 1]
    assert TASK.targets({"inputs": X}) == (None, None)
    narrow, _ = TASK.targets({"labels": torch.tensor([3, -100], dtype=torch.int32)})
    assert narrow.targets.dtype == torch.int64


@pytest.mark.parametrize("labels", [torch.tensor([0.0, 1.0]), torch.tensor([True, False]), [0, 1]], ids=repr)
def test_labels_that_are_no_class_numbers(labels, refused):
    with refused(DtypeError, "labels are", "int64"):
        TASK.targets({"labels": labels})


def test_a_negative_label_is_no_missing_label():
    labels, known = TASK.targets({"labels": torch.tensor([-1, 0])})
    assert known.tolist() == [1, 1]
    with pytest.raises(tl.errors.LabelError):
        tl.divergence(torch.zeros(2, 3), labels)


def test_inputs_are_everything_but_labels_and_index():
    batch = {"a": X, "b": X, "labels": X, "index": X}
    assert list(TASK.inputs(batch)) == ["a", "b"]


def test_the_length_of_a_batch():
    assert batch_length({"a": X, "labels": torch.zeros(2), "name": "x"}) == 2
    with pytest.raises(ShapeError, match=r"\{'a': 2, 'labels': 3\}"):
        batch_length({"a": X, "labels": torch.zeros(3)})
    assert TASK.weights({"a": X}) is None


@pytest.mark.parametrize(
    "output",
    [X, {"loss": 1, "logits": X}, SimpleNamespace(logits=X), (X, "hidden"), [None, X]],
    ids=["tensor", "mapping", "object", "tuple", "list"],
)
def test_every_kind_of_output(output):
    assert TASK.student(output) is X
    assert TASK.teacher(output) is X


def test_distributions_are_kept():
    side = tl.Logits(X, softcap=5.0)
    assert TASK.student(side) is side
    top = tl.TopK(torch.tensor([[0], [1]]), torch.zeros(2, 1), tail="renormalize")
    assert TASK.teacher(top) is top
    with pytest.raises(ModuleError, match="student returned TopK"):
        TASK.student(top)


@pytest.mark.parametrize(
    ("output", "came"),
    [
        (None, "NoneType"),
        ({"scores": X}, r"dict with \['scores'\]"),
        (("a", 1), "tuple"),
        (SimpleNamespace(), "Simple"),
    ],
)
def test_outputs_without_logits(output, came, refused):
    with refused(ModuleError, came, "wrap the module"):
        TASK.student(output)


# --- calling ----------------------------------------------------------------------------------------------------------


def test_by_name_where_the_names_are_known():
    assert call(module(lambda a, b: (a, b)), {"b": 1, "a": 2}) == (2, 1)
    assert call(module(lambda a, b=5: (a, b)), {"a": 2}) == (2, 5)
    assert call(module(lambda **kwargs: kwargs), {"b": 1, "a": 2}) == {"b": 1, "a": 2}
    assert call(module(lambda a, **kwargs: (a, kwargs)), {"b": 1, "a": 2}) == (2, {"b": 1})
    assert call(module(lambda *, a: a), {"a": 2}) == 2


def test_one_input_goes_to_the_one_place():
    assert call(module(lambda x: x), {"inputs": 1}) == 1
    assert call(module(lambda x, scale=2: (x, scale)), {"inputs": 1}) == (1, 2)
    assert call(module(lambda x, /: x), {"x": 1}) == 1
    assert call(module(lambda x, **kwargs: (x, kwargs)), {"inputs": 1}) == (1, {})
    assert call(module(lambda *xs: xs), {"inputs": 1}) == (1,)
    assert torch.equal(call(nn.Sequential(nn.Identity()), {"pixels": X}), X)


@pytest.mark.parametrize(
    ("forward", "inputs"),
    [
        (lambda a: a, {"b": 1, "c": 2}),
        (lambda a, b: a, {"inputs": 1}),
        (lambda a, b: a, {"a": 1, "c": 2}),
        (lambda a: a, {"a": 1, "c": 2}),
        (lambda: 1, {"a": 1}),
        (lambda a, *, b: a, {"c": 1}),
        (lambda *, a: a, {"b": 1}),
    ],
)
def test_names_that_do_not_fit(forward, inputs, refused):
    with refused(ModuleError, rf"the batch has \[.*{next(iter(inputs))}", "rename the columns|wrap"):
        call(module(forward), inputs)


def test_causal_language_models_are_refused(refused):
    class GPT2LMHeadModel(nn.Module):
        pass

    class Mine(GPT2LMHeadModel):
        pass

    class TinyForCausalLM(nn.Module):
        pass

    for cls in (Mine, GPT2LMHeadModel, TinyForCausalLM):
        with refused(ModuleError, cls.__name__, "ForSequenceClassification"):
            TASK.check(cls())
    TASK.check(nn.Linear(1, 1))
