"""No false alarms: what is healthy trains without a warning, an error or a refusal."""

import logging
import math

import pytest
import torch

from healthy_pairs import PAIRS, trainer_of

# What peft and the Trainer ask of transformers is on its way out there.
pytestmark = pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def said():
    """Everything that the package or transformers logs as a warning or an error."""
    records = []

    class Keeping(logging.Handler):
        def emit(self, record):
            records.append(record.getMessage())

    handler, loggers = Keeping(logging.WARNING), [logging.getLogger(name) for name in ("tutelage", "transformers")]
    for logger in loggers:
        logger.addHandler(handler)
    yield records
    for logger in loggers:
        logger.removeHandler(handler)


def test_there_are_forty_or_more():
    assert len(PAIRS) >= 40


@pytest.mark.parametrize("name", PAIRS)
def test_a_healthy_pair_trains(name, tmp_path, said):
    trainer = trainer_of(name, tmp_path)
    student = trainer.distillation.student
    teachers = {of: teacher.module for of, teacher in trainer.distillation.teachers.items()}
    before = [
        {key: value.clone() for key, value in each.state_dict().items()} for each in (student, *teachers.values())
    ]
    trainer.train()
    lines = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [line["step"] for line in lines] == [1, 2]
    for line in lines:
        parts = [line["loss"], *(line[term] for term in trainer.distillation.objective.terms)]
        assert all(map(math.isfinite, parts)), line
        assert line["loss"] > 0, line
    changed = [not torch.equal(value, student.state_dict()[key]) for key, value in before[0].items()]
    assert any(changed)
    for teacher, was in zip(teachers.values(), before[1:], strict=True):
        assert all(torch.equal(value, teacher.state_dict()[key]) for key, value in was.items())
    assert said == []
