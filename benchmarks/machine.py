"""The machine: what it is, and how much of it other processes take."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

import torch


class Foreign:
    """How much CPU time other processes take, from one call of `share` to the next."""

    def __init__(self) -> None:
        self._last = _cpu_ticks()

    def share(self) -> float:
        """Return their part of all CPU time since the last call, stolen time of a virtual machine included."""
        now = _cpu_ticks()
        (total, busy, own), self._last = (a - b for a, b in zip(now, self._last, strict=True)), now
        # The kernel counts in ticks of 10 ms, rounded for each core and for this process.
        return max(0.0, busy - own - _ROUNDING) / total if total > 0 else 0.0


_ROUNDING = 3.0


def _cpu_ticks() -> tuple[float, float, float]:
    """Return the ticks of all cores since boot, the busy ones of them, and those of this process."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle, waiting = fields[3:5]
    times = os.times()
    own = (times.user + times.system) * os.sysconf("SC_CLK_TCK")
    return sum(fields), sum(fields) - idle - waiting, own


def description() -> dict[str, str]:
    """Return what the figures were measured on and with."""
    cpu = [_field("/proc/cpuinfo", name) for name in ("model name", "cpu family", "model")]
    kilobytes = int(_field("/proc/meminfo", "MemTotal").split()[0])
    return {
        "CPU": f"{cpu[0]} (family {cpu[1]}, model {cpu[2]}), {os.cpu_count()} cores, "
        f"{torch.backends.cpu.get_cpu_capability()}",
        "memory": f"{kilobytes / 2**20:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, {' '.join(platform.libc_ver())}",
        "Python": platform.python_version(),
        "PyTorch": f"{torch.__version__}, {torch.get_num_threads()} threads",
        "transformers": _version("transformers"),
        "Liger-Kernel": _version("liger-kernel"),
        "TRL": _version("trl"),
        "tutelage": f"{_version('tutelage')}, commit {_commit()}",
    }


def _field(file: str, name: str) -> str:
    """Return the first value of a name in a file of lines `name : value`."""
    found = re.search(rf"^{name}\s*:\s*(.*)$", Path(file).read_text(), re.MULTILINE)
    assert found is not None, f"{file} has no {name}"
    return found[1]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """Return the commit, and whether the measured sources differ from it."""

    def git(*arguments: str) -> str:
        folder = Path(__file__).parent.parent
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = " with changes in src/" if git("status", "--porcelain", "--", "src") else ""
    return (git("rev-parse", "--short", "HEAD") or "unknown") + changed
