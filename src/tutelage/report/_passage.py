"""A piece of text as language models read it: from the file to tokens that are shaded by their distance to the teacher.

Layout stays: spaces and line ends are what they are in the text. What cannot be shown is shown by a sign that stands
for it; an end of line gets a sign of its own, so that its shade is seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tutelage.errors import DamagedDataError
from tutelage.report._contents import Passage
from tutelage.report._files import Reader
from tutelage.run_folder import BASELINE, STUDENT, TEACHER, read_json
from tutelage.wording import counted

BOUNDS = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Nats at which the next shade begins: each about three times the one before."""
SHADES = (0.0, 0.09, 0.2, 0.34, 0.5, 1.0)
"""How much of the colour a shade has, the rest is paper. The last is so dark that its text is written in paper."""
_MOST = 600
"""Tokens that are shown."""
_ROUNDING = 1e-3
"""A KL or -log p that is below zero by less is zero: it was computed in few digits."""


def read_passage(file: Path) -> Passage:
    """Read the piece of text, and what each network that is in the file says of its tokens."""
    reader = Reader(file, read_json(file, ["seed", "tokens"]))
    tokens = tuple(reader.items("tokens", str))
    if not tokens:
        raise DamagedDataError(f"{file}: tokens is empty; expected the tokens of a piece of text")
    # In the order of the page, whatever that of the file.
    there = [role for role in (TEACHER, STUDENT, BASELINE) if f"{role}_nll" in reader.value]
    apart = [role for role in (STUDENT, BASELINE) if f"{role}_kl" in reader.value]
    lacking = [f"{role}_nll" for role in (TEACHER, *apart) if apart and role not in there]
    if lacking:
        raise DamagedDataError(f"{file} lacks {lacking}; it has {[f'{role}_kl' for role in apart]}, which need them")
    return Passage(
        int(reader.number("seed")),
        tokens,
        {role: _nats(reader, f"{role}_nll", len(tokens)) for role in there},
        {role: _nats(reader, f"{role}_kl", len(tokens)) for role in apart},
    )


def _nats(reader: Reader, key: str, length: int) -> tuple[float | None, ...]:
    items = reader.items(key, object)
    if len(items) != length:
        raise DamagedDataError(f"{reader.file}: {key} has {len(items)} numbers; expected {length}, one for each token")
    found: list[float | None] = []
    for place, item in enumerate(items):
        name = f"{key}[{place}]"
        number = None if item is None else Reader(reader.file, {name: item}).number(name)
        if number is not None and number < -_ROUNDING:
            raise DamagedDataError(f"{reader.file}: {name} is {number!r}; expected no less than 0")
        found.append(None if number is None else max(0.0, number))
    return tuple(found)


@dataclass(frozen=True)
class Shaded:
    """A token as it is shown. level: its shade, None where nothing predicts it; title: its numbers.

    pieces: its text, cut where a line ends.
    """

    pieces: tuple[str, ...]
    level: int | None
    title: str


@dataclass(frozen=True)
class Panel:
    """The text, shaded for one role; words: what there is to see."""

    role: str
    tokens: tuple[Shaded, ...]
    words: str


def level_of(kl: float) -> int:
    """Return the shade of a distance."""
    return sum(kl >= bound for bound in BOUNDS)


def panels(passage: Passage) -> list[Panel]:
    """Return the text for student and baseline."""
    return [Panel(role, tuple(_shaded(passage, role)), words(passage, role)) for role in passage.kl]


def words(passage: Passage, role: str) -> str:
    """Return mean and largest distance of one role, for whoever does not see the shades."""
    known = [(kl, place) for place, kl in enumerate(passage.kl[role]) if kl is not None]
    if not known:
        return "Nothing is predicted here."
    mean = sum(kl for kl, _ in known) / len(known)
    largest, place = max(known, key=lambda one: (one[0], -one[1]))
    far = sum(kl >= 1 for kl, _ in known)
    return (
        f"KL to the teacher: {mean:.3f} nats per token on average, 1 or more at {far} of "
        f"{counted(len(known), 'token')}; at most {largest:.2f}, at “{one_line(passage.tokens[place])}”."
    )


def _shaded(passage: Passage, role: str) -> list[Shaded]:
    found = []
    for token, kl, teacher, nll in zip(
        passage.tokens[:_MOST], passage.kl[role], passage.nll[TEACHER], passage.nll[role], strict=False
    ):
        title = "not predicted" if kl is None else f"KL {kl:.2f}"
        if teacher is not None and nll is not None:
            title += f"; −log p: teacher {teacher:.2f}, {role} {nll:.2f}"
        found.append(Shaded(tuple(visible(token).split("\n")), None if kl is None else level_of(kl), title))
    return found


def scale() -> list[tuple[int, str]]:
    """Return each shade with what it stands for."""
    texts = [f"below {BOUNDS[0]:g}", *(f"{low:g} to {high:g}" for low, high in pairwise(BOUNDS))]
    return list(enumerate([*texts, f"{BOUNDS[-1]:g} or more"]))


@dataclass(frozen=True)
class Tokens:
    """All tokens in figures. columns: (role, what); rows: the token and its numbers; more: tokens not shown."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    more: int


def table_of(passage: Passage) -> Tokens:
    """Return the numbers behind the shades."""
    columns = [*((role, "KL", passage.kl[role]) for role in passage.kl)]
    columns += [(role, "−log p", passage.nll[role]) for role in passage.nll]
    rows = [
        (one_line(token), tuple("–" if column[2][place] is None else f"{column[2][place]:.2f}" for column in columns))
        for place, token in enumerate(passage.tokens[:_MOST])
    ]
    return Tokens(tuple((role, what) for role, what, _ in columns), tuple(rows), max(0, len(passage.tokens) - _MOST))


def visible(text: str) -> str:
    """Return a text whose characters can all be shown: control characters by their signs, halves of characters by �."""
    text = text.replace("\r\n", "\n").replace("\t", "    ")
    return "".join(character if character == "\n" else _sign(character) for character in text)


def one_line(text: str) -> str:
    """Return a token on one line, with signs for what is not seen."""
    return visible(text).replace("\n", "↵").replace(" ", "·") or "∅"


def _sign(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    # What only changes the direction or the joining of its neighbours would change the page around it.
    hidden = 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000 or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069
    return "�" if hidden else character
