"""The student with all that it is trained by: from a batch to the loss and its parts.

Inside, and so saved and optimised: the student and the projectors of feature terms. Outside: the teachers.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.distributions import Distribution, HeadStates, Labels, Logits
from tutelage.errors import (
    CompatibilityError,
    DataError,
    LayerError,
    ModelError,
    ModuleError,
    ParameterError,
    ShapeError,
    TeacherError,
)
from tutelage.execution import as_student, exact_dtype
from tutelage.features import Taps, find_layer, tapped
from tutelage.networks import (
    LIKE_LABELS,
    check_mode,
    check_outputs,
    check_own_losses,
    config_of,
    keep_bare_names,
    reads,
)
from tutelage.objective import FeatureTerm, Objective, Term
from tutelage.tasks import (
    Classification,
    Task,
    batch_length,
    call,
    check_one_each,
    check_teacher,
    read_alike,
    right_padded,
    warn_of_unmasked_padding,
)
from tutelage.teachers import ClassOrder, LiveTeacher, class_order
from tutelage.vocabulary import VocabularyMap

# What trainers ask a model for, and the student knows. Not its embeddings: accelerate would shard those, and the head,
# as units of their own, and the head is read here and never called.
_ASKED_OF_THE_STUDENT = frozenset(
    {
        "_no_split_modules",
        "activation_checkpointing_disable",
        "activation_checkpointing_enable",
        "config",
        "device",
        "dtype",
        "enable_input_require_grads",
        "generate",
        "gradient_checkpointing_disable",
        "gradient_checkpointing_enable",
        "hf_device_map",
        "main_input_name",
        "tie_weights",
    }
)


class DistillationModel(nn.Module):
    """A student, its teachers and an objective: called with a batch, it returns the loss and its parts.

    student: any `nn.Module`; teachers: {name: nn.Module}, frozen and in eval mode at every call, no part of
    `state_dict`, `parameters` or `train`; objective: what is trained; task: what a batch means; vocabulary: which
    outcomes the two sides share, where they differ. Projectors of feature terms are trained and saved with the
    student, and are no part of `model.student`. Without a vocabulary, classes that have names on both sides
    (`id2label`) are compared by name, and other names are refused. State is given and taken by the names that weights
    have without `torch.compile`. Errors: `ModuleError`, `ModelError`, `TeacherError`, `LayerError`,
    `CompatibilityError`, `ParameterError`.

    >>> import torch, tutelage as tl
    >>> student, teacher = torch.nn.Linear(8, 3), torch.nn.Linear(8, 3)
    >>> objective = tl.Objective({
    ...     "soft": tl.Term(tl.ForwardKL(), temperature=2.0),
    ...     "hard": tl.Term(tl.ForwardKL(), teacher="labels"),
    ... })
    >>> model = tl.DistillationModel(student, {"teacher": teacher}, objective)
    >>> out = model(inputs=torch.randn(4, 8), labels=torch.tensor([0, 2, -100, -100]))   # two rows have no label
    >>> out["loss"].backward()
    >>> sorted(out["parts"]), sorted(model.state_dict())
    (['hard', 'soft'], ['student.bias', 'student.weight'])
    """

    # Trainers divide by the number of micro-batches unless a model says that it normalises over the whole step itself.
    accepts_loss_kwargs = True
    _keys_to_ignore_on_save = None

    def __init__(
        self,
        student: nn.Module,
        teachers: Mapping[str, nn.Module | LiveTeacher],
        objective: Objective,
        task: Task | None = None,
        vocabulary: VocabularyMap | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(student, nn.Module):
            raise ModuleError(f"the student is {type(student).__name__}; expected a torch.nn.Module")
        if not isinstance(objective, Objective):
            raise CompatibilityError(f"the objective is {type(objective).__name__}; expected an Objective of terms")
        if not isinstance(teachers, Mapping):
            raise TeacherError(f"the teachers are {type(teachers).__name__}; expected them by name, {{'teacher': ...}}")
        self.student = student
        self.objective = objective
        self.task: Task = Classification() if task is None else task
        self.task.check(student)
        check_mode("the student", student, is_trained=True)
        self.vocabulary = vocabulary
        # A dictionary and not a ModuleDict: what is registered is trained, saved, and set to training mode.
        self.teachers = {
            name: teacher if isinstance(teacher, LiveTeacher) else LiveTeacher(teacher)
            for name, teacher in teachers.items()
        }
        for name, teacher in self.teachers.items():
            teacher.check_apart_from(name, student)
            check_teacher(self.task, name, teacher.module)
        self._check_teachers()
        self.compares_classes = self._check_outputs()
        self._orders = {} if vocabulary is not None else self._class_orders()
        self.projectors = nn.ModuleDict(self._projectors())
        keep_bare_names(self)

    def __getattr__(self, name: str) -> Any:
        # Trainers take any configuration for one of transformers, and write into it.
        if name in _ASKED_OF_THE_STUDENT and (name != "config" or config_of(self.student) is not None):
            return getattr(self.student, name)
        return super().__getattr__(name)

    def forward(self, normalizer: Mapping[str, Tensor | float] | None = None, **batch: Any) -> dict[str, Any]:
        """Return {"loss", "parts": {term: value}, "logits"}, and in eval mode both sides.

        The sides are "student" and "teachers" {name: ...}, as logits or distributions.

        normalizer: {term: what its sum over rows is divided by}, the sum of `term_counts` over all micro-batches and
        ranks of a step; the local count where it is left out. The parts of the micro-batches then sum to the step's.
        "logits" are there unless the student's never exist as a whole. Rows of tokens that are padded on the left are
        moved to the right (`tasks.right_padded`), and what is returned of them is in that order.
        """
        if self.training:
            # A model that is only evaluated may be made of a teacher.
            check_own_losses("the student", self.student)
        if not self.task.compares_rows:
            warn_of_unmasked_padding(self.student, [teacher.module for teacher in self.teachers.values()], batch)
            batch = right_padded(batch)
        inputs = self.task.inputs(batch)
        terms = self._feature_terms()
        with tapped("student", self.student, [term.student_layer for term in terms.values()]) as student_taps:
            output = call(self.student, inputs, "the student")
        side = self.task.student(output)
        if self.task.compares_rows:
            check_one_each(as_student(side).batch_shape[0], batch)
        teachers, taps = self._ask_teachers(inputs)
        labels, known = self._targets(batch, side)
        counts = self.task.weights(batch)
        unlabelled = {} if counts is None else dict.fromkeys(self.objective.terms, counts)
        outcome = self.objective(
            side,
            {**teachers, "labels": labels},
            features={name: self._pair(name, student_taps, taps[term.teacher], inputs) for name, term in terms.items()},
            token_weights={**unlabelled, **dict.fromkeys(self.labelled_terms(), known)},
            normalizer=normalizer,
            vocabulary=self.vocabulary,
        )
        result: dict[str, Any] = {"loss": outcome.loss, "parts": outcome.parts}
        logits = side.values if isinstance(side, Logits) else side
        if isinstance(logits, Tensor):
            result["logits"] = logits if self.training else logits.detach()
        if not self.training:
            result["student"], result["teachers"] = side, teachers
        return result

    def term_counts(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return what each term's sum is divided by as far as one micro-batch goes: labelled rows, or all that count.

        Sum it over the micro-batches and ranks of a step and pass it to each call as the normalizer.
        """
        if not self.task.compares_rows:
            batch = right_padded(batch)
        _, known = self.task.targets(batch)
        counts = self.task.weights(batch)
        device = next((value.device for value in batch.values() if isinstance(value, Tensor)), torch.device("cpu"))
        exact = exact_dtype(device)
        if counts is None:
            every = torch.full((), batch_length(batch), dtype=exact, device=device)
        else:
            every = counts.sum(dtype=exact)
        labelled = torch.zeros_like(every) if known is None else known.sum(dtype=every.dtype)
        with_labels = self.labelled_terms()
        return {name: labelled if name in with_labels else every for name in self.objective.terms}

    def combine(self, parts: Mapping[str, float]) -> float:
        """Return the loss that parts amount to: each times its weight and, where the term has it, its T²."""
        factors = {n: t.factor if isinstance(t, Term) else t.weight for n, t in self.objective.terms.items()}
        return sum(factors[name] * value for name, value in parts.items())

    # --- what the objective asks for ----------------------------------------------------------------------------------

    def _feature_terms(self) -> dict[str, FeatureTerm]:
        return {name: term for name, term in self.objective.terms.items() if isinstance(term, FeatureTerm)}

    def labelled_terms(self) -> list[str]:
        """Return the names of the terms in which a row without a label does not count."""
        return [
            name
            for name, term in self.objective.terms.items()
            if isinstance(term, Term) and (term.teacher == "labels" or term.divergence.needs_labels)
        ]

    def _targets(self, batch: Mapping[str, Any], side: Tensor | Logits | HeadStates) -> tuple[Labels, Tensor]:
        labels, known = self.task.targets(batch)
        if labels is not None and known is not None:
            return labels, known
        self._check_unlabelled(batch)
        shape = as_student(side).batch_shape
        device = next(as_student(side).tensors())[1].device
        return Labels(torch.zeros(shape, dtype=torch.int64, device=device)), torch.zeros(shape, device=device)

    def unread(self, batch: Mapping[str, Any]) -> list[str]:
        """Return the columns of a batch that neither the task nor any network reads, though no network refuses them."""
        networks = [self.student, *(teacher.module for teacher in self.teachers.values())]
        return [name for name in self.task.inputs(batch) if not any(reads(network, name) for network in networks)]

    def _check_unlabelled(self, batch: Mapping[str, Any]) -> None:
        """Raise `DataError` for a batch whose labels have another name."""
        needed = [name for name in self.labelled_terms() if self.objective.terms[name].weight > 0]
        if "labels" in batch or not needed or not any(name in batch for name in LIKE_LABELS):
            return
        if like := [name for name in self.unread(batch) if name in LIKE_LABELS]:
            raise DataError(
                f"the batch has no 'labels', which the terms {needed} need, and {like[0]!r}, which no network reads; "
                "expected labels by that name, None or -100 in rows without: rename the column"
            )

    def _ask_teachers(self, inputs: dict[str, Any]) -> tuple[dict[str, Tensor | Distribution], dict[str, Taps]]:
        """Return each teacher's distribution, and what its tapped layers gave.

        In training those that a term names are asked; in eval mode all of them, so that the student can be compared
        with a teacher that it does not learn from.
        """
        terms = self.objective.terms.values()
        compared = {term.teacher for term in terms if isinstance(term, Term)}
        tapped_only = {term.teacher for term in terms if isinstance(term, FeatureTerm)} - compared
        sides: dict[str, Tensor | Distribution] = {}
        taps: dict[str, Taps] = {}
        for name, teacher in self.teachers.items():
            if self.training and name not in compared | tapped_only:
                continue
            paths = [term.teacher_layer for term in self._feature_terms().values() if term.teacher == name]
            with ExitStack() as stack:
                network = stack.enter_context(teacher.asked(inputs))
                taps[name] = stack.enter_context(tapped(f"teacher {name!r}", network, paths))
                output = call(network, inputs, f"the teacher {name!r}")
            # A teacher that is only tapped may be a backbone, without logits.
            if name not in tapped_only:
                sides[name] = self.task.teacher(output)
                _check_there(name, sides[name])
                if name in self._orders:
                    sides[name] = self._orders[name].applied(sides[name])
        return sides, taps

    def _pair(self, name: str, student: Taps, teacher: Taps, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        term = self._feature_terms()[name]
        activation, ids = student[term.student_layer], inputs.get("input_ids")
        is_of_tokens = isinstance(ids, Tensor) and activation.dim() > 2 and activation.shape[:2] == ids.shape
        if is_of_tokens and not read_alike(self.student, self.teachers[term.teacher].module, inputs):
            raise ShapeError(
                f"the term {name!r} compares activations of tokens, and the student reads the padded rows of the batch "
                f"at other places than the teacher {term.teacher!r}; expected rows padded on the right, or of one "
                "length, or layers with one value for each row"
            )
        if name in self.projectors:
            activation = self.projectors[name](activation)
        return activation, teacher[term.teacher_layer]

    # --- what can be known before the first batch ---------------------------------------------------------------------

    def _check_teachers(self) -> None:
        if "labels" in self.teachers:
            raise TeacherError("a teacher is named 'labels'; expected another name: that one stands for the labels")
        for name, term in self.objective.terms.items():
            if term.teacher == "labels" and isinstance(term, Term):
                continue
            if term.teacher not in self.teachers:
                raise TeacherError(
                    f"term {name!r} wants the teacher {term.teacher!r}; the model has {sorted(self.teachers)}: pass "
                    "it by that name, or name another in the term"
                )
            if isinstance(term, FeatureTerm):
                if not self.task.compares_rows:
                    raise CompatibilityError(
                        f"term {name!r} compares activations, and the task {type(self.task).__name__} tokens; expected "
                        "a task of whole rows: which tokens of an activation count is not known here yet"
                    )
                find_layer("student", self.student, term.student_layer)
                find_layer(f"teacher {term.teacher!r}", self.teachers[term.teacher].module, term.teacher_layer)

    def _check_outputs(self) -> bool:
        """Return whether a softmax may compare the outputs; raise `ModelError` where it may not and a term does so."""
        terms = [term for term in self.objective.terms.values() if isinstance(term, Term)]
        compared = {term.teacher for term in terms}
        try:
            check_outputs("the student", self.student)
            for name, teacher in self.teachers.items():
                if name in compared:
                    check_outputs(f"the teacher {name!r}", teacher.module)
        except ModelError:
            if any(term.divergence.temperature_power != 0 or term.teacher == "labels" for term in terms):
                raise
            return False
        return True

    def _class_orders(self) -> dict[str, ClassOrder]:
        """Return what puts a teacher's classes into the student's order, for the teachers that need it."""
        orders = {name: class_order(name, teacher.module, self.student) for name, teacher in self.teachers.items()}
        return {name: order for name, order in orders.items() if order is not None}

    def _projectors(self) -> dict[str, nn.Module]:
        found = {}
        for name, term in self._feature_terms().items():
            if term.projector is None:
                continue
            if not isinstance(term.projector, nn.Module):
                raise LayerError(
                    f"the projector of term {name!r} is {term.projector!r}; expected a torch.nn.Module, such as "
                    "torch.nn.Linear(student width, teacher width), or None: projectors by name are not there yet"
                )
            if "." in name:
                raise ParameterError(f"the term {name!r} has a projector and a dot in its name; expected no dot in it")
            found[name] = term.projector
        return found


def _check_there(name: str, side: Tensor | Distribution) -> None:
    """Raise `TeacherError` for a head that was gathered for the teacher's forward and given up at its end."""
    if isinstance(side, HeadStates) and side.weight.numel() and not side.weight.untyped_storage().nbytes():
        raise TeacherError(
            f"the head of the teacher {name!r} was sharded again before it was read; expected it to stay until then: "
            "fully_shard(teacher, reshard_after_forward=False), whatever its layers do"
        )
