"""Puts the page together: pictures to files and into the page, words and tables into the template.

The page needs nothing but itself: style and pictures are inside, there is no script, and its policy forbids it to load
anything. Whatever comes from the run is escaped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tutelage.errors import RunFolderError
from tutelage.report import _answers, _bars, _curves, _tables
from tutelage.report._reliability import calibration
from tutelage.report._run import Run, read_run
from tutelage.report._style import DARK, LIGHT, Picture, darkened, data_uri, style
from tutelage.report._words import ERRORS, METRICS, headline
from tutelage.run_folder import COMPLETE, write_text


@dataclass(frozen=True)
class Drawn:
    """A picture as the page shows it, in both palettes."""

    name: str
    light: str
    dark: str
    alt: str
    caption: str


def build(path: Path) -> Path:
    """Read the run, draw, write; see `build_report`."""
    run = read_run(path)
    pictures = run.folder.path / "report"
    try:
        pictures.mkdir(exist_ok=True)
        with style():
            page = _Page(run, pictures).render()
        write_text(run.folder.report, page)
    except OSError as error:
        raise RunFolderError(
            f"the report cannot be written into {path} ({error.strerror}); make the folder writable, or copy it"
        ) from error
    return run.folder.report


class _Page:
    def __init__(self, run: Run, folder: Path) -> None:
        self.run, self.folder = run, folder

    def render(self) -> str:
        run = self.run
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        return environment.get_template("page.html.jinja").render(
            run=run,
            complete=run.status == COMPLETE and not run.missing,
            css=self._css(),
            headline=headline(run),
            legend=_tables.legend(run),
            figures=_tables.figures(run),
            scores=_tables.scores(run),
            size=_tables.size(run),
            facts=_tables.facts(run),
            counts=_answers.counts(run),
            examples=_answers.examples(run, self.folder),
            hero=self._one(_bars.scores(run, ERRORS, gap=True)),
            more_scores=self._many([_bars.scores(run, metric) for metric in METRICS if metric.key in _MORE]),
            known=_tables.known(run),
            omitted=self._one(_bars.left_out(run)),
            terms=self._many(_curves.loss_terms(run)),
            following=self._many(_curves.following(run)),
            matrix=self._one(_answers.matrix(run)),
            calibration=self._many(calibration(run)),
        )

    def _one(self, picture: Picture | None) -> Drawn | None:
        if picture is None:
            return None
        svg = picture.write(self.folder)
        light, dark = (data_uri("image/svg+xml", text.encode()) for text in (svg, darkened(svg)))
        return Drawn(picture.name, light, dark, picture.alt, picture.caption)

    def _many(self, pictures: list[Picture | None] | list[Picture]) -> list[Drawn]:
        return [drawn for drawn in map(self._one, pictures) if drawn is not None]

    def _css(self) -> Markup:
        def variables(palette: dict[str, str]) -> str:
            return "".join(f"--{name}:{colour};" for name, colour in palette.items())

        rules = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
        dark = f"@media (prefers-color-scheme: dark){{:root{{{variables(DARK)}}}}}"
        # Ours, every character of it: nothing from a run is in the style.
        return Markup(f":root{{{variables(LIGHT)}}}\n{dark}\n{rules}")


_MORE = ("nll", "brier", "ece")
