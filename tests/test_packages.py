"""Optional packages that are broken, not missing: the message names the package, versions, and what to do."""

import importlib
import os
import re
import subprocess
import sys

import pytest

from tutelage.errors import MissingPackageError
from tutelage.packages import broken_package, importing

BROKEN = {
    # torchvision of another torch registers operators that are not there.
    "torchvision": "import torch\n\ntorch.library.register_fake('torchvision::nms')(lambda boxes: boxes)\n",
    "peft": "from transformers import EncoderDecoderCache, NothingOfThisName\n",
    "matplotlib": "from . import _missing_part\n",
    "timm": "import a_package_that_nobody_has\n",
}


@pytest.fixture
def broken(tmp_path):
    """Return a function that makes a package that cannot be imported, and returns its folder."""

    def make(name):
        for folder, file, text in (
            (name, "__init__.py", BROKEN[name]),
            (f"{name}-0.1.dist-info", "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n"),
            (f"{name}-0.1.dist-info", "top_level.txt", name),
        ):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / file).write_text(text)
        return tmp_path

    return make


PROGRAM = """
import sys
try:
    from tutelage.training import DistillationTrainer
except Exception as error:
    print(type(error).__name__, error)
sys.argv[1:] = ["train", "digits-few-labels", "--dry-run"]
from tutelage.cli import main
sys.exit(main())
"""


def test_a_torchvision_of_another_torch(broken):
    """transformers imports it wherever it is installed, and says that it could not import `TrainerCallback`."""
    places = [str(broken("torchvision")), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=300
    )
    said = (
        r"torchvision 0\.1 is installed and cannot be imported beside torch 2\.\S+, transformers 5\.\S+ "
        r"\(RuntimeError: operator torchvision::nms does not exist\); expected versions that fit: pip install "
        "--upgrade torchvision, or remove it where nothing needs it: pip uninstall torchvision"
    )
    assert re.search("^MissingPackageError training cannot be had here: " + said, ended.stdout), ended
    assert re.search("^tutelage: .*" + said, ended.stderr, re.MULTILINE), ended
    assert ended.returncode == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("peft", "ImportError: cannot import name 'NothingOfThisName'"),
        ("matplotlib", "ImportError: cannot import name '_missing_part'"),
        ("timm", "ModuleNotFoundError: No module named 'a_package_that_nobody_has'"),
    ],
)
def test_any_package(broken, monkeypatch, refused, name, reason):
    monkeypatch.syspath_prepend(broken(name))
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    with (
        refused(
            MissingPackageError, f"this cannot be had here: {name} 0.1 .*{reason}", f"pip install --upgrade {name}"
        ),
        importing("this", name),
    ):
        importlib.import_module(name)


def test_what_is_missing_or_went_wrong_elsewhere(refused):
    with (
        refused(MissingPackageError, "this takes a_package_that_nobody_has, which is not", "pip install 'that'"),
        importing("this", "that"),
    ):
        importlib.import_module("a_package_that_nobody_has")
    with pytest.raises(ZeroDivisionError) as caught, importing("this", "that"):
        1 / 0  # noqa: B018
    assert broken_package(caught.value) is None
