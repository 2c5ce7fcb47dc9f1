"""From the folder of a run to one page with pictures. Reads files and nothing else: no torch, no network.

`_run` reads, `_measures` counts, `_words` and `_tables` say it, `_pictures` draw it, `_page` puts it together.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["build_report"]


def build_report(folder: str | Path) -> Path:
    """Write `report.html` and the folder of pictures `report/` into the folder of a run; return the page's path.

    A run that is not finished gets a report of what is there, which says what is missing. The same folder gives the
    same bytes. Errors: `RunFolderError` where there is no run, `DamagedDataError` for a file that cannot be read.
    """
    # matplotlib takes most of a second to import: only whoever builds a report waits for it.
    from tutelage.report._page import build

    return build(Path(folder))
