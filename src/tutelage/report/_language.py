"""Reports of language models: nats per token, and a piece of text in which every token shows its distance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from tutelage.report import _dots
from tutelage.report._contents import Passage, Run
from tutelage.report._measures import Spread
from tutelage.report._passage import SHADES, panels, read_passage, scale, table_of
from tutelage.report._passage_picture import passage_picture
from tutelage.report._style import Picture, mixed
from tutelage.report._task import Section, Task, Watched
from tutelage.report._words import Metric, of_arms, shown
from tutelage.run_folder import BASELINE, STUDENT, RunFolder

_NLL = Metric("nll", "Nats per token", "−log of the true token’s probability; lower is better.")
_PERPLEXITY = Metric("perplexity", "Perplexity", "e to the power of the nats per token; lower is better.", digits=1)
_OF_HIDDEN = Metric(
    "perplexity",
    "Pseudo-perplexity",
    "e to the power of the nats per hidden token, each seen from both sides; lower is better.",
    digits=1,
)
_AGREEMENT = Metric("agreement", "Same first guess as the teacher", "Higher is better.", percent=True)
_KL = Metric("kl", "KL(teacher ‖ network), nats", "Per token; 0 where the probabilities are equal.")


class Language(Task):
    """The next token of a text."""

    among: ClassVar = "held-out tokens"
    """What is predicted."""
    seen: ClassVar = ""
    """How the piece of text was read, in a sentence."""

    scores = ("rows", "tokens", "nll", "perplexity", "accuracy", "parameters", "bytes")
    metrics: ClassVar[tuple[Metric, ...]] = (
        _NLL,
        _PERPLEXITY,
        Metric("accuracy", "First guess right", "The likeliest token is the true one.", percent=True),
        _AGREEMENT,
        _KL,
    )
    gap = _NLL
    small: ClassVar[tuple[Metric, ...]] = (_PERPLEXITY, _KL, _AGREEMENT)
    watched = (
        Watched("nll", "Nats per token", "On held-out text"),
        Watched("kl", "KL(teacher ‖ network), nats", "Per token; 0 where both give the same probabilities"),
        Watched("agreement", "Same first guess as the teacher", "Share of the held-out tokens", percent=True),
    )
    rows: ClassVar = {"train": "training", "test": "held out"}
    template = "language.html.jinja"
    styles = ("page.css", "text.css")
    verb = "needs"
    better = "The student predicts held-out text better than its teacher"
    answered = "held-out tokens guessed"

    def passage(self, folder: RunFolder) -> Passage | None:
        """Read the piece of text, where there is one already."""
        return read_passage(folder.text) if folder.text.is_file() else None

    def tested(self, run: Run) -> str:
        """Return the number of tokens."""
        return f"{run.of(run.names[0])[0].scores['tokens']:,.0f} {self.among}"

    def amount(self, spread: Spread) -> str:
        """Return nats per token."""
        return f"{shown(spread.mean)} nats per token"

    def alone(self, run: Run) -> str:
        """Return the perplexity of the student."""
        perplexity = of_arms(run, STUDENT, "perplexity")
        assert perplexity is not None
        return f"The student has a perplexity of {shown(perplexity.mean, digits=1)} on held-out text"

    def labels(self, run: Run) -> str:
        """Return what the baseline learns from."""
        del run
        return "the text"

    def colours(self, palette: Mapping[str, str]) -> dict[str, str]:
        """Return the shades of tokens, from none to full."""
        return {f"shade-{level}": mixed(palette, "student", share) for level, share in enumerate(SHADES)}

    def hero(self, run: Run) -> Picture | None:
        """Return the nats per token, and the gap in them."""
        return _dots.scores(run, self.gap)

    def gain(self, run: Run) -> tuple[str, str] | None:
        """Return how many nats per token the teacher was worth, if any."""
        student, baseline = of_arms(run, STUDENT, "nll"), of_arms(run, BASELINE, "nll")
        if student is None or baseline is None or baseline.mean <= student.mean:
            return None
        return shown(baseline.mean - student.mean), "nats per token fewer than without the teacher"

    def facts(self, run: Run) -> list[tuple[str, str]]:
        """Return the tokens of each part, and how many kinds of them there are."""
        told = ", ".join(f"{run.tokens[key]:,} {words}" for key, words in self.rows.items() if key in run.tokens)
        return [("Tokens", told), ("Vocabulary", "" if run.vocabulary is None else f"{run.vocabulary:,.0f} tokens")]

    def section(self, run: Run, folder: Path) -> Section:
        """Return the piece of text, shaded."""
        del folder
        # Without a teacher there is no distance to one.
        if run.passage is None or not run.passage.kl:
            return Section({"panels": ()}, {})
        values = {"panels": panels(run.passage), "scale": scale(), "tokens": table_of(run.passage), "seen": self.seen}
        return Section(values, {"passage": [passage_picture(run.passage)]})


class MaskedLanguage(Language):
    """Hidden tokens of a text."""

    among = "hidden tokens of held-out text"
    metrics = tuple(_OF_HIDDEN if metric is _PERPLEXITY else metric for metric in Language.metrics)
    small = (_OF_HIDDEN, *Language.small[1:])
    seen = "Each token was hidden once, a few of them at a time, and predicted from those that were not."
    better = "The student predicts hidden tokens better than its teacher"
    answered = "hidden tokens guessed"

    def alone(self, run: Run) -> str:
        """Return the perplexity of the student."""
        told = super().alone(run).replace("a perplexity", "a pseudo-perplexity")
        return told.replace("on held-out text", "on hidden tokens of held-out text")
