"""The trainer beside its laws: what networks it takes, what it measures, saves, refuses, and never hides."""

import json

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
import transformers
from torch import nn
from training_helpers import OBJECTIVE, arguments, lines_of, make_rows, network, trainer_of
from transformers import TrainerCallback
from transformers.modeling_outputs import SequenceClassifierOutput

import tutelage as tl
from tutelage.errors import ModuleError, NonFiniteError, ParameterError, ShapeError
from tutelage.models import HeadModel
from tutelage.tasks import Classification
from tutelage.training import DistillationTrainer, MetricsLog, MixingCollator, collate, last_checkpoint

# --- networks ---------------------------------------------------------------------------------------------------------


class Wrapped(nn.Module):
    """A network with an output of another kind."""

    def __init__(self, make, seed=1):
        super().__init__()
        self.body, self.make = network(seed), make

    def forward(self, pixels):
        return self.make(self.body(pixels))


KINDS = {
    "tensor": lambda z: z,
    "mapping": lambda z: {"hidden": z * 2, "logits": z},
    "tuple": lambda z: (z, z * 2),
    "model output": lambda z: SequenceClassifierOutput(loss=None, logits=z),
    "logits": lambda z: tl.Logits(z),
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_network_trains_the_same(tmp_path, kind):
    plain = network(1)
    trainer_of(tmp_path / "plain", student=plain, max_steps=3).train()
    student = Wrapped(KINDS[kind])
    trainer = trainer_of(tmp_path / "kind", student=student, teacher=nn_teacher(kind), max_steps=3)
    trainer.train()
    for name, value in plain.state_dict().items():
        assert torch.equal(student.body.state_dict()[name], value)


def nn_teacher(kind):
    teacher = Wrapped(KINDS[kind])
    teacher.body = network(2, hidden=16)
    return teacher


def test_a_hugging_face_classifier(tmp_path):
    def bert(seed, width):
        torch.manual_seed(seed)
        config = transformers.BertConfig(
            vocab_size=30,
            hidden_size=width,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=12,
            num_labels=3,
            initializer_range=0.3,
        )
        return transformers.BertForSequenceClassification(config)

    generator = torch.Generator().manual_seed(0)
    rows = [
        {
            "input_ids": torch.randint(1, 30, (8,), generator=generator),
            "attention_mask": torch.ones(8, dtype=torch.int64),
            "labels": i % 3 if i % 2 else -100,
        }
        for i in range(12)
    ]
    term = tl.FeatureTerm(tl.LogitMSE(), "bert.encoder.layer.0", "bert.encoder.layer.1", projector=nn.Linear(8, 16))
    objective = tl.Objective({**OBJECTIVE.terms, "hidden": term})
    student, teacher = bert(0, 8), bert(1, 16)
    trainer = trainer_of(
        tmp_path, rows, student, teacher, objective, eval_dataset=rows, num_train_epochs=8, learning_rate=5e-3
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_soft"] < before["eval_soft"]
    assert after["eval_hidden"] < before["eval_hidden"]
    trainer.save_model(str(tmp_path / "student"))
    loaded = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "student")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in student.state_dict().items())


def test_a_language_model_is_no_classifier_of_rows(tmp_path, refused):
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    causal = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=9, **sizes))
    tokens = transformers.BertForTokenClassification(transformers.BertConfig(vocab_size=9, **sizes))
    for student in (causal, tokens, HeadModel(causal)):
        with refused(ModuleError, "'classification': it says something of every token", "ForSequenceClassification"):
            trainer_of(tmp_path, student=student, task=Classification())
        with refused(ModuleError, "'classification'", r"CausalLM\(\)"):
            tl.DistillationModel(student, {"teacher": network(2)}, OBJECTIVE)


def test_bfloat16(tmp_path):
    trainer = trainer_of(tmp_path, bf16=True, num_train_epochs=3, eval_dataset=make_rows())
    trainer.train()
    plain = trainer_of(tmp_path, num_train_epochs=3)
    plain.train()
    assert next(trainer.distillation.parameters()).dtype == torch.float32
    first, exact = lines_of(trainer)[0]["loss"], lines_of(plain)[0]["loss"]
    assert first != exact
    assert first == pytest.approx(exact, rel=0.02)
    assert trainer.evaluate()["eval_loss"] > 0


def test_a_ready_model(tmp_path, refused):
    ready = tl.DistillationModel(network(1), {"teacher": network(2, hidden=16)}, OBJECTIVE)
    trainer = DistillationTrainer(model=ready, args=arguments(tmp_path, max_steps=1), train_dataset=make_rows())
    assert trainer.distillation is ready
    with refused(ParameterError, r"its own \['teacher', 'objective'\]", "once"):
        DistillationTrainer(model=ready, teacher=network(2), objective=OBJECTIVE, args=arguments(tmp_path))


def test_the_teacher_stays_as_it_was(tmp_path):
    teacher = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 4))
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    modes = []

    class Look(TrainerCallback):
        def on_substep_end(self, args, state, control, model=None, **kwargs):
            modes.append((model.student.training, teacher.training))

    look = Look()
    trainer = trainer_of(tmp_path, teacher=teacher, callbacks=[look], max_steps=4, gradient_accumulation_steps=2)
    trainer.train()
    assert set(modes) == {(True, False)}
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    trained = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in trainer.distillation.student.parameters()}


# --- rows -------------------------------------------------------------------------------------------------------------


def test_rows_may_be_pairs_or_lack_a_label(tmp_path):
    rows = make_rows()
    pairs = [(row["inputs"], row["labels"]) for row in rows]
    lacking = [{n: v for n, v in row.items() if n != "labels" or v != -100} for row in rows]
    results = []
    for i, given in enumerate((rows, pairs, lacking)):
        student = network(1)
        trainer_of(tmp_path / str(i), given, student, max_steps=6).train()
        results.append(student[0].weight)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_collate_hides_nothing(refused):
    batch = collate([{"x": [1.0, 2.0], "labels": None}, {"x": [3.0, 4.0]}, {"x": [5.0, 6.0], "labels": 2}])
    assert batch["labels"].tolist() == [-100, -100, 2]
    assert batch["x"].shape == (3, 2)
    with refused(ShapeError, "1 of 2 rows of a batch have no 'x'", "in all rows"):
        collate([{"y": 1.0}, {"y": 1.0, "x": 2.0}])
    with refused(ShapeError, r"'x' of shapes \[\(2,\), \(3,\)\]", "pads"):
        collate([{"x": [1.0, 2.0]}, {"x": [1.0, 2.0, 3.0]}])
    with refused(ShapeError, "is int", "mapping"):
        collate([3])


def test_columns_that_the_networks_do_not_know_are_an_error(tmp_path, refused):
    rows = [{**row, "weather": 1.0} for row in make_rows()]
    with refused(ModuleError, r"\['inputs', 'weather'\]", "rename the columns"):
        trainer_of(tmp_path, rows, max_steps=1).train()


# --- the log ----------------------------------------------------------------------------------------------------------


def test_lines_are_means_of_the_steps_since_the_last(tmp_path):
    every = trainer_of(tmp_path / "1", num_train_epochs=2)
    every.train()
    fifth = trainer_of(tmp_path / "5", num_train_epochs=2, logging_steps=5)
    fifth.train()
    single, lines = lines_of(every), lines_of(fifth)
    assert [line["step"] for line in lines] == [5, 10, 12]  # the last two steps are in a line, too
    for line, chunk in zip(lines, (single[:5], single[5:10], single[10:]), strict=True):
        for name in ("loss", "soft", "hard"):
            assert line[name] == pytest.approx(sum(one[name] for one in chunk) / len(chunk), rel=1e-9)
    for line in single:
        assert line["loss"] == pytest.approx(0.7 * 9 * line["soft"] + 0.3 * line["hard"], rel=1e-5)


def test_the_file(tmp_path):
    path = tmp_path / "deep" / "metrics.jsonl"
    trainer = trainer_of(
        tmp_path,
        callbacks=[MetricsLog(path)],
        num_train_epochs=1,
        eval_dataset=make_rows(),
        eval_strategy="epoch",
        logging_steps=3,
    )
    trainer.train()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    trained = ["step", "epoch", "loss", "grad_norm", "hard", "learning_rate", "soft"]
    evaluated = ["accuracy", "agreement", "hard", "kl", "loss", "soft"]
    assert [list(line) for line in lines] == [
        trained,
        trained,
        ["step", "epoch", *(f"eval_{name}" for name in evaluated)],
    ]
    assert [line["step"] for line in lines] == [3, 6, 6]
    # A run that begins anew begins the file anew.
    trainer_of(tmp_path, callbacks=[MetricsLog(path)], max_steps=1).train()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1]


def test_two_runs_write_the_same_bytes(tmp_path):
    files = []
    for name in "ab":
        path = tmp_path / name / "metrics.jsonl"
        trainer = trainer_of(path.parent, student=network(1, dropout=0.3), callbacks=[MetricsLog(path)], max_steps=5)
        torch.manual_seed(ord(name))
        trainer.train()
        trainer.save_model(str(path.parent / "model"))
        files.append((path.read_bytes(), (path.parent / "model" / "model.safetensors").read_bytes()))
    assert files[0] == files[1]


def test_what_is_not_finite_is_null(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl")
    state = transformers.TrainerState(global_step=4)
    log.on_log(None, state, None, logs={"loss": 1.0, "grad_norm": float("inf"), "epoch": 0.5})
    assert json.loads((tmp_path / "m.jsonl").read_text()) == {"step": 4, "epoch": 0.5, "loss": 1.0, "grad_norm": None}


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    rows = make_rows()
    rows[9]["inputs"] = torch.full((6,), float("nan"))
    trainer = trainer_of(tmp_path, rows, train_sampling_strategy="sequential", num_train_epochs=1)
    with pytest.raises(NonFiniteError, match="in training step 3"):
        trainer.train()
    # Where values are not looked at (on a GPU), the step's own numbers tell.
    blind = tl.Objective(OBJECTIVE.terms, validate=False)
    trainer = trainer_of(tmp_path, rows, objective=blind, train_sampling_strategy="sequential", num_train_epochs=1)
    with pytest.raises(NonFiniteError, match=r"in training step 3 .*'soft': nan.*learning rate"):
        trainer.train()


# --- evaluation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [3, 5, 64])
def test_an_evaluation_is_over_rows(tmp_path, batch):
    """Batches of unequal size and with unequal shares of labels weigh by what they hold."""
    rows = make_rows(11, labelled=(0, 1, 2, 9))
    student, teacher = network(1), network(2, hidden=16)
    trainer = trainer_of(tmp_path, None, student, teacher, eval_dataset=rows, per_device_eval_batch_size=batch)
    found = trainer.evaluate()
    inputs = torch.stack([row["inputs"] for row in rows])
    labels = torch.tensor([row["labels"] for row in rows])
    z, t = student(inputs).detach(), teacher(inputs)
    kl = F.kl_div(F.log_softmax(z, -1), F.log_softmax(t, -1), log_target=True, reduction="batchmean")
    soft = F.kl_div(F.log_softmax(z / 3, -1), F.log_softmax(t / 3, -1), log_target=True, reduction="batchmean")
    hard = F.cross_entropy(z, labels)
    expected = {
        "eval_loss": 0.7 * 9 * soft + 0.3 * hard,
        "eval_soft": soft,
        "eval_hard": hard,
        "eval_kl": kl,
        "eval_agreement": (z.argmax(-1) == t.argmax(-1)).float().mean(),
        "eval_accuracy": (z.argmax(-1) == labels)[labels != -100].float().mean(),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(float(value), rel=1e-5), name


def test_an_evaluation_without_labels_leaves_out_what_needs_them(tmp_path):
    found = trainer_of(tmp_path, eval_dataset=make_rows(6, labelled=())).evaluate()
    assert {"eval_soft", "eval_kl", "eval_agreement", "eval_loss"} <= set(found)
    assert not {"eval_hard", "eval_accuracy"} & set(found)


def test_a_student_that_learns_from_labels_alone_is_still_compared_with_the_teacher(tmp_path):
    objective = tl.Objective({"hard": tl.Term(tl.ForwardKL(), teacher="labels")})
    found = trainer_of(tmp_path, objective=objective, eval_dataset=make_rows()).evaluate()
    assert {"eval_agreement", "eval_kl"} <= set(found)


def test_own_metrics_come_on_top(tmp_path):
    trainer = trainer_of(
        tmp_path,
        eval_dataset=make_rows(labelled=range(24)),
        compute_metrics=lambda p: {"errors": int((p.predictions.argmax(-1) != p.label_ids).sum())},
    )
    found = trainer.evaluate()
    assert found["eval_errors"] == round((1 - found["eval_accuracy"]) * 24)
    predicted = trainer.predict(make_rows())
    assert predicted.predictions.shape == (24, 4)
    assert "test_kl" in predicted.metrics


def test_mixing_is_for_training_alone(tmp_path):
    rows = make_rows()
    plain = trainer_of(tmp_path, rows, eval_dataset=rows)
    mixing = trainer_of(tmp_path, rows, eval_dataset=rows, data_collator=MixingCollator(collate, 0.4))
    keep = ("eval_loss", "eval_kl", "eval_accuracy")
    assert [plain.evaluate()[name] for name in keep] == [mixing.evaluate()[name] for name in keep]
    assert len(next(iter(mixing.get_train_dataloader()))["inputs"]) == 8


# --- saving -----------------------------------------------------------------------------------------------------------


def test_a_checkpoint_has_the_projectors_and_an_export_has_not(tmp_path):
    term = tl.FeatureTerm(tl.LogitMSE(), "0", "0", projector=nn.Linear(8, 16))
    objective = tl.Objective({"hidden": term, "hard": tl.Term(tl.ForwardKL(), teacher="labels")})
    trainer = trainer_of(tmp_path, objective=objective, max_steps=2, save_strategy="steps", save_steps=2)
    trainer.train()
    kept = safetensors.torch.load_file(last_checkpoint(tmp_path) / "model.safetensors")
    assert {name.split(".")[0] for name in kept} == {"student", "projectors"}
    trainer.save_model(str(tmp_path / "out"))
    alone = network(3)
    alone.load_state_dict(safetensors.torch.load_file(tmp_path / "out" / "model.safetensors"))
    x = torch.randn(4, 6)
    assert torch.equal(alone.eval()(x), trainer.distillation.student.eval()(x))
    assert [place.name for place in (tmp_path / "out").iterdir()] == ["model.safetensors"]


def test_tied_weights_are_saved_once_and_tied_again(tmp_path):
    def tied(seed):
        torch.manual_seed(seed)
        made = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 4))
        made[2].weight = made[0].weight
        return made

    given = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    whole = trainer_of(tmp_path, student=tied(1), **given)
    whole.train()
    resumed = trainer_of(tmp_path, student=tied(2), **given)
    resumed.train(resume_from_checkpoint=tmp_path / "checkpoint-2")
    student = resumed.distillation.student
    assert student[2].weight is student[0].weight
    assert torch.equal(student[0].weight, whole.distillation.student[0].weight)


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
        ({"auto_find_batch_size": True}, "auto_find"),
        ({"neftune_noise_alpha": 5.0}, "neftune"),
    ],
)
def test_arguments_that_would_change_the_objective(tmp_path, given, name, refused):
    with refused(ParameterError, name, "cannot be used for distillation: "):
        trainer_of(tmp_path, **given)


def test_what_is_missing(tmp_path, refused):
    with refused(ParameterError, "objective=None", "says what is trained"):
        DistillationTrainer(network(1), network(2), args=arguments(tmp_path))
    with refused(ParameterError, "args=None", "output_dir"):
        DistillationTrainer(network(1), network(2), OBJECTIVE)


@pytest.mark.parametrize("name", ["loss", "step", "kl", "accuracy", "learning_rate"])
def test_names_that_the_log_uses_itself(tmp_path, name, refused):
    with refused(ParameterError, rf"\['{name}'\]", "other names"):
        trainer_of(tmp_path, objective=tl.Objective({name: tl.Term(tl.ForwardKL())}))


def test_the_arguments_are_not_touched(tmp_path):
    args = arguments(tmp_path, max_steps=1)
    trainer = DistillationTrainer(network(1), network(2), OBJECTIVE, args, train_dataset=make_rows())
    assert args.remove_unused_columns
    assert not trainer.args.remove_unused_columns
    assert not trainer.args.logging_nan_inf_filter
    assert args.data_seed is None
    assert trainer.args.data_seed == args.seed
