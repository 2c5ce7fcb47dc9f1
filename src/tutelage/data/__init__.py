"""Rows to learn from: scikit-learn's digits, a table, a folder of images, each as one `Data` with fixed parts.

Who sees what is decided here and nowhere else, by numbers that depend on the rows alone: which rows are held out, which
keep their labels, which classes the student never sees.
"""

from __future__ import annotations

from tutelage.data._digits import digits
from tutelage.data._images import images
from tutelage.data._rows import UNLABELLED, Data, Rows, Source
from tutelage.data._table import table

__all__ = ["UNLABELLED", "Data", "Rows", "Source", "digits", "images", "table"]
