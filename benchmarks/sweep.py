"""Where the default byte budgets come from: time and memory over block and chunk sizes, written to `sweep.md`.

`python -m benchmarks.sweep`; the constants stand in `tutelage/execution/_budget.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import cases
from benchmarks.cases import COMPILE, TORCH
from benchmarks.machine import description
from benchmarks.memory import peak_of
from benchmarks.report import markdown_table
from benchmarks.timing import measure
from benchmarks.variants import Case, Variant, check
from tutelage.execution import byte_budget
from tutelage.execution._budget import Budget, budget_for

KIB, MIB = 2**10, 2**20
BLOCKS = [256 * KIB, 512 * KIB, MIB, 2 * MIB, 4 * MIB, 8 * MIB]
CHUNKS = [32 * MIB, 64 * MIB, 96 * MIB, 128 * MIB, 256 * MIB]
FILE = Path(__file__).parent / "sweep.md"

_PAGE = """# Block and chunk sizes

<!-- Written by `python -m benchmarks.sweep`. -->

Time and memory of the cases of [README.md](README.md), measured as described there, over the two byte budgets of
`tutelage.execution.byte_budget`. A *chunk* is the logits that heads make at once, of both models together; a *block* is
one of the matrices that the terms work on. Ratios are over the default in the same round (median, least and
largest), the default in bold: {default}.

{machine}

{tables}"""


def main() -> None:
    """Run the sweep and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="rounds per table (default: 7)")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(2)
    default = budget_for(torch.device("cpu"))
    tables = []
    for case, make, rows in (("dense", cases.dense, cases.DENSE_ROWS), ("head", cases.head, cases.HEAD_ROWS)):
        for name in (TORCH, COMPILE):
            blocks = [replace(default, block_bytes=size) for size in BLOCKS]
            tables.append(_sweep("Blocks", case, name, make(rows)[name], default, blocks, rounds))
    chunks = [replace(default, chunk_bytes=size) for size in CHUNKS]
    variant = cases.head(cases.HEAD_ROWS)[TORCH]
    tables.append(_sweep("Chunks", "head", TORCH, variant, default, chunks, rounds))
    machine = "\n".join(f"- {name}: {value}" for name, value in description().items())
    page = _PAGE.format(default=_described(default), machine=machine, tables="\n\n".join(tables))
    FILE.write_text(page + "\n")
    print(f"wrote {FILE}", file=sys.stderr)


def _sweep(
    title: str, case: str, name: str, variant: Variant, default: Budget, budgets: Sequence[Budget], rounds: int
) -> str:
    """Return the table of one variant over some budgets; the default is measured even if it is not among them."""
    print(f"{title} of {case}, {name} ...", file=sys.stderr)
    ordered = sorted({*budgets, default}, key=lambda budget: (budget.chunk_bytes, budget.block_bytes))
    variants: Case = {_described(budget): _with(variant, budget) for budget in ordered}
    check(variants)
    timings = measure(variants, rounds)
    rows = []
    for label, budget in zip(variants, ordered, strict=True):
        ratio = timings.ratio(label, _described(default))
        peak = peak_of(case, name, budget.chunk_bytes, budget.block_bytes)
        beside, allocated = (peak.beside(variant.student.largest, allocated=which) for which in (False, True))
        rows.append(
            (
                f"**{label}**" if budget == default else label,
                f"{timings.median(label) * 1e3:.0f}",
                f"{ratio.median:.2f}x ({ratio.low:.2f}-{ratio.high:.2f})",
                f"{beside:.0f} ({allocated:.0f})",
            )
        )
    header = ("budget", "time, ms", "over the default", f"memory without the {variant.student.largest} gradient, MB")
    table = f"## {title}: {case}, {name}\n\n" + "\n".join(markdown_table(header, rows))
    print(table, flush=True)
    return table


def _with(variant: Variant, budget: Budget) -> Variant:
    def step() -> Tensor:
        with byte_budget(budget.chunk_bytes, budget.block_bytes):
            return variant.step()

    return replace(variant, step=step)


def _described(budget: Budget) -> str:
    return f"chunk {budget.chunk_bytes // MIB} MiB, block {budget.block_bytes / MIB:g} MiB"


if __name__ == "__main__":
    main()
