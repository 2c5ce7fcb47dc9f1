"""Door 2: ready-made modules on tensors, called with (student, teacher, labels). No formula stands in them.

Each fills in the terms of an `Objective`. Values are means over the rows, so a batch is the mean of its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from tutelage.distributions import Distribution, Labels, Logits, Mixture, check_shares, check_temperature, shares_of
from tutelage.divergences import Divergence, ForwardKL, LogitCosine, LogitMSE
from tutelage.errors import CompatibilityError, EmptyInputError, LabelError, ParameterError, ShapeError, WeightError
from tutelage.execution import dense_logits
from tutelage.objective import Objective, Term, check_widths
from tutelage.parameters import real, refusal, whole

Loss = Divergence | Term | Sequence[Term]
"""What a module accepts as its loss: a divergence, a `Term` with its temperature and weight, or a list of them."""


def _terms(loss: object) -> list[Term]:
    if isinstance(loss, Divergence):
        return [Term(loss)]
    if isinstance(loss, Term):
        return [loss]
    if not isinstance(loss, Sequence):
        hint = f"; add parentheses: {loss.__name__}()" if isinstance(loss, type) else ""
        raise CompatibilityError(f"the loss is {loss!r}; expected a divergence, a Term, or a list of Terms{hint}")
    terms = list(loss)
    if not terms:
        raise EmptyInputError("the list of terms is empty; give at least one Term")
    for term in terms:
        if not isinstance(term, Term):
            raise CompatibilityError(f"the loss holds {term!r}; expected a divergence, a Term, or a list of Terms")
    return terms


def _response(
    soft: Sequence[Term], hard_weight: float, student: Tensor, teacher: Tensor | Mixture, labels: Tensor | None
) -> Tensor:
    """Return the sum of soft terms and the cross-entropy; terms of weight 0 are left out, not even looked at."""
    terms = {f"soft{i}": replace(term, teacher="teacher") for i, term in enumerate(soft) if term.weight}
    if hard_weight:
        terms["hard"] = Term(ForwardKL(), teacher="labels", weight=hard_weight)
    if labels is None and hard_weight:
        raise LabelError(f"labels=None, but the cross-entropy to them has weight {hard_weight:g}; pass labels, int64")
    teachers: dict[str, Tensor | Distribution] = {"teacher": teacher}
    if labels is not None:
        teachers["labels"] = Labels(labels)
    return Objective(terms)(student, teachers).loss


def _share(name: str, value: object) -> float:
    """Return a share as a Python number, of which 1 less the share keeps its digits."""
    share = real(value)
    if share is None or not 0 <= share <= 1:
        raise ParameterError(f"{name}={value!r}: expected a share in [0, 1]{refusal(value)}")
    return share


def _count(where: str, value: object, what: str) -> int:
    count = whole(value)
    if count is None or count < 1:
        raise ParameterError(f"{where}({value!r}): expected a number of {what} >= 1")
    return count


def _weights(where: str, given: object, equal: str) -> Sequence[float]:
    """Return a list of weights as it was given, or say how equal ones are asked for."""
    if (not isinstance(given, Sequence) and getattr(given, "ndim", 0) != 1) or isinstance(given, str):
        raise WeightError(f"{where}({given!r}): expected a list of weights; for n equal ones, {equal}")
    return cast(Sequence[float], given)


class DistillationLoss(nn.Module):
    """The classic distillation loss: a softened divergence to the teacher and the cross-entropy to the labels.

    `alpha T² divergence(softmax(t/T), softmax(z/T)) + (1 - alpha) CE(z, labels)`, t the teacher's logits, z the
    student's; alpha is the weight of the soft term. Shapes (..., V), (..., V), labels (...) int64 -> ().
    Errors: `ParameterError` unless temperature > 0 and 0 <= alpha <= 1; on the call subclasses of `InputError`.

    >>> import torch, tutelage as tl
    >>> loss = tl.DistillationLoss(temperature=2.0, alpha=0.7)
    >>> student, teacher = torch.tensor([[2.0, 1.0, 0.5]]), torch.tensor([[1.5, 1.2, 0.8]])
    >>> round(loss(student, teacher, torch.tensor([0])).item(), 7)
    0.1869891

    Paper: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network".
    """

    def __init__(self, temperature: float = 4.0, alpha: float = 0.7, divergence: Divergence = ForwardKL()) -> None:
        super().__init__()
        self.temperature, self.alpha, self.divergence = temperature, alpha, divergence
        self._soft()

    def _soft(self) -> Term:
        """Return the soft term of the attributes as they are: a schedule may have changed them."""
        return Term(self.divergence, weight=_share("alpha", self.alpha), temperature=self.temperature)

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss, mean over rows; labels may be left out at alpha = 1."""
        soft = self._soft()
        return _response([soft], 1 - soft.weight, student, teacher, labels)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, alpha={self.alpha}, divergence={self.divergence}"


class ResponseDistiller(nn.Module):
    """Any soft loss and the cross-entropy, each with a weight of its own.

    `hard_label_weight CE(z, labels) + soft_label_weight soft_loss(z, t)`, t the teacher's logits, z the student's. The
    weights need not sum to 1. soft_loss: a divergence, a `Term` (temperature, T² and weight), or a list of terms.
    Shapes (..., V), (..., V), labels (...) int64 -> (). Errors: `ParameterError`; on the call `InputError`.

    >>> import torch, tutelage as tl
    >>> distiller = tl.ResponseDistiller.balanced()
    >>> student, teacher = torch.tensor([[2.0, 1.0, 0.5]]), torch.tensor([[1.5, 1.2, 0.8]])
    >>> round(distiller(student, teacher, torch.tensor([0])).item(), 4)
    0.2653
    """

    def __init__(
        self, soft_loss: Loss = ForwardKL(), hard_label_weight: float = 0.5, soft_label_weight: float = 0.5
    ) -> None:
        super().__init__()
        terms = _terms(soft_loss)
        self.soft_loss = soft_loss
        self.hard_label_weight, _ = check_shares("hard_label_weight", [hard_label_weight, 1.0])
        self.soft_label_weight, _ = check_shares("soft_label_weight", [soft_label_weight, 1.0])
        if self.hard_label_weight == 0 and self.soft_label_weight * sum(term.weight for term in terms) == 0:
            raise WeightError("the weights of the hard and the soft part are both 0; nothing would be trained")

    @classmethod
    def pure_kl(cls, temperature: float = 4.0) -> ResponseDistiller:
        """Return the distiller of T² times the forward KL alone."""
        return cls(Term(ForwardKL(), temperature=temperature), hard_label_weight=0.0, soft_label_weight=1.0)

    @classmethod
    def balanced(cls) -> ResponseDistiller:
        """Return the distiller with half the weight on each part, at temperature 4."""
        return cls(Term(ForwardKL(), temperature=4.0), hard_label_weight=0.5, soft_label_weight=0.5)

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss, mean over rows; labels may be left out if they have weight 0."""
        soft = [replace(term, weight=self.soft_label_weight * term.weight) for term in _terms(self.soft_loss)]
        return _response(soft, self.hard_label_weight, student, teacher, labels)

    def extra_repr(self) -> str:
        return (
            f"soft_loss={self.soft_loss}, hard_label_weight={self.hard_label_weight}, "
            f"soft_label_weight={self.soft_label_weight}"
        )


class FeatureDistiller(nn.Module):
    """A weighted sum of losses between the activations of paired layers.

    `sum_i weight_i loss_i(student_i, teacher_i)`, each loss over the last dimension, mean over the others. The weights
    are used as they are given. Features: two lists of tensors, (..., D_i) on both sides.
    Errors: `EmptyInputError`, `WeightError`; on the call `ShapeError` for lists of the wrong length, `InputError`.

    >>> import torch, tutelage as tl
    >>> distiller = tl.FeatureDistiller.uniform_mse(2)
    >>> zeros, ones = torch.zeros(4, 3), torch.ones(4, 3)
    >>> distiller([zeros, zeros], [ones, zeros]).item()
    0.5
    """

    def __init__(self, layers: Sequence[tuple[float, Loss]]) -> None:
        super().__init__()
        if not isinstance(layers, Sequence):
            raise CompatibilityError(
                f"FeatureDistiller({layers!r}): expected a list of (weight, loss), one for each layer; for n layers "
                "with the mean squared error, use FeatureDistiller.uniform_mse(n)"
            )
        if not layers:
            raise EmptyInputError("FeatureDistiller([]): give at least one layer")
        for layer in layers:
            if not isinstance(layer, tuple) or len(layer) != 2:
                raise CompatibilityError(f"FeatureDistiller got the layer {layer!r}; expected pairs of (weight, loss)")
        self.weights = list(check_shares("layer weights", [weight for weight, _ in layers]))
        self.losses = [_terms(loss) for _, loss in layers]

    @classmethod
    def uniform_mse(cls, n_layers: int) -> FeatureDistiller:
        """Return the distiller that averages the mean squared error over n layers."""
        count = _count("uniform_mse", n_layers, "layers")
        return cls.with_weights([1 / count] * count, LogitMSE())

    @classmethod
    def with_weights(cls, weights: Sequence[float], loss: Loss) -> FeatureDistiller:
        """Return the distiller with one weight per layer and the same loss on each."""
        return cls([(weight, loss) for weight in _weights("with_weights", weights, "[1.0] * n")])

    @property
    def n_layers(self) -> int:
        """The number of layer pairs."""
        return len(self.weights)

    def normalize_weights(self) -> FeatureDistiller:
        """Return the same distiller with its weights as shares of their sum."""
        shares = shares_of(self.weights, self.n_layers)
        return FeatureDistiller(list(zip(shares, self.losses, strict=True)))

    def layer_loss(self, i: int, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of layer i, before its weight."""
        if not -self.n_layers <= i < self.n_layers:
            raise ParameterError(f"layer {i} does not exist; the distiller has layers 0 to {self.n_layers - 1}")
        check_widths(f"layer {i}", student, teacher)
        objective = Objective({f"term{j}": replace(term, teacher="teacher") for j, term in enumerate(self.losses[i])})
        return objective(student, {"teacher": teacher}).loss

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Return the weighted sum over all layers."""
        if len(student) != self.n_layers or len(teacher) != self.n_layers:
            raise ShapeError(
                f"{len(student)} student and {len(teacher)} teacher features came for {self.n_layers} layers; "
                "expected one each per layer"
            )
        pairs = enumerate(zip(student, teacher, strict=True))
        return torch.stack([self.weights[i] * self.layer_loss(i, s, t) for i, (s, t) in pairs]).sum()

    def extra_repr(self) -> str:
        return f"weights={self.weights}, losses={self.losses}"


class EnsembleDistiller(nn.Module):
    """Distillation from several teachers, whose logits or probabilities are averaged after the temperature.

    `alpha T² KL(mixture of the teachers at T || softmax(z/T)) + (1 - alpha) CE(z, labels)`, z the student's logits.
    weights: one >= 0 per teacher, used as shares of their sum; space: "logit" or "probability" (see `Mixture`).
    Called with (student, [teacher, ...], labels, alpha). Errors: `WeightError`, `ParameterError`, `EmptyInputError`; on
    the call `ShapeError` for another number of teachers, `InputError`.

    >>> import torch, tutelage as tl
    >>> ensemble = tl.EnsembleDistiller([1.0, 3.0], temperature=2.0)
    >>> ensemble.combine([torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 1.0]])])
    tensor([[2.5000, 2.0000, 1.5000]])
    """

    def __init__(self, weights: Sequence[float], temperature: float = 4.0, space: str = "logit") -> None:
        super().__init__()
        weights = _weights("EnsembleDistiller", weights, "EnsembleDistiller.uniform(n)")
        if len(weights) == 0:
            raise EmptyInputError("EnsembleDistiller([]): give at least one teacher's weight")
        if space not in ("logit", "probability"):
            raise ParameterError(f"EnsembleDistiller(space={space!r}): expected 'logit' or 'probability'")
        self.weights = list(shares_of(check_shares("teacher weights", weights), len(weights)))
        self.temperature, self.space = check_temperature(temperature), space

    @classmethod
    def uniform(cls, n: int, temperature: float = 4.0) -> EnsembleDistiller:
        """Return the ensemble of n teachers that count equally."""
        return cls([1.0] * _count("uniform", n, "teachers"), temperature)

    def _mixture(self, teachers: Sequence[Tensor]) -> Mixture:
        if len(teachers) != len(self.weights):
            raise ShapeError(f"{len(teachers)} teachers came for {len(self.weights)} weights; expected one each")
        return Mixture(
            [Logits(teacher) for teacher in teachers], self.weights, "logit" if self.space == "logit" else "probability"
        )

    def combine(self, teachers: Sequence[Tensor]) -> Tensor:
        """Return the ensemble's logits (..., V): `softmax(combined / T)` is its distribution at the temperature."""
        return dense_logits(self._mixture(teachers), self.temperature)

    def forward(
        self, student: Tensor, teachers: Sequence[Tensor], labels: Tensor | None = None, alpha: float = 0.7
    ) -> Tensor:
        """Return the loss, mean over rows; alpha is the weight of the soft term, at 1 labels may be left out."""
        alpha = _share("alpha", alpha)
        soft = Term(ForwardKL(), weight=alpha, temperature=self.temperature)
        return _response([soft], 1 - alpha, student, self._mixture(teachers), labels)

    def extra_repr(self) -> str:
        return f"weights={self.weights}, temperature={self.temperature}, space={self.space!r}"


class ProgressiveDistiller(nn.Module):
    """The distillation loss on the logits and a loss on hidden layers, in convex combination.

    `(1 - beta) DistillationLoss(T, alpha) + beta sum_i share_i loss(student_hidden_i, teacher_hidden_i)`. The layer
    weights are used as shares of their sum; loss is the cosine distance unless given. Hidden states: two lists of
    tensors, (..., D_i) on both sides; a projector belongs to the caller.
    Errors: `WeightError`, `ParameterError`; on the call `ShapeError`, `InputError`.

    >>> import torch, tutelage as tl
    >>> distiller = tl.ProgressiveDistiller([1.0, 1.0], temperature=2.0)
    >>> logits, hidden = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]])
    >>> distiller(logits, logits, torch.tensor([1]), student_hidden=[hidden, hidden], teacher_hidden=[hidden, -hidden],
    ...     alpha=1.0, beta=0.5).item()
    0.5
    """

    def __init__(self, layer_weights: Sequence[float], temperature: float = 4.0, loss: Loss = LogitCosine()) -> None:
        super().__init__()
        self.temperature = check_temperature(temperature)
        self.features = FeatureDistiller.with_weights(
            _weights("ProgressiveDistiller", layer_weights, "[1.0] * n"), loss
        ).normalize_weights()

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        labels: Tensor | None,
        student_hidden: Sequence[Tensor],
        teacher_hidden: Sequence[Tensor],
        alpha: float = 0.7,
        beta: float = 0.3,
    ) -> Tensor:
        """Return the loss, mean over rows; alpha weighs the soft term, beta the hidden layers."""
        beta = _share("beta", beta)
        response: Tensor = DistillationLoss(self.temperature, alpha)(student, teacher, labels)
        hidden: Tensor = self.features(student_hidden, teacher_hidden)
        return (1 - beta) * response + beta * hidden

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"
