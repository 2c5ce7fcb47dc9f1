"""Rows to learn from: digits, a table, a folder of images, each as one `Data` with fixed parts; texts as `TokenRows`.

Who sees what is decided here and nowhere else, by numbers that depend on the rows alone: which rows are held out, which
keep their labels, which classes the student never sees. Texts with a class each are `Data`, too.
"""

from __future__ import annotations

from tutelage.data._corpus import Corpus, python_source
from tutelage.data._digits import digits
from tutelage.data._encode import encode
from tutelage.data._images import images
from tutelage.data._labelled_texts import TextRows, class_names, labelled_texts, split_labelled
from tutelage.data._labels import same_classes, spelled
from tutelage.data._masking import MaskedCollator, encode_masked
from tutelage.data._packing import pack
from tutelage.data._rows import UNLABELLED, Data, Rows, Source
from tutelage.data._table import table
from tutelage.data._text_files import read_rows, split_rows
from tutelage.data._token_collate import CausalCollator
from tutelage.data._token_rows import TokenRows
from tutelage.data._train_tokenizer import train_tokenizer

__all__ = [
    "UNLABELLED",
    "CausalCollator",
    "Corpus",
    "Data",
    "MaskedCollator",
    "Rows",
    "Source",
    "TextRows",
    "TokenRows",
    "class_names",
    "digits",
    "encode",
    "encode_masked",
    "images",
    "labelled_texts",
    "pack",
    "python_source",
    "read_rows",
    "same_classes",
    "spelled",
    "split_labelled",
    "split_rows",
    "table",
    "train_tokenizer",
]
