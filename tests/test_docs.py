"""Every piece of Python in the pages runs, and the generated table is the one that the code gives."""

import re
from pathlib import Path

import pytest

import tutelage as tl

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_readme_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the third door writes a folder
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    # The three doors are shown in at most 25 lines.
    assert 10 < sum(len(block.splitlines()) for block in blocks) <= 25
    namespace = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"\{'loss': \d+\.\d+, 'soft': \d+\.\d+, 'hard': \d+\.\d+\}", last)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_project_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_table_of_compatible_teachers_is_up_to_date():
    assert tl.execution.table() in (ROOT / "docs" / "divergences.md").read_text(), "run `make docs`"


def test_the_page_and_the_code_agree_on_powers_of_the_temperature():
    page = (ROOT / "docs" / "divergences.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| (\d)[^|]*\|$", page, re.MULTILINE))
    assert rows == {kind: str(cls.temperature_power) for kind, cls in tl.divergences.ALL.items()}
