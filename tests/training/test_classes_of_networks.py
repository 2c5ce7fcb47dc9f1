"""Classes are compared by name, whatever their order; outputs that are no classes are refused, as recipes do."""

import copy
import logging

import pytest
import torch
import transformers
from torch import nn
from training_helpers import arguments, lines_of

import tutelage as tl
from tutelage.errors import CompatibilityError, ModelError, ShapeError
from tutelage.networks import class_places
from tutelage.tasks import Classification, SequenceClassification, TokenClassification
from tutelage.teachers import ClassOrder
from tutelage.training import DistillationTrainer

SIZES = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
SIZES |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
NAMES = ("ant", "bee", "cat", "dog")
SWAPPED = ("cat", "ant", "dog", "bee")
OBJECTIVE = tl.Objective(
    {
        "soft": tl.Term(tl.ForwardKL(), temperature=2.0, weight=0.7),
        "hard": tl.Term(tl.ForwardKL(), teacher="labels", weight=0.3),
    }
)
ROWS = {
    "Sequence": [{"input_ids": torch.arange(5) + row, "labels": row % 4} for row in range(8)],
    "Token": [
        {
            "input_ids": torch.arange(5) + row,
            "attention_mask": torch.ones(5).long(),
            "labels": (torch.arange(5) + row) % 4,
        }
        for row in range(8)
    ],
}


def bert(what, seed, names=NAMES, **changes):
    torch.manual_seed(seed)
    config = transformers.BertConfig(**SIZES, id2label=dict(enumerate(names)), **changes)
    model = getattr(transformers, f"BertFor{what}Classification")(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def reordered(model, names):
    """The same model with its classes in another order: their rows in its head, and their names."""
    model = copy.deepcopy(model)
    places = [NAMES.index(name.lower()) for name in names]
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.copy_(parameter[places])
    model.config.id2label = dict(enumerate(names))
    return model


def one_step(folder, what, student, teacher, **given):
    """Train on all rows once; return the losses, the gradient (plain SGD at 1), and an evaluation after it."""
    student = copy.deepcopy(student)
    before = {name: value.clone() for name, value in student.named_parameters()}
    settings = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0, "lr_scheduler_type": "constant"}
    settings |= {"per_device_train_batch_size": 8, "max_steps": 1, "train_sampling_strategy": "sequential"}
    trainer = DistillationTrainer(
        student,
        teacher,
        OBJECTIVE,
        arguments(folder, **settings),
        train_dataset=ROWS[what],
        eval_dataset=ROWS[what],
        **given,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    evaluated = trainer.evaluate()
    trainer.train()
    gradient = {name: before[name] - value for name, value in student.named_parameters()}
    return lines_of(trainer)[0], gradient, evaluated


@pytest.mark.parametrize("what", ROWS)
@pytest.mark.parametrize("names", [SWAPPED, tuple(name.upper() for name in SWAPPED)], ids=["exact", "case"])
def test_the_same_classes_in_another_order_are_compared_by_name(tmp_path, caplog, what, names):
    student, teacher = bert(what, 1), bert(what, 2)
    expected = one_step(tmp_path, what, student, teacher)
    with caplog.at_level(logging.WARNING, logger="tutelage"):
        found = one_step(tmp_path, what, student, reordered(teacher, names))
    said = [record.getMessage() for record in caplog.records if "in another order" in record.getMessage()]
    assert len(said) == 1
    assert f"the teacher 'teacher' {list(names)}" in said[0]
    assert str(list(NAMES)) in said[0]
    for name in ("loss", "soft", "hard"):
        assert found[0][name] == pytest.approx(expected[0][name], rel=1e-6), name
    for name, value in expected[1].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-5, atol=1e-6)
    for name in ("eval_loss", "eval_kl", "eval_agreement", "eval_accuracy"):
        assert found[2][name] == pytest.approx(expected[2][name], rel=1e-6), name


@pytest.mark.parametrize("name", ["{}", "LABEL_{}"])
def test_numbers_in_another_order_are_names(tmp_path, name):
    """Alone they say nothing; a teacher that has the student's own in another order was trained on other numbers."""
    student, teacher = bert("Sequence", 1), bert("Sequence", 2)
    expected = one_step(tmp_path, "Sequence", student, teacher)
    student.config.id2label = dict(enumerate(name.format(place) for place in range(len(NAMES))))
    teacher = reordered(teacher, SWAPPED)
    teacher.config.id2label = dict(enumerate(name.format(NAMES.index(swapped)) for swapped in SWAPPED))
    found = one_step(tmp_path, "Sequence", student, teacher)
    assert found[0]["soft"] == pytest.approx(expected[0]["soft"], rel=1e-6)


def test_each_of_two_teachers_has_its_own_order(refused):
    student = bert("Sequence", 1)
    first = bert("Sequence", 2)
    terms = {name: tl.Term(tl.ReverseKL(), teacher=name) for name in ("one", "other")}
    batch = {"input_ids": torch.arange(20).reshape(4, 5)}
    parts = []
    for teachers in (
        {"one": first, "other": copy.deepcopy(first)},
        {"one": reordered(first, SWAPPED), "other": copy.deepcopy(first)},
        {"one": copy.deepcopy(first), "other": nn.DataParallel(reordered(first, SWAPPED))},
    ):
        model = tl.DistillationModel(student, teachers, tl.Objective(terms), SequenceClassification())
        parts.append({name: float(value) for name, value in model(**batch)["parts"].items()})
    assert parts[1] == pytest.approx(parts[0], rel=1e-6)
    assert parts[2] == pytest.approx(parts[0], rel=1e-6)


def test_an_order_is_applied_to_logits_alone_and_asks_the_device_for_nothing(refused):
    order = ClassOrder("big", [2, 0, 1])
    assert order.applied(torch.empty(4, 3, device="meta")).shape == (4, 3)  # meta tensors have no value to ask for
    scaled = order.applied(tl.Logits(torch.tensor([[1.0, 2.0, 3.0]]), scale=0.5))
    assert (scaled.values.tolist(), scaled.scale) == ([[3.0, 1.0, 2.0]], 0.5)
    with refused(CompatibilityError, "'big' has the student's classes in another order and returned TopK", "Vocab"):
        order.applied(tl.TopK(torch.zeros(1, 2).long(), torch.zeros(1, 2), tail="renormalize"))


class Wrapped(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, **inputs):
        return self.network(**inputs).logits


@pytest.mark.parametrize("what", ROWS)
def test_other_names_are_refused(tmp_path, refused, what):
    student, others = bert(what, 1), bert(what, 2, ("ant", "bee", "cat", "eel"))
    for teacher in (others, torch.compile(others, backend="eager"), Wrapped(others), bert(what, 2, NAMES[:3])):
        with refused(ModelError, "'ant', 'bee', 'cat', 'dog'.*the teacher 'teacher'", "id2label.*VocabularyMap"):
            DistillationTrainer(student, teacher, OBJECTIVE, arguments(tmp_path))
    # Who says which columns belong together is believed.
    DistillationTrainer(student, others, OBJECTIVE, arguments(tmp_path), vocabulary=tl.VocabularyMap.prefix(4))


def test_an_order_that_a_wrapper_may_have_changed_is_asked_for(tmp_path, refused):
    student, teacher = bert("Sequence", 1), bert("Sequence", 2)
    wrapped = Wrapped(reordered(teacher, SWAPPED))
    with refused(ModelError, "in another order, and the teacher 'teacher' is wrapped", r"VocabularyMap\(.*prefix\(4\)"):
        DistillationTrainer(student, wrapped, OBJECTIVE, arguments(tmp_path))
    pairs = tl.VocabularyMap(range(4), [SWAPPED.index(name) for name in NAMES])
    found = one_step(tmp_path, "Sequence", student, wrapped, vocabulary=pairs)
    expected = one_step(tmp_path, "Sequence", student, teacher)
    for name in ("loss", "soft", "hard"):
        assert found[0][name] == pytest.approx(expected[0][name], rel=1e-6), name


@pytest.mark.parametrize("names", [("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"), ("0", "1", "2", "3")], ids=str)
def test_placeholders_say_nothing(tmp_path, caplog, names):
    with caplog.at_level(logging.WARNING, logger="tutelage"):
        DistillationTrainer(bert("Sequence", 1, names), bert("Sequence", 2), OBJECTIVE, arguments(tmp_path))
        DistillationTrainer(nn.Linear(3, 4), nn.Linear(3, 4), OBJECTIVE, arguments(tmp_path))
    assert caplog.text == ""


def test_places_of_classes():
    assert class_places(["a", "A"], ["A", "a"]) == [1, 0]
    assert class_places(["a", "b"], ["B", "A"]) == [1, 0]
    assert class_places(["a", "b"], ["a", "b", "c"]) is None
    assert class_places(["a", "b", "a"], ["A", "B", "A"]) == [0, 1, 2]
    assert class_places(["a", "b", "a"], ["a", "a", "b"]) is None


# --- outputs that are no classes --------------------------------------------------------------------------------------

ONE = "gives each row or token one class.*there is no task for others yet"
OTHERS = {
    "multi-label": (
        {"problem_type": "multi_label_classification"},
        "'multi_label_classification', where classes do not exclude each other",
        ONE,
    ),
    "regression": ({"problem_type": "regression"}, "'regression', whose outputs are numbers", ONE),
    "one output": ({"names": ("score",)}, r"one output \(num_labels=1\)", "LogitMSE"),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("wrap", [lambda x: x, Wrapped], ids=["bare", "wrapped"])
def test_heads_that_no_softmax_compares_are_refused(tmp_path, refused, kind, wrap):
    changes, came, expected = OTHERS[kind]
    odd = bert("Sequence", 2, **changes)
    with refused(ModelError, f"the student (is made for|has) {came}", expected):
        DistillationTrainer(wrap(odd), nn.Linear(3, 4), OBJECTIVE, arguments(tmp_path))
    with refused(ModelError, f"the teacher 'teacher' (is made for|has) {came}", expected):
        DistillationTrainer(bert("Sequence", 1), wrap(odd), OBJECTIVE, arguments(tmp_path))


@pytest.mark.parametrize("kind", [*OTHERS, "of one's own"])
def test_logits_of_such_heads_may_be_compared_by_their_squares(tmp_path, kind):
    """And an evaluation says nothing of classes: a softmax over one output is 1, whatever that is."""
    if kind in OTHERS:
        student, teacher = (bert("Sequence", seed, **OTHERS[kind][0]) for seed in (1, 2))
        rows = [{"input_ids": row["input_ids"]} for row in ROWS["Sequence"]]
        answers = [network(torch.stack([row["input_ids"] for row in rows])).logits for network in (student, teacher)]
    else:
        student, teacher = nn.Linear(6, 1), nn.Linear(6, 1)
        rows = [{"input": row} for row in torch.randn(8, 6)]
        answers = [network(torch.stack([row["input"] for row in rows])) for network in (student, teacher)]
    trainer = DistillationTrainer(
        student,
        teacher,
        tl.Objective({"soft": tl.Term(tl.LogitMSE())}),
        arguments(tmp_path),
        eval_dataset=rows,
        task=Classification(),
    )
    found = trainer.evaluate()
    expected = (answers[0] - answers[1]).square().mean().item()
    assert found["eval_soft"] == pytest.approx(expected, rel=1e-6)
    assert found["eval_loss"] == pytest.approx(expected, rel=1e-6)
    assert not {"eval_kl", "eval_agreement", "eval_accuracy"} & set(found)


# --- outputs that are not (rows, classes) -----------------------------------------------------------------------------


class Dense(nn.Module):
    """A class for each token, or each pixel."""

    def __init__(self, seed, shape):
        super().__init__()
        torch.manual_seed(seed)
        self.layer, self.shape = nn.Linear(6, 4), shape

    def forward(self, inputs):
        logits = self.layer(inputs)  # (B, L, V)
        if self.shape == "image":
            logits = logits.transpose(1, 2).unflatten(2, (2, 3))  # (B, C, H, W)
        return logits if self.shape != "vector" else logits[:, 0, 0]


def dense_rows(**columns):
    generator = torch.Generator().manual_seed(4)
    return [
        {"inputs": torch.randn(6, 6, generator=generator), **{n: v(i) for n, v in columns.items()}} for i in range(4)
    ]


@pytest.mark.parametrize(("shape", "came"), [("tokens", "(4, 6, 4)"), ("image", "(4, 4, 2, 3)"), ("vector", "(4,)")])
@pytest.mark.parametrize(
    "task", [None, Classification(), SequenceClassification()], ids=lambda task: type(task).__name__
)
@pytest.mark.parametrize("who", ["student", "teacher"])
def test_outputs_that_are_not_rows_are_refused(tmp_path, refused, shape, came, task, who):
    networks = {
        "student": nn.Sequential(nn.Flatten(), nn.Linear(36, 4)),
        "teacher": nn.Sequential(nn.Flatten(), nn.Linear(36, 4)),
    }
    networks[who] = Dense(1, shape)
    rows = dense_rows(labels=lambda row: row % 4)
    trainer = DistillationTrainer(
        networks["student"], networks["teacher"], OBJECTIVE, arguments(tmp_path), train_dataset=rows, task=task
    )
    message = rf"the {who} returned a tensor of shape {came}".replace("(", r"\(").replace(")", r"\)")
    for run in (trainer.train, lambda: trainer.evaluate(rows)):
        with refused(ShapeError, message, r"classes last.*TokenClassification\(\).*transpose"):
            run()


@pytest.mark.parametrize("labels", [lambda row: [row % 4], lambda row: [0, 1, 0, 0]], ids=["column", "one-hot"])
def test_labels_that_are_not_one_per_row_are_refused(tmp_path, refused, labels):
    rows = [{"inputs": torch.randn(6), "labels": torch.tensor(labels(row))} for row in range(4)]
    trainer = DistillationTrainer(nn.Linear(6, 4), nn.Linear(6, 4), OBJECTIVE, arguments(tmp_path), train_dataset=rows)
    for run in (trainer.train, lambda: trainer.evaluate(rows)):
        with refused(ShapeError, "the labels have shape", r"\(rows,\).*argmax\(-1\).*CausalLM\(\)"):
            run()


@pytest.mark.parametrize("rows", [2, 8], ids=str)
def test_as_many_distributions_as_rows(refused, rows):
    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, inputs):
            return self.layer(inputs).flatten(0, 1)[:rows]

    model = tl.DistillationModel(Folded(), {"teacher": Folded()}, tl.Objective({"soft": tl.Term(tl.ForwardKL())}))
    with refused(ShapeError, f"{rows} distributions for a batch of 4 rows", "one for each: "):
        model(inputs=torch.randn(4, 6, 6))


class Pixels(nn.Module):
    """What the error says to do about an image of classes."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs):
        return self.network(inputs).flatten(2).transpose(1, 2)


def test_pixels_train_as_positions(tmp_path):
    """The right value: the mean over all pixels, in training and in evaluation."""
    student, teacher = Dense(1, "image"), Dense(2, "image")
    rows = dense_rows(labels=lambda row: (torch.arange(6) + row) % 4, target_mask=lambda row: torch.ones(6).long())
    inputs, labels = torch.stack([row["inputs"] for row in rows]), torch.stack([row["labels"] for row in rows])
    with torch.no_grad():
        z, t = student(inputs).double(), teacher(inputs).double()
    soft = nn.functional.kl_div((z / 2).log_softmax(1), (t / 2).log_softmax(1), log_target=True, reduction="none")
    expected = {
        "soft": float(soft.sum(1).mean()),
        "hard": float(nn.functional.cross_entropy(z, labels.unflatten(1, (2, 3)))),
    }
    trainer = DistillationTrainer(
        Pixels(student),
        Pixels(teacher),
        OBJECTIVE,
        arguments(tmp_path, max_steps=1, per_device_train_batch_size=2, gradient_accumulation_steps=2),
        train_dataset=rows,
        eval_dataset=rows,
        task=TokenClassification(),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    evaluated = trainer.evaluate()
    trainer.train()
    for name, value in expected.items():
        assert lines_of(trainer)[0][name] == pytest.approx(value, rel=1e-6), name
        assert evaluated[f"eval_{name}"] == pytest.approx(value, rel=1e-6), name
