"""Measure everything, print the tables and write `benchmarks/README.md`: `python -m benchmarks.run`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.machine import description
from benchmarks.report import readme, table
from benchmarks.section import Section
from benchmarks.sections import SECTIONS

README = Path(__file__).parent / "README.md"


def main() -> None:
    """Run the chosen cases and report them; a missed bound is reported like any other figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--case", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="all unless given")
    parser.add_argument("--rounds", type=int, default=9, help="rounds per case (default: 9)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single figure to FILE")
    chosen = parser.parse_args()
    torch.set_num_threads(2)
    sections: dict[str, Section] = {}
    for name in chosen.case:
        print(f"{name} ...", file=sys.stderr, flush=True)
        sections[name] = SECTIONS[name](chosen.rounds)
        print(table(sections[name]), flush=True)
    if chosen.json is not None:
        figures = {name: _figures(section) for name, section in sections.items()}
        chosen.json.write_text(json.dumps({"machine": description(), "cases": figures}, indent=1) + "\n")
    if list(sections) == list(SECTIONS):
        README.write_text(readme(list(sections.values())))
        print(f"wrote {README}", file=sys.stderr)
    else:
        print(f"{README.name} is written only when all cases run", file=sys.stderr)


def _figures(section: Section) -> dict[str, object]:
    return {
        "seconds": section.timings.seconds if section.timings else {},
        "disturbed_steps": section.timings.disturbed if section.timings else 0,
        "relative_errors": section.errors,
        "peak_bytes": {name: asdict(peak) for name, peak in section.peaks.items()},
        "bounds": [{**asdict(bound), "is_met": bound.is_met} for bound in section.bounds],
    }


if __name__ == "__main__":
    main()
