"""What a recipe says about texts: where they are, who makes tokens of them, and how these lie in rows."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from tutelage.config._spec import Count, FilePath, Fraction, Spec, Text, name_or_folder, refusal
from tutelage.config._words import came


class TokenizerSpec(Spec):
    """One that is trained on the training texts, or one that is there."""

    train: Annotated[
        int | None,
        Field(ge=258, le=10**6, description="Ids of a byte-level BPE that is trained on the training texts."),
    ] = None
    model: Annotated[
        Text | None,
        BeforeValidator(name_or_folder, json_schema_input_type=str | None),
        Field(description="The folder, or the id on the hub, of a model whose tokenizer is taken."),
    ] = None
    revision: Annotated[Text | None, Field(description="A branch, tag or commit of the model.")] = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.train is None) == (self.model is None):
            raise refusal("expected one of {train: 2048} and {model: <folder or id>}")
        if self.train is not None and self.revision is not None:
            raise refusal("a tokenizer that is trained has no revision; remove `revision`")
        return self


HIDDEN = 0.15
TARGET = "label"


def _class_name(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise refusal(f"expected the name of a class, a whole number or text; got {came(value)}")
    return value


ClassName = Annotated[int | str, BeforeValidator(_class_name)]
Missing = Annotated[
    list[ClassName] | None,
    Field(
        description="Labels that mean that a row has none, such as -1; with [] every label is a class. Unless given, "
        "common marks of missing labels (-1, NA, NaN, None, ...) and fractions are refused."
    ),
]


class TextsSpec(Spec):
    """What all texts have in common."""

    kind: ClassVar[str]
    """Which texts these are: "pystdlib" or "text"."""

    length: Annotated[
        int,
        Field(
            ge=2, le=10**6, description="Tokens of a row at most; longer texts are split, or cut if they have classes."
        ),
    ] = 256
    packing: Annotated[
        bool | None,
        Field(
            description="Whether texts share rows, in which none sees another, so that none is padded; for causal_lm "
            "alone, and there unless it is false."
        ),
    ] = None
    mask: Annotated[
        float | None,
        Field(gt=0, le=1, description=f"For masked_lm: the share of tokens that are hidden, {HIDDEN:g} unless given."),
    ] = None
    tokenizer: Annotated[
        TokenizerSpec | None, Field(description="Who makes tokens of the texts; the student's own unless given.")
    ] = None
    test_fraction: Annotated[
        Fraction, Field(description="The share of texts that is held out, told by their content.")
    ] = 0.05
    limit_tokens: Annotated[
        Count | None,
        Field(description="About how many tokens are trained on at most, evenly spread; all unless given."),
    ] = None


class PythonData(TextsSpec):
    """The source of Python's standard library, about 12 MB, as it lies on the machine."""

    kind: ClassVar[str] = "pystdlib"
    source: Annotated[Literal["pystdlib"], Field(description="The name of the bundled data.")]


class TextData(TextsSpec):
    """Texts, with a class each where these are told apart, prompts with completions, or conversations, in files."""

    kind: ClassVar[str] = "text"
    text: Annotated[
        FilePath,
        Field(
            description="A file (.jsonl, .json, .parquet, .csv, .tsv or plain text), a folder of files of one kind, or "
            "a pattern such as *.txt."
        ),
    ]
    test: Annotated[FilePath | None, Field(description="The same for held-out texts; else a share is held out.")] = None
    long_completions: Annotated[
        Literal["refuse", "drop"],
        Field(description="What becomes of completions and conversations that are longer than a row."),
    ] = "refuse"
    target: Annotated[
        Text | None,
        Field(description=f"For sequence_classification: where a row has its class, {TARGET!r} unless given."),
    ] = None
    missing: Missing = None
    labeled: Annotated[
        Count | None,
        Field(
            description="For sequence_classification: how many training rows keep their label for the student and its "
            "baseline, balanced by class; all of them unless given."
        ),
    ] = None
