"""Which divergence takes which teacher, and why not: one function, from which the docs print their table."""

from __future__ import annotations

import torch

from tutelage.distributions import Distribution, HeadStates, Labels, Logits, Mixture, Sampled, TopK
from tutelage.divergences import ALL, Divergence, ForwardKL, PerToken, Pointwise, WholeBatch
from tutelage.errors import CompatibilityError, VocabularyError


def check_compatible(divergence: Divergence, student: Distribution, teacher: Distribution) -> None:
    """Raise `CompatibilityError` if the divergence has no meaning for this student or teacher."""
    if not isinstance(student, (Logits, HeadStates)):
        raise CompatibilityError(
            f"the student is {type(student).__name__}; expected a tensor of logits, Logits or HeadStates, so that "
            "every outcome can get a gradient"
        )
    reason = refusal(divergence, teacher)
    if reason is None and isinstance(divergence, WholeBatch) and not isinstance(student, Logits):
        reason = "it relates the rows of a batch, whose logits never exist as a whole in HeadStates; pass Logits"
    if reason is not None:
        raise CompatibilityError(
            f"{divergence.kind} cannot compare {_describe(student)} with {_describe(teacher)}: {reason}"
        )


def check_outcomes(divergence: Divergence, student: Logits | HeadStates, teacher: Distribution, shared: int) -> None:
    """Raise `VocabularyError` if so few outcomes are compared that nothing could be learned.

    shared: how many columns both sides have in common.
    """
    first = teacher.parts[0] if isinstance(teacher, Mixture) else teacher
    columns = student.vocabulary_size if isinstance(first, Labels) else shared
    kept = first.indices.shape[-1] if isinstance(first, TopK) and first.tail == "renormalize" else columns
    if min(columns, kept) >= divergence.least_outcomes:
        return
    if student.vocabulary_size < divergence.least_outcomes:
        advice = (
            "the student has a single output. For regression use LogitMSE(); a single logit of a "
            "binary classifier becomes two outputs by torch.cat([torch.zeros_like(z), z], -1), whose softmax is the "
            "sigmoid of z"
            if student.vocabulary_size == 1
            else f"the student has {student.vocabulary_size} outcomes; use another divergence such as ForwardKL()"
        )
    elif columns < divergence.least_outcomes:
        advice = f"the vocabulary map leaves {columns} of the columns; name more that both sides share"
    else:
        advice = f"TopK(tail='renormalize') keeps {kept} id of each row; keep more ids, or use tail='bucket'"
    raise VocabularyError(
        f"{divergence.kind} needs at least {divergence.least_outcomes} outcomes to compare; with fewer its value is "
        f"constant and its gradient 0, whatever the logits are. Here {advice}"
    )


def refusal(divergence: Divergence, teacher: Distribution) -> str | None:
    """Return why the divergence cannot take this teacher, or None if it can."""
    if isinstance(teacher, (Logits, HeadStates)):
        return None if isinstance(teacher, Logits) or not isinstance(divergence, WholeBatch) else _WHOLE
    if isinstance(teacher, Mixture):
        return _mixture(divergence, teacher)
    if isinstance(teacher, TopK):
        return None if isinstance(divergence, Pointwise) else "it needs all of the teacher's logits, TopK keeps a few"
    if isinstance(teacher, Sampled):
        forward = isinstance(divergence, ForwardKL)
        return None if forward else "samples estimate no other divergence without bias; use forward_kl"
    assert isinstance(teacher, Labels)
    if not isinstance(divergence, Pointwise):
        return "labels are no logits; use forward_kl, which is the cross-entropy"
    if divergence.needs_teacher_support and teacher.smoothing == 0:
        return "it is infinite, for labels exclude every other outcome; use forward_kl, or Labels(smoothing > 0)"
    return None


def _mixture(divergence: Divergence, teacher: Mixture) -> str | None:
    for part in teacher.parts:
        if (reason := refusal(divergence, part)) is not None:
            return reason
    if teacher.space == "probability" and isinstance(divergence, PerToken) and divergence.raw_logits:
        return "it depends on logits, a mixture of probabilities has none; use Mixture(space='logit')"
    return None


_WHOLE = "it relates the rows of a batch, whose logits never exist as a whole in HeadStates; pass Logits"


def _describe(side: Distribution) -> str:
    if isinstance(side, Mixture):
        return f"a Mixture(space={side.space!r}) of {type(side.parts[0]).__name__}"
    return f"Labels(smoothing={side.smoothing:g})" if isinstance(side, Labels) else type(side).__name__


def table() -> str:
    """Return the Markdown table of all divergences and teachers: yes, or the number of the reason below it."""
    logits = Logits(torch.zeros(1, 2))
    top_k = TopK(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1), {1.0: torch.zeros(1)})
    labels = torch.zeros(1, dtype=torch.int64)
    teachers: dict[str, Distribution] = {
        "`Logits`": logits,
        "`HeadStates`": HeadStates(torch.zeros(1, 1), torch.zeros(2, 1)),
        "`Mixture`, probability": Mixture([logits]),
        "`Mixture`, logit": Mixture([logits], space="logit"),
        "`TopK`": top_k,
        "`Sampled`": Sampled(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1), 1.0),
        "`Labels`": Labels(labels),
        "`Labels`, smoothed": Labels(labels, smoothing=0.1),
    }
    reasons: list[str] = []
    lines = [f"| divergence | {' | '.join(teachers)} |", "|---" * (len(teachers) + 1) + "|"]
    for kind, cls in ALL.items():
        cells = []
        for teacher in teachers.values():
            reason = refusal(cls(), teacher)
            if reason is not None and reason not in reasons:
                reasons.append(reason)
            cells.append("yes" if reason is None else f"no ({reasons.index(reason) + 1})")
        lines.append(f"| `{kind}` | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"{number}. {reason}" for number, reason in enumerate(reasons, 1))]) + "\n"
