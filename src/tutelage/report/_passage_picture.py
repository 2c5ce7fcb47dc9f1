"""The shaded text as a picture for a slide or a paper: the page itself has it as text."""

from __future__ import annotations

import unicodedata

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tutelage.report._contents import Passage
from tutelage.report._passage import SHADES, Panel, panels, scale
from tutelage.report._style import LIGHT, Picture

_COLUMNS = 80
"""Characters to a line; longer ones go on in the next."""
_POINTS = 6.5
_WIDTH, _HEIGHT = 0.602 * _POINTS / 72, 1.5 * _POINTS / 72
"""Of a character's cell, in inches: DejaVu Sans Mono is 0.602 of its size wide."""
_FONT = ["DejaVu Sans Mono"]
_HEAD, _FOOT, _BETWEEN = 3, 2, 4
"""Lines above and below, columns between the panels."""


def passage_picture(passage: Passage) -> Picture:
    """Return the text once for each role, side by side, with the scale below."""
    shown = panels(passage)
    laid = [_lay(panel) for panel in shown]
    lines = max(place[1] for panel in laid for place in panel) + 1
    columns = len(shown) * _COLUMNS + (len(shown) - 1) * _BETWEEN
    width, height = columns + 4, lines + _HEAD + _FOOT
    made = Figure(figsize=(width * _WIDTH, height * _HEIGHT))
    axes = made.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-2, width - 2), ylim=(lines + _FOOT, -_HEAD))
    axes.set_axis_off()
    for number, (panel, places) in enumerate(zip(shown, laid, strict=True)):
        left = number * (_COLUMNS + _BETWEEN)
        _write(axes, left, -1.6, panel.role, LIGHT[panel.role], weight="bold")
        for column, line, text, level in places:
            _token(axes, left + column, line, text, level)
    _draw_scale(axes, lines + 1.1)
    alt = " ".join(f"{panel.role}: {panel.words}" for panel in shown)
    return Picture("text", made, alt, "Each token is shaded by the KL between the two predictions of it.")


def _lay(panel: Panel) -> list[tuple[int, int, str, int | None]]:
    """Return (column, line, text, level) of the pieces of a panel's tokens."""
    column = line = 0
    found = []
    for token in panel.tokens:
        for number, piece in enumerate(token.pieces):
            if number:
                found.append((column, line, "↵", token.level))
                column, line = 0, line + 1
            start, text = column, ""
            for character in piece:
                wide = 0 if unicodedata.combining(character) else 1
                wide += unicodedata.east_asian_width(character) in "WF"
                if column + wide > _COLUMNS:
                    found.append((start, line, text, token.level))
                    start, column, line, text = 0, 0, line + 1, ""
                text, column = text + character, column + wide
            found.append((start, line, text, token.level))
    return [place for place in found if place[2]]


def _token(axes: Axes, column: int, line: int, text: str, level: int | None) -> None:
    length = sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in text)
    share = SHADES[level or 0]
    if share:
        _box(axes, column, line, length, share)
    muted = level is None or text == "↵"
    colour = LIGHT["paper"] if share == 1.0 else LIGHT["muted"] if muted else LIGHT["ink"]
    if text.strip():
        _write(axes, column, line, text, colour)


def _draw_scale(axes: Axes, line: float) -> None:
    texts = scale()
    _write(axes, 0, line, "KL to the teacher, nats", LIGHT["muted"])
    column = 26
    for level, text in texts:
        _box(axes, column, line, len(text) + 2, SHADES[level])
        _write(axes, column + 1, line, text, LIGHT["paper"] if SHADES[level] == 1.0 else LIGHT["ink"])
        column += len(text) + 3


def _box(axes: Axes, column: float, line: float, length: int, share: float) -> None:
    # A hair narrower than its letters: neighbours of one shade stay two tokens.
    box = Rectangle((column, line - 0.46), length - 0.12, 0.92, color=LIGHT["student"], alpha=share, linewidth=0)
    axes.add_patch(box)


def _write(axes: Axes, column: float, line: float, text: str, colour: str, weight: str = "normal") -> None:
    axes.text(column, line, text, color=colour, fontsize=_POINTS, family=_FONT, va="center_baseline", weight=weight)
