"""What runs here: versions, processors and devices, as a bug report needs them. Nothing of the user's own."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import tutelage
from tutelage.cli._console import put, put_json, say, table

PACKAGES = (
    "torch",
    "numpy",
    "safetensors",
    "pydantic",
    "ruamel.yaml",
    "typer",
    "transformers",
    "accelerate",
    "scikit-learn",
    "pyarrow",
    "matplotlib",
    "jinja2",
    "timm",
    "triton",
)
"""Of the core first, then of the extras."""


def show(*, as_json: bool) -> None:
    """Carry out `tutelage env`."""
    known = versions()
    if as_json:
        say("looking for devices ...")
        put_json({**known, **devices()})
        return
    packages = known.pop("packages")
    put(table([[name, str(value)] for name, value in known.items()]))
    put(table([[name, number or "not installed"] for name, number in packages.items()]))
    found = devices()
    gpus = ", ".join(found["gpus"]) or "none"
    put(table([["threads", str(found["threads"])], ["cuda", found["cuda"] or "not in this torch"], ["gpus", gpus]]))


def versions() -> dict[str, Any]:
    """Return what is known without loading anything: versions as they are installed, None for what is not."""
    return {
        "tutelage": tutelage.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": {package: _installed(package) for package in PACKAGES},
    }


def devices() -> dict[str, Any]:
    """Return what torch finds: its threads, and its GPUs by name."""
    import torch

    gpus = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
    return {"threads": torch.get_num_threads(), "cuda": torch.version.cuda, "gpus": gpus}


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
