"""Puts the page together: pictures to files and into the page, words and tables into the template.

The page needs nothing but itself: style and pictures are inside, there is no script, and its policy forbids it to load
anything. Whatever comes from the run is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tutelage.errors import RunFolderError
from tutelage.report import _bars, _curves, _tables
from tutelage.report._contents import Run
from tutelage.report._run import read_run
from tutelage.report._style import DARK, LIGHT, Picture, darkened, data_uri, style
from tutelage.report._words import headline, shown
from tutelage.run_folder import COMPLETE, write_text
from tutelage.wording import counted


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
    if pictures.is_symlink():
        raise RunFolderError(f"{pictures} is a link, and a report is written inside its run alone; remove it")
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
        run, task = self.run, self.run.task
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        own = task.section(run, self.folder)
        return environment.get_template(task.template).render(
            run=run,
            counted=counted,
            shown=shown,
            complete=run.status == COMPLETE and not run.missing,
            css=self._css(),
            headline=headline(run),
            legend=_tables.legend(run),
            figures=_tables.figures(run),
            tested=task.tested(run) if run.names else "",
            scores=_tables.scores(run),
            statistic=_tables.statistic(run),
            size=_tables.size(run),
            facts=_tables.facts(run),
            hero=self._one(task.hero(run)),
            more_scores=self._many([_bars.scores(run, metric) for metric in task.small]),
            terms=self._many(_curves.loss_terms(run)),
            following=self._many(_curves.following(run)),
            **own.values,
            **{name: self._many(pictures) for name, pictures in own.pictures.items()},
        )

    def _one(self, picture: Picture | None) -> Drawn | None:
        if picture is None:
            return None
        svg = picture.write(self.folder)
        light, dark = (data_uri("image/svg+xml", text.encode()) for text in (svg, darkened(svg)))
        return Drawn(picture.name, light, dark, picture.alt, picture.caption)

    def _many(self, pictures: Sequence[Picture | None]) -> list[Drawn]:
        return [drawn for drawn in map(self._one, pictures) if drawn is not None]

    def _css(self) -> Markup:
        def variables(palette: dict[str, str]) -> str:
            return "".join(f"--{name}:{colour};" for name, colour in palette.items())

        task = self.run.task
        rules = "".join((Path(__file__).parent / name).read_text(encoding="utf-8") for name in task.styles)
        dark = f"@media (prefers-color-scheme: dark){{:root{{{variables({**DARK, **task.colours(DARK)})}}}}}"
        # Ours, every character of it: nothing from a run is in the style.
        return Markup(f":root{{{variables({**LIGHT, **task.colours(LIGHT)})}}}\n{dark}\n{rules}")
