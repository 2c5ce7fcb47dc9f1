"""Eight texts of uneven lengths, a tiny student and teacher, and what a step is by plain transformers in float64."""

import copy

import torch
import torch.nn.functional as F
from training_helpers import arguments, lines_of
from transformers import PrinterCallback, TrainerCallback

import tutelage as tl
from tiny_texts import llama
from tutelage.data import CausalCollator, TokenRows
from tutelage.data._token_rows import Document
from tutelage.training import DistillationTrainer

OBJECTIVE = tl.Objective(
    {
        "soft": tl.Term(tl.ForwardKL(), temperature=2.0, weight=0.7),
        "hard": tl.Term(tl.ForwardKL(), teacher="labels", weight=0.3),
    }
)
EOS = 1
# How long the prompt is, and the whole text; the last token is the end, unless the text was cut off.
SIZES = [(3, 9), (1, 4), (5, 6), (2, 2), (1, 12), (4, 9), (2, 3), (1, 7)]
CUT_OFF = 5


def _document(number, prompt, length):
    ids = [(37 * number + 11 * place) % 390 + 5 for place in range(length)]
    ids[-1] = ids[-1] if number == CUT_OFF else EOS
    return Document(ids, [place >= prompt for place in range(length)])


DOCUMENTS = [_document(number, *sizes) for number, sizes in enumerate(SIZES)]
# The fourth has no target at all, and the second and the last have no label: there only the teacher speaks.
LABELLED = [True, False, True, True, True, True, True, False]
ROWS = TokenRows.of(DOCUMENTS).with_labels(LABELLED)
COLLATE = CausalCollator(pad_id=0)


def student(**changes):
    return llama(1, **{"tie_word_embeddings": True, **changes})


def teacher(seed=2, **changes):
    return llama(seed, **changes)


def truth(network, teachers=None, rows=ROWS, terms=(("soft", "teacher", 2.0, 0.7),), hard=0.3):
    """The parts of a step over all rows, and the gradient: row by row without padding, logits whole, in float64."""
    network = copy.deepcopy(network).double()
    teachers = {"teacher": teacher()} if teachers is None else teachers
    teachers = {name: copy.deepcopy(each).double().eval() for name, each in teachers.items()}
    sums = dict.fromkeys([*(name for name, *_ in terms), "hard"], torch.zeros((), dtype=torch.float64))
    compared = labelled = 0
    for row in rows:
        ids, targets = row["input_ids"][None], row["target_mask"]
        z = network(input_ids=ids).logits[0]
        with torch.no_grad():
            answers = {name: each(input_ids=ids).logits[0] for name, each in teachers.items()}
        for place in range(1, ids.shape[1]):
            if not targets[place]:
                continue
            compared += 1
            for name, of, temperature, _ in terms:
                log_q = F.log_softmax(z[place - 1] / temperature, -1)
                log_p = F.log_softmax(answers[of][place - 1] / temperature, -1)
                sums[name] = sums[name] + (log_p.exp() * (log_p - log_q)).sum()
            if row["labels"][place] != -100:
                labelled += 1
                sums["hard"] = sums["hard"] + F.cross_entropy(z[place - 1][None], ids[0, place][None])
    parts = {name: value / (labelled if name == "hard" else compared) for name, value in sums.items()}
    loss = hard * parts["hard"] + sum(weight * t**2 * parts[name] for name, _, t, weight in terms)
    loss.backward()
    gradient = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return {"loss": loss.item(), **{name: value.item() for name, value in parts.items()}}, gradient


class Gradients(TrainerCallback):
    """Keeps the gradient of the first step, as the optimizer is about to get it."""

    def __init__(self, trainer):
        self.trainer, self.kept = trainer, {}

    def on_pre_optimizer_step(self, args, state, control, **given):
        if not self.kept:
            named = self.trainer.distillation.student.named_parameters()
            self.kept = {name.removeprefix("model."): p.grad.clone() for name, p in named if p.grad is not None}


def trainer_of(folder, network=None, teachers=None, rows=ROWS, objective=OBJECTIVE, **given):
    passed = {"data_collator": COLLATE, "task": None, "vocabulary": None, "eval_dataset": None}
    passed = {name: given.pop(name, value) for name, value in passed.items()}
    passed["processing_class"] = given.pop("processing_class", None)
    settings = {"optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0, "learning_rate": 0.1}
    settings |= {"train_sampling_strategy": "sequential", "per_device_train_batch_size": 8}
    if not isinstance(network, tl.DistillationModel):
        passed |= {"teacher": teacher() if teachers is None else teachers, "objective": objective}
    trainer = DistillationTrainer(
        model=student() if network is None else network,
        args=arguments(folder, **{**settings, **given}),
        train_dataset=rows,
        **passed,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def one_step(folder, network=None, teachers=None, size=8, accumulation=1, **given):
    """The logged line and the gradient of a step over all rows."""
    given |= {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    trainer = trainer_of(folder, network, teachers, **given)
    gradients = Gradients(trainer)
    trainer.add_callback(gradients)
    trainer.train()
    return lines_of(trainer)[0], gradients.kept


def check(found, expected, tolerance=1e-5):
    """A step's line and gradient against the truth, relative to the largest entry of each tensor."""
    (line, gradient), (parts, wanted) = found, expected
    for name, value in parts.items():
        assert abs(line[name] - value) <= tolerance * max(abs(value), 1e-3), (name, line[name], value)
    assert gradient.keys() == wanted.keys()
    for name, value in wanted.items():
        error = float((gradient[name].double() - value).abs().max() / value.abs().max())
        assert error <= tolerance, (name, error)
