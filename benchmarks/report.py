"""The Markdown of `benchmarks/README.md`: prose, machine and tables."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.language import AT_LEAST, NETWORKS
from benchmarks.machine import description
from benchmarks.section import Bound, Section, all_bounds
from benchmarks.sections import SCALING_WARM_UPS
from benchmarks.timing import FOREIGN, WARM_UPS, Timings
from benchmarks.truth import HARD, SOFT, TEMPERATURE
from benchmarks.variants import TOLERANCE

_HEAD = """# Speed and memory

<!-- Written by `python -m benchmarks.run`; edit benchmarks/report.py instead. -->

Made by `make bench`, in a virtual environment of its own with Liger-Kernel and TRL beside. {summary}

One training step, forward and backward, in float32 on 2 threads of the CPU below. The objective is that of Hinton et
al.: `{soft} T² KL(teacher || student)` at T = {temperature:g} plus `{hard}` times the cross-entropy to hard labels,
mean over the N rows; logits are random with a standard deviation of about 3. What TRL can
train differs, as its section says.

{machine}
"""

_HOW = f"""## How it is measured

- **A wrong result is never timed.** Before a case is timed, each variant's loss and gradients, on the very tensors that
  are then timed, are compared with the formula in float64 plain PyTorch (`truth.py`). The run stops if the loss, or
  a gradient (2-norm of the difference over the 2-norm), is off by more than {TOLERANCE:g}. "Gradient error" is what
  was found, for the worst of the gradients. The table of divergences is compared with autograd through the value's own
  formula in float64, which checks the gradients and the execution; whether the value is what the paper says is a matter
  of the tests.
- **Time is paired.** All variants of a case run in one process, one after another in every round, in an order that
  rotates; {WARM_UPS} steps of each come before and do not count ({SCALING_WARM_UPS} for growing N). Gradients are
  None before each step, garbage is collected outside the timed part. Times are medians over the rounds, ratios are
  medians of the rounds' ratios, with the least and the largest in brackets. A step in which other processes took more
  than {FOREIGN:.0%} of the CPU is run again: PyTorch's threads wait for each other at every operation, so a second
  busy process slows a step down by far more than its share.
- **Memory** is the highest resident set within one step (`VmHWM`, reset by `/proc/self/clear_refs` right before it),
  minus the resident set right before the step, minus the bytes of the gradient that the column names; MB are 10^6
  bytes. Each variant runs in a fresh process: a step of two rows, so that libraries have started and kernels are
  compiled; a full step; then gradients are dropped and freed memory is returned to the system (`malloc_trim`),
  so that nothing freed can serve the measured step unseen; then the full step that is measured. What is subtracted
  is thus: inputs and labels, the program, and what the first step left behind (MKL's scratch memory, 10 MB). What is
  *not* subtracted, beside the block buffers: in head cases the gradient on the hidden states (4 MB at N = 2,048). In
  brackets the same from PyTorch's allocator: the most bytes that tensors held at once within the step. The difference
  is what the C library's heap loses between them.
- **Liger-Kernel** is `LigerFusedLinearJSDLoss` of `liger_kernel.chunked_loss` with its default chunks. Its `beta = 0`
  is KL(teacher || student) (`chunked_loss/jsd_loss.py`). It divides by T but never multiplies by T², so it gets
  `weight_soft_loss = {SOFT} T²`: the objective is the same, and checked to be.
- **The four products alone** are the student's logits, the teacher's logits, the gradient on the hidden states and the
  gradient on the weight, as four `torch.mm` of all rows at once, into memory that is there already. "Memory asked
  for": the results are allocated within the step, as `hidden @ weight.T` does, so the system maps and clears pages.
- **PyTorch** is `F.kl_div(log_softmax(s / T), log_softmax(t / T), log_target=True, reduction="batchmean") * T²` and
  `F.cross_entropy`, with autograd.
- **A language model's step** starts at the tokens: both networks forward, the student backward, nothing kept from step
  to step but weights and tokens. Its truth is the same networks in float64, with PyTorch's `RMSNorm` for theirs, which
  computes in float32; every parameter's gradient is compared. Here memory is that of the whole step, with the gradients
  and the networks' own activations. PyTorch is transformers' `LlamaForCausalLM` called for its logits, then as above,
  the KL summed over ids and averaged over the positions that predict; labels are shifted and not logits, since a slice
  of logits would be copied. tutelage is a `DistillationModel` of
  `language_model(student)` and `language_model(teacher)`. Liger-Kernel's loss gets the hidden states of both decoders.
  "{NETWORKS}" is both decoders and the student's backward from a constant, without heads and loss.
  "{AT_LEAST}" adds what no loss on all logits can do without: the products of both heads
  and the two of the student's gradient, into memory that is there already. No variant can be faster.
- **TRL's trainers** are `trl.experimental.gkd.GKDTrainer` and `trl.DistillationTrainer` with beta = 0, that is
  KL(teacher || student), and without gradient checkpointing and bfloat16; `compute_loss` and the backward are the step.
  Neither multiplies by T² nor knows hard labels, and GKDTrainer's loss has T = 1 whatever its temperature, so the case
  has the objective that both can train. DistillationTrainer samples completions; it is given them, with the first
  token of a row as the prompt. Its chunks are 4,096 tokens by 32,768 ids: at this size they are all the logits there
  are.

`python -m benchmarks.run --case dense --rounds 21` runs a part of it and prints its tables; `--json FILE` keeps every
single time. `python -m benchmarks.sweep` shows where the block sizes come from.
"""


def readme(sections: Sequence[Section]) -> str:
    """Return the whole page."""
    bounds = all_bounds(sections)
    met = sum(bound.is_met for bound in bounds)
    missed = "; ".join(f"{bound.what} {_figure(bound)}" for bound in bounds if not bound.is_met)
    summary = f"{met} of {len(bounds)} bounds of the issue are met" + (f", not: {missed}." if missed else ".")
    machine = "\n".join(f"- {name}: {value}" for name, value in description().items())
    head = _HEAD.format(summary=summary, soft=SOFT, hard=HARD, temperature=TEMPERATURE, machine=machine)
    return "\n".join([head, *(table(section) for section in sections), _HOW])


def table(section: Section) -> str:
    """Return one section: its table, and its bounds beside what was measured."""
    lines = [f"## {section.title}", "", f"{section.what}{_rounds(section.timings)}", ""]
    lines += markdown_table(section.header, section.rows)
    if section.bounds:
        rows = [
            (bound.what, _figure(bound), f"{bound.limit:g}{bound.unit}", "yes" if bound.is_met else "**no**")
            for bound in section.bounds
        ]
        lines += ["", *markdown_table(("bound", "measured", "at most", "met"), rows)]
    return "\n".join([*lines, ""])


def _rounds(timings: Timings | None) -> str:
    if timings is None:
        return ""
    rounds = len(next(iter(timings.seconds.values())))
    note = f" Other processes were busy in {timings.disturbed} steps." if timings.disturbed else ""
    return f" {rounds} rounds.{note}"


def _figure(bound: Bound) -> str:
    return f"{bound.measured:.2f}x" if bound.unit == "x" else f"{bound.measured:.1f}{bound.unit}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table: the first column on the left, the others on the right."""
    return [
        f"| {' | '.join(header)} |",
        f"|:--{'|--:' * (len(header) - 1)}|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
