"""Whatever a recipe says, loading it gives a recipe or a `RecipeError`, and makes Python do nothing else."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("fuzz_recipes.py")


def test_five_hundred_damaged_recipes():
    done = subprocess.run([sys.executable, str(SCRIPT), "500"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    seen = json.loads(done.stdout)
    assert seen["raised"] == []
    assert seen["seen"] == []
    assert not seen["blind"]
    assert seen["megabytes"] < 200
    # The mutations are neither so mild nor so wild that they would test one side alone.
    assert seen["refused"] + seen["accepted"] == 500
    assert seen["refused"] > 300
    assert seen["accepted"] > 10
