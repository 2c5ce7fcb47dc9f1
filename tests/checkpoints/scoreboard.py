"""Damages the newest of two checkpoints in every way and goes on: what is noticed, what is silent, what is lost.

python tests/checkpoints/scoreboard.py             # the table of docs/checkpoints.md; half an hour
python tests/checkpoints/scoreboard.py --verbose   # and each kind of damage that was silent or not recovered from
"""

import argparse
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from damage import all_damage, contents
from subjects import EVERY, STEPS, SUBJECTS


@dataclass(frozen=True)
class Tried:
    """One damage, and what came of it. lost: bytes of the result that are not those of an uninterrupted training."""

    kind: str
    file: str | None
    noticed: bool
    same: bool
    lost: int
    told: str

    @property
    def silent(self):
        """Whether it went on to other bytes without a word."""
        return not self.noticed and not self.same


class Trial:
    """A subject that was stopped after two checkpoints, to be damaged again and again."""

    def __init__(self, subject, root):
        self.subject, self.root = subject, Path(root)
        self.expected = subject.prepare(self.root)
        self.usual = set()
        untouched = self._gone_on(lambda newest, older: None)
        assert untouched.result == self.expected, untouched.told
        self.usual = set(untouched.told)

    @property
    def newest(self):
        """Return the newest checkpoint, whole."""
        return self.subject.checkpoints(self.root / "stopped") / f"checkpoint-{STEPS - EVERY}"

    def _gone_on(self, damage, injected=None):
        folder = self.root / "tried"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.root / "stopped", folder)
        places = [
            self.subject.checkpoints(folder) / f"checkpoint-{step}" for step in (STEPS - EVERY, STEPS - 2 * EVERY)
        ]
        damage(*places)
        if injected is not None and contents(places[0].parent) == contents(self.newest.parent):
            return None
        return self.subject.go_on(folder)

    def tried(self, kind, name, damage):
        """Return what came of a damage, None for one that changed nothing."""
        ended = self._gone_on(damage, injected=True)
        if ended is None:
            return None
        told = [text for text in ended.told if text not in self.usual]
        # Numbers of seconds and the like are told anew each time.
        noticed = any("checkpoint" in text for text in told) or ended.result is None
        lost = sum(_differing(data, (ended.result or {}).get(key, b"")) for key, data in self.expected.items())
        return Tried(kind, name, noticed, ended.result == self.expected, lost, " | ".join(told))


def _differing(one, other):
    return sum(a != b for a, b in zip(one, other, strict=False)) + abs(len(one) - len(other))


def line(name, tried):
    """Return the line of the table for what was tried with a subject."""
    recovered = sum(one.same for one in tried)
    cells = [
        name,
        len(tried),
        sum(one.noticed for one in tried),
        sum(one.silent for one in tried),
        recovered,
        sum(one.lost > 0 for one in tried),
    ]
    return "| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else cell for cell in cells) + " |"


HEAD = """\
| | injected | noticed | silent | recovered | with bytes lost |
|---|---:|---:|---:|---:|---:|"""


def say(text):
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", default=list(SUBJECTS))
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    say(HEAD)
    for name in given.subjects:
        with tempfile.TemporaryDirectory() as root:
            os.environ["TUTELAGE_CACHE"] = str(Path(root) / "cache")
            trial = Trial(SUBJECTS[name](), root)
            tried = [one for damage in all_damage(trial.newest) if (one := trial.tried(*damage)) is not None]
        say(line(name, tried))
        for one in tried if given.verbose else []:
            if not (one.noticed and one.same):
                say(f"    {one.kind}: {one.file}: noticed={one.noticed} same={one.same} {one.told[:300]}")


if __name__ == "__main__":
    main()
