"""A vocabulary map restricts both sides to the columns that it names; labels keep the student's whole vocabulary."""

from __future__ import annotations

import pytest
import torch

import tutelage as tl
from reference import teachers
from reference.cases import build, combinations, draw, relative_error
from reference.divergences import REFERENCES

ROWS, SHARED = 6, 11
# Padding on one side, on both, and more of it on either one.
WIDTHS = {"student_padded": (14, 11), "teacher_padded": (11, 16), "both_padded": (13, 17)}
TEACHERS = (
    "logits",
    "mixture",
    "mixture_of_logits",
    "top_k",
    "top_k_renormalized",
    "sampled",
    "labels",
    "smoothed_labels",
)
COMBINATIONS = [(kind, teacher) for kind, teacher in combinations() if teacher in TEACHERS]


class Sides:
    """Both sides, the map, and the ids that the sparse teachers keep."""

    def __init__(self, generator, wide: int, teacher_wide: int, by_ids: bool, temperature: float) -> None:
        self.temperature = temperature
        self.student = draw(generator, ROWS, wide).requires_grad_()
        self.full = [draw(generator, ROWS, teacher_wide) for _ in range(2)]
        if by_ids:
            self.ours = torch.randperm(wide, generator=generator)[:SHARED]
            self.theirs = torch.randperm(teacher_wide, generator=generator)[:SHARED]
            self.vocabulary = tl.VocabularyMap(self.ours, self.theirs)
        else:
            self.ours = self.theirs = torch.arange(SHARED)
            self.vocabulary = tl.VocabularyMap.prefix(SHARED)
        # Ids of the teacher's own, some of which the map may leave out; those of samples lie in it.
        self.kept = torch.stack([torch.randperm(teacher_wide, generator=generator)[:8] for _ in range(ROWS)])
        self.drawn = torch.randint(SHARED, (ROWS, 5), generator=generator)
        self.labels = self.ours[torch.randint(SHARED, (ROWS,), generator=generator)]
        self.hard = torch.randint(wide, (ROWS,), generator=generator)

    def teacher(self, kind: str):
        if kind == "logits":
            return self.full[0]
        if kind.startswith("mixture"):
            parts = [tl.Logits(part) for part in self.full]
            return tl.Mixture(parts, [1.0, 3.0], "logit" if kind == "mixture_of_logits" else "probability")
        if kind == "sampled":
            weights = torch.full(self.drawn.shape, 0.2, dtype=torch.float64)
            return tl.Sampled(self.theirs[self.drawn], weights, self.temperature)
        if kind.startswith("top_k"):
            logits = self.full[0].gather(1, self.kept)
            if kind == "top_k_renormalized":
                return tl.TopK(self.kept, logits, tail="renormalize")
            return tl.TopK(self.kept, logits, {self.temperature: self._log_tails()})
        return tl.Labels(self.hard, 0.1 if kind == "smoothed_labels" else 0.0)

    def _log_tails(self):
        """Return the mass of what is neither kept nor left out by the map."""
        tails = []
        for row, kept in zip(self.full[0], self.kept, strict=True):
            rest = [i for i in self.theirs.tolist() if i not in kept.tolist()]
            tails.append((row[rest] / self.temperature).logsumexp(0))
        return torch.stack(tails)

    def expected(self, kind: str, teacher: str):
        """Return the reference of each row; DIST relates them and gets all."""
        t = self.temperature
        if "labels" in teacher:
            smoothing = 0.1 if teacher == "smoothed_labels" else 0.0
            target = teachers.label_logits(self.hard, self.student.shape[1], smoothing, t)
            return REFERENCES[kind](self.student, target, t)
        student, full = self.student[:, self.ours], [part[:, self.theirs] for part in self.full]
        places = torch.stack([(self.ours == label).nonzero()[0, 0] for label in self.labels])
        if teacher == "sampled":
            return teachers.sampled(student, self.drawn, torch.full(self.drawn.shape, 0.2, dtype=torch.float64), t)
        if teacher == "logits":
            return REFERENCES[kind](student, full[0], t, places)
        if teacher.startswith("mixture"):
            space = "logit" if teacher == "mixture_of_logits" else "probability"
            return REFERENCES[kind](student, teachers.mixture(full, [1.0, 3.0], space, t), t, places)
        rows = []
        for ours, theirs, kept in zip(student, full[0], self.kept, strict=True):
            # What is kept and mapped, as places among the shared columns; their number differs from row to row.
            shared = torch.tensor([self.theirs.tolist().index(i) for i in kept.tolist() if i in self.theirs])[None]
            if teacher == "top_k":
                sides = [teachers.bucketed(side[None], shared, t) for side in (ours, theirs)]
            else:
                sides = [teachers.renormalized(side[None], shared) for side in (ours, theirs)]
            rows.append(REFERENCES[kind](*sides, t))
        return torch.cat(rows)


@pytest.mark.parametrize(("kind", "teacher"), COMBINATIONS)
@pytest.mark.parametrize("by_ids", [False, True], ids=["prefix", "ids"])
@pytest.mark.parametrize("widths", WIDTHS)
def test_both_sides_are_restricted(kind, teacher, by_ids, widths, generator):
    temperature = 2.0
    sides = Sides(generator, *WIDTHS[widths], by_ids, temperature)
    options = {"temperature": temperature, "labels": sides.labels, "vocabulary": sides.vocabulary}
    value = tl.divergence(sides.student, sides.teacher(teacher), build(kind), **options)
    want = sides.expected(kind, teacher).mean()
    assert value.item() == pytest.approx(want.item(), rel=1e-10, abs=1e-13)
    (gradient,), (wanted,) = torch.autograd.grad(value, sides.student), torch.autograd.grad(want, sides.student)
    assert relative_error(gradient, wanted) < 1e-10
