"""The command line: thin commands over recipes, runs and reports. No formula and no training stand here.

Every command says its first line before anything heavy is imported. Data goes to stdout, talk to stderr.
"""

from __future__ import annotations

from tutelage.cli._main import main

__all__ = ["main"]
