"""What a recipe says about its data: bundled digits, a table, or folders of images; or texts, in `_texts`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator

from tutelage.config._spec import (
    Count,
    FilePath,
    Fraction,
    Spec,
    Text,
    branch,
    key_of,
    listed,
    one_key_of,
    refusal,
)
from tutelage.config._texts import ClassName, Missing, PythonData, TextData, TextsSpec

SUFFIXES = (".csv", ".tsv", ".parquet", ".npz")


class ClassesSpec(Spec):
    """What all data of classes have in common."""

    kind: ClassVar[str]
    """Which data these are: "digits", "table" or "images"."""

    labeled: Annotated[
        Count | None,
        Field(
            description="How many training rows keep their label for the student and its baseline, balanced by class; "
            "all of them unless given. The teacher is fitted with every label."
        ),
    ] = None


class DigitsData(ClassesSpec):
    """The 1,797 scans of handwritten digits that scikit-learn brings along: 1,200 for training, 597 held out."""

    kind: ClassVar[str] = "digits"
    source: Annotated[Literal["digits"], Field(description="The name of the bundled data.")]
    omit: Annotated[
        list[Annotated[int, Field(ge=0, le=9)]],
        Field(default_factory=list, description="Digits of which the student's transfer set has no image."),
    ]

    @field_validator("omit")
    @classmethod
    def _omit_some(cls, omit: list[int]) -> list[int]:
        if len(set(omit)) > 8:
            raise refusal("omits so many digits that fewer than two are left; omit fewer")
        return _each_once(omit)


class TableData(ClassesSpec):
    """A table of numbers with one column of classes."""

    kind: ClassVar[str] = "table"
    table: Annotated[FilePath, Field(description="The file with the rows: .csv, .tsv, .parquet or .npz.")]
    target: Annotated[
        Text,
        Field(description="The column that holds the class; a row has no label where it is empty, null, NaN or -100."),
    ]
    missing: Missing = None
    features: Annotated[
        list[Text] | None, Field(min_length=1, description="The columns to learn from; all others unless given.")
    ] = None
    test: Annotated[FilePath | None, Field(description="A file with held-out rows; else a share is held out.")] = None
    test_fraction: Annotated[Fraction, Field(description="The share of rows that is held out without `test`.")] = 0.25
    omit: Annotated[
        list[ClassName],
        Field(default_factory=list, description="Classes of which the student's transfer set has no row."),
    ]

    @field_validator("table", "test")
    @classmethod
    def _known_format(cls, path: Any) -> Any:
        if path is not None and path.suffix.lower() not in SUFFIXES:
            raise refusal(f"expected a file that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, got {path.name}")
        return path

    @field_validator("features", "omit", "missing")
    @classmethod
    def _once(cls, names: Any) -> Any:
        return names if names is None else _each_once(names)


class ImagesData(ClassesSpec):
    """A folder of images, with one folder inside for each class."""

    kind: ClassVar[str] = "images"
    images: Annotated[FilePath, Field(description="The folder that holds one folder of images per class.")]
    test: Annotated[FilePath | None, Field(description="The same for held-out images; else a share is held out.")] = (
        None
    )
    test_fraction: Annotated[Fraction, Field(description="The share of images that is held out without `test`.")] = 0.25
    size: Annotated[Count | None, Field(description="Height and width in pixels; that of the images unless given.")] = (
        None
    )
    omit: Annotated[
        list[ClassName],
        Field(default_factory=list, description="Classes of which the student's transfer set has no image."),
    ]

    @field_validator("omit")
    @classmethod
    def _once(cls, names: list[Any]) -> list[Any]:
        return _each_once(names)


def _each_once(names: list[Any]) -> list[Any]:
    for name in names:
        if names.count(name) > 1:
            raise refusal(f"{name!r} stands there twice; name each once")
    return names


_KEYS: dict[str, type[Spec]] = {"source": DigitsData, "table": TableData, "images": ImagesData, "text": TextData}
_SOURCES: dict[str, type[Spec]] = {"digits": DigitsData, "pystdlib": PythonData}
_CLASSES: dict[str, type[Spec]] = {**_SOURCES, **{key: _KEYS[key] for key in ("table", "images", "text")}}


def _branch(value: Any) -> str | None:
    """Return the branch of the data: by its key, or by the name of what is bundled."""
    if isinstance(value, dict) and "source" in value:
        return branch(value["source"])
    return key_of(value, _CLASSES)


def _known_source(value: Any) -> Any:
    if isinstance(value, dict) and "source" in value:
        listed("source", value["source"], _SOURCES)
    return value


DataSpec = Annotated[
    Annotated[DigitsData, Tag(branch("digits"))]
    | Annotated[PythonData, Tag(branch("pystdlib"))]
    | Annotated[TableData, Tag(branch("table"))]
    | Annotated[ImagesData, Tag(branch("images"))]
    | Annotated[TextData, Tag(branch("text"))],
    Discriminator(_branch),
    BeforeValidator(_known_source),
    one_key_of(
        list(_KEYS),
        [*ClassesSpec.model_fields, *TextsSpec.model_fields],
        "the data",
        "{source: digits} or {table: rows.csv, target: class}",
    ),
]

# The key `source` has a branch as well: by it a recipe that is written puts it first.
BRANCHES: dict[str, type[Spec]] = {branch(key): cls for key, cls in {**_KEYS, **_CLASSES}.items()}
