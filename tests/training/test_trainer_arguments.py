"""What the Trainer takes: students made by a function, predictions cut down before they are kept, generation."""

import numpy as np
import pytest
import torch
from torch import nn
from training_helpers import OBJECTIVE, arguments, lines_of, make_rows, network, trainer_of
from transformers import PrinterCallback, TrainerCallback

import tutelage as tl
from tiny_texts import gpt2, llama
from tutelage.errors import ParameterError
from tutelage.tasks import CausalLM
from tutelage.training import DistillationTrainer


def made_by(folder, model_init, objective=OBJECTIVE, **given):
    trainer = DistillationTrainer(
        model_init=model_init,
        teacher=network(2, hidden=16),
        objective=objective,
        args=arguments(folder, max_steps=5, **given),
        train_dataset=make_rows(),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


@pytest.mark.parametrize("takes_a_trial", [False, True])
def test_a_student_made_by_a_function_trains_as_one_that_is_given(tmp_path, takes_a_trial):
    asked = []

    def make():
        asked.append(1)
        return network(1)

    trainer = made_by(tmp_path / "made", (lambda trial: make()) if takes_a_trial else make)
    trainer.train()
    given = trainer_of(tmp_path / "given", student=network(1), max_steps=5)
    given.train()
    first = {name: value.clone() for name, value in trainer.distillation.student.state_dict().items()}
    assert len(asked) == 2  # once to see it, once to train it, as in transformers
    assert trainer.model is trainer.distillation
    assert all(torch.equal(value, first[name]) for name, value in given.distillation.student.state_dict().items())
    assert [line["loss"] for line in lines_of(trainer)] == [line["loss"] for line in lines_of(given)]
    trainer.train()  # anew, and not from where the first one ended
    again = trainer.distillation.student.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())


def test_projectors_start_anew_with_the_student(tmp_path):
    torch.manual_seed(0)
    term = tl.FeatureTerm(tl.LogitMSE(), "0", "0", projector=nn.Linear(8, 16))
    trainer = made_by(tmp_path, lambda: network(1), tl.Objective({**OBJECTIVE.terms, "hidden": term}))
    weights = []
    for _ in range(2):
        trainer.train()
        weights.append(trainer.distillation.projectors["hidden"].weight.detach().clone())
    assert not torch.equal(weights[0], term.projector.weight)
    assert torch.equal(weights[0], weights[1])


def test_predictions_are_cut_down_before_they_are_kept(tmp_path):
    shapes = []

    def cut(logits, labels):
        assert logits.shape == (len(labels), 4)
        return logits.argmax(-1)

    def metrics(found):
        shapes.append((found.predictions.shape, found.label_ids.shape))
        known = found.label_ids != -100
        return {"right": float(np.mean(found.predictions[known] == found.label_ids[known]))}

    rows = make_rows()
    made = {"eval_dataset": rows, "compute_metrics": metrics}
    scores = trainer_of(tmp_path, preprocess_logits_for_metrics=cut, **made).evaluate()
    assert shapes == [((24,), (24,))]
    assert scores["eval_right"] == pytest.approx(scores["eval_accuracy"])


def test_an_optimizer_by_its_class(tmp_path):
    by_class = trainer_of(tmp_path / "class", max_steps=3, optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 0.05}))
    by_name = trainer_of(tmp_path / "name", max_steps=3, optim="sgd")
    for trainer in (by_class, by_name):
        trainer.train()
    pairs = zip(by_class.distillation.parameters(), by_name.distillation.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_one_student_and_one_loss(tmp_path, refused):
    given = {"teacher": network(2), "objective": OBJECTIVE, "args": arguments(tmp_path)}
    with refused(ParameterError, "both of model and model_init", "expected one"):
        DistillationTrainer(model=network(1), model_init=lambda: network(1), **given)
    with refused(ParameterError, "neither of model and model_init", "expected one"):
        DistillationTrainer(**given)
    with refused(ParameterError, "compute_loss_func was given", "divergence of a Term"):
        DistillationTrainer(model=network(1), compute_loss_func=lambda *_: None, **given)


@pytest.mark.parametrize("make", [llama, gpt2], ids=["by its head", "gpt2"])
@pytest.mark.parametrize("as_it_is", [False, True], ids=["the trainer's", "a plain model"])
def test_a_callback_generates(tmp_path, make, as_it_is):
    ids, texts = torch.tensor([[5, 6, 7]]), []

    class Generate(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            model.eval()
            texts.append(model.generate(ids.to(model.device), max_new_tokens=4, do_sample=False, pad_token_id=0))
            model.train()

    rows = [{"input_ids": ids[0], "attention_mask": torch.ones(3, dtype=torch.int64), "labels": ids[0]}] * 2
    student = make(1)
    given = {"args": arguments(tmp_path, max_steps=1, learning_rate=0.0), "train_dataset": rows}
    if as_it_is:
        model = tl.DistillationModel(student, {"teacher": make(2)}, OBJECTIVE, CausalLM())
        trainer = DistillationTrainer(model, callbacks=[Generate()], **given)
    else:
        trainer = DistillationTrainer(student, make(2), OBJECTIVE, callbacks=[Generate()], **given)
    trainer.train()
    wanted = make(1).generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert texts[0].tolist() == wanted.tolist()
