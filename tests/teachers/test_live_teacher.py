"""A live teacher is asked and never changed."""

import copy

import pytest
import torch
from torch import nn

from tutelage.errors import ModuleError, TeacherError
from tutelage.teachers import LiveTeacher


def test_no_graph_no_mode_no_gradient():
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    teacher = LiveTeacher(module)
    before = copy.deepcopy(module.state_dict())
    x = torch.randn(8, 4, requires_grad=True)
    outputs = []
    for _ in range(3):
        module.train()  # whoever else holds it
        with teacher.asked({"inputs": x}) as network:
            outputs.append(network(x))
    assert not outputs[0].requires_grad
    assert all(torch.equal(outputs[0], output) for output in outputs)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert torch.is_grad_enabled()


def test_it_follows_the_device():
    module = nn.Linear(4, 2)
    with LiveTeacher(module).asked({"x": torch.empty(3, 4, device="meta")}) as network:
        assert network(torch.empty(3, 4, device="meta")).shape == (3, 2)
    assert module.weight.device.type == "meta"


def test_weights_of_the_student_are_refused(refused):
    trunk = nn.Linear(4, 4)
    teacher, student = nn.Sequential(trunk, nn.Linear(4, 2)), nn.Sequential(trunk, nn.Linear(4, 2))
    with refused(TeacherError, r"'big' and the student share 2 parameters, '0\.weight'", "deepcopy"):
        LiveTeacher(teacher).check_apart_from("big", student)
    view = nn.Linear(4, 4)
    view.weight = nn.Parameter(trunk.weight.detach()[:])  # another parameter on the same memory
    with pytest.raises(TeacherError, match="share 1 parameters"):
        LiveTeacher(teacher).check_apart_from("big", view)
    LiveTeacher(teacher).check_apart_from("big", copy.deepcopy(student))


def test_it_must_be_a_module(refused):
    with refused(ModuleError, "function", "torch.nn.Module"):
        LiveTeacher(lambda x: x)
