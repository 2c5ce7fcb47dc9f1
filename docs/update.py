"""Write the generated table into divergences.md: `make docs`."""

from __future__ import annotations

from pathlib import Path

from tutelage.execution import table

START, END = "<!-- table: written by `make docs` -->\n", "<!-- end of table -->"


def main() -> None:
    """Replace what stands between the marks."""
    page = Path(__file__).parent / "divergences.md"
    head, rest = page.read_text().split(START)
    page.write_text(head + START + "\n" + table() + "\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
