"""One colour per role, light and dark, for page and pictures alike; and how a figure becomes files.

The two palettes were chosen to be told apart with every kind of colour blindness and to be read as text on their paper
(tests hold both). A picture is drawn once, in the light palette: its SVG turns dark by exchanging the colours, so every
colour in it must be one of the palette.
"""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tutelage.run_folder import write_whole

LIGHT = {
    "paper": "#fdfdfc",
    "ink": "#1a1c20",
    "muted": "#5c626d",
    "line": "#d8d9dd",
    "teacher": "#0b63a5",
    "student": "#c24a00",
    "baseline": "#70757f",
}
DARK = {
    "paper": "#15171b",
    "ink": "#e9eaed",
    "muted": "#a2a8b3",
    "line": "#3a3e46",
    "teacher": "#5cb3ee",
    "student": "#ff9c55",
    "baseline": "#9097a2",
}
WIDE, NARROW = 4.2, 3.6
"""Widths of panels in inches, two and three to a row of the page; a telephone shows either nearly as it is."""
MARKERS = {"teacher": "s", "student": "o", "baseline": "D"}
"""Shape tells the roles apart, too."""

_SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: PNGs are the same on every machine
    "font.size": 9.0,
    "svg.fonttype": "none",
    "figure.facecolor": LIGHT["paper"],
    "savefig.facecolor": LIGHT["paper"],
    "axes.facecolor": LIGHT["paper"],
    "axes.edgecolor": LIGHT["line"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.0,
    "axes.titlecolor": LIGHT["ink"],
    "axes.titlelocation": "left",
    "text.color": LIGHT["ink"],
    "xtick.color": LIGHT["line"],
    "ytick.color": LIGHT["line"],
    "xtick.labelcolor": LIGHT["muted"],
    "ytick.labelcolor": LIGHT["muted"],
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "lines.solid_capstyle": "round",
    "path.simplify": False,
    # Names such as $x_1$ are names, not formulas.
    "text.parse_math": False,
    "text.usetex": False,
}
# The page's own font where it is: the labels of a picture then read like the text around it.
_PAGE_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


@contextmanager
def style() -> Iterator[None]:
    """Set matplotlib up for our figures, whatever the user's own settings are."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # A name in a script that the PNG's font lacks is drawn as boxes there; the page has it as text.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure with its words. name: of its files; alt: what it shows, for those who do not see it."""

    name: str
    figure: Figure
    alt: str
    caption: str
    """How to read it."""

    def svg(self) -> str:
        """Return the picture in the light palette: the same text for the same figure."""
        buffer = io.StringIO()
        with matplotlib.rc_context({"svg.hashsalt": self.name}):
            self.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        return re.sub(r"'DejaVu Sans', sans-serif|'DejaVu Sans'", _PAGE_FONT, buffer.getvalue())

    def write(self, folder: Path) -> str:
        """Write PNG and SVG into a folder, and return the SVG."""
        # Once and for both: the layout is most of the work, and would be made anew for each file.
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine("none")
        svg = self.svg()
        write_whole(folder / f"{self.name}.svg", lambda part: _write(part, svg.encode()))
        self._write_png(folder)
        return svg

    def _write_png(self, folder: Path) -> None:
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=200, metadata={"Software": None})
        write_whole(folder / f"{self.name}.png", lambda part: _write(part, buffer.getvalue()))


def darkened(svg: str) -> str:
    """Return a picture with the dark palette in the place of the light one."""
    dark = {LIGHT[role]: DARK[role] for role in LIGHT}
    return re.sub(r"#[0-9a-f]{6}\b", lambda match: dark.get(match[0], match[0]), svg)


def mixed(palette: Mapping[str, str], role: str, share: float) -> str:
    """Return the colour of a role laid on paper, so much of it."""
    pairs = [(int(palette[role][i : i + 2], 16), int(palette["paper"][i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(share * over + (1 - share) * under):02x}" for over, under in pairs)


def data_uri(kind: str, content: bytes) -> str:
    """Return an address that holds the content itself."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of one panel, in inches. Panels are narrow: on a telephone they are shown as they are."""
    made = Figure(figsize=(width, height), layout="constrained")
    made.get_layout_engine().set(w_pad=0.04, h_pad=0.04)  # type: ignore[union-attr, call-arg]
    return made, made.subplots()


def end_labels(axes: Axes, labels: list[tuple[float, str, str]]) -> None:
    """Write (value, text, colour) at the right edge of the panel, moved apart where they would touch.

    Call it when the limits of the panel are final.
    """
    height = axes.bbox.height
    least = 12.5 * axes.figure.dpi / 72 / height
    places = [(axes.transLimits.transform(axes.transScale.transform((1, value)))[1], value) for value, _, _ in labels]
    order = sorted(range(len(labels)), key=lambda i: places[i][0])
    spots: list[float] = []
    for i in order:
        spots.append(max(places[i][0], spots[-1] + least) if spots else places[i][0])
    # What was pushed up as a whole comes back by half.
    shift = (sum(spots) - sum(places[i][0] for i in order)) / max(1, len(spots))
    for i, spot in zip(order, spots, strict=True):
        _, text, colour = labels[i]
        axes.annotate(
            text,
            (1.0, min(1.0, max(0.0, spot - shift))),
            xycoords="axes fraction",
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            annotation_clip=False,
        )


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
