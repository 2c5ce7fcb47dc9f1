"""What a recipe says about a model: an MLP, a model of timm by name, or one that was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator

from tutelage.config._spec import (
    Count,
    FilePath,
    NotNegative,
    Positive,
    Share,
    Spec,
    Text,
    branch,
    key_of,
    one_key_of,
    refusal,
    resolve,
)


class FitSpec(Spec):
    """How a teacher without weights is trained on the labels."""

    epochs: Annotated[Count, Field(description="Passes over the training rows.")] = 60
    batch_size: Annotated[Count, Field(description="Rows per optimiser step.")] = 64
    learning_rate: Annotated[Positive, Field(description="The highest learning rate.")] = 1e-3
    weight_decay: Annotated[NotNegative, Field(description="AdamW's weight decay.")] = 0.01
    seed: Annotated[int, Field(ge=0, lt=2**32, description="The seed of the initial weights and of the order.")] = 0


class MLPOptions(Spec):
    """The shape of an MLP."""

    hidden: Annotated[list[Count], Field(description="The width of each hidden layer; none makes it linear.")]
    dropout: Annotated[Share, Field(description="The share of hidden units left out at each training step.")] = 0.0
    activation: Annotated[Literal["relu", "gelu", "tanh"], Field(description="What follows each hidden layer.")] = (
        "relu"
    )


class ModelSpec(Spec):
    """What all models have in common."""

    kind: ClassVar[str]
    """Which model this is: "mlp", "timm" or "model"."""

    weights: Annotated[
        FilePath | None, Field(description="Where its weights are: a saved model's folder or a .safetensors file.")
    ] = None
    fit: Annotated[
        FitSpec | None, Field(description="For the teacher only: how it is trained first, on all labels.")
    ] = None

    @field_validator("fit")
    @classmethod
    def _one_source(cls, fit: FitSpec | None, info: ValidationInfo) -> FitSpec | None:
        if fit is not None and info.data.get("weights") is not None:
            raise refusal("the model has weights already; remove `fit`, or `weights` to train it anew")
        return fit


class MLPModel(ModelSpec):
    """A multilayer perceptron, made here."""

    kind: ClassVar[str] = "mlp"
    mlp: MLPOptions


class TimmModel(ModelSpec):
    """An image model of the timm library."""

    kind: ClassVar[str] = "timm"
    timm: Annotated[Text, Field(description="The model's name in timm, such as resnet18.")]
    pretrained: Annotated[bool, Field(description="Whether timm's published weights are loaded.")] = False

    @field_validator("pretrained")
    @classmethod
    def _one_start(cls, pretrained: bool, info: ValidationInfo) -> bool:
        if pretrained and info.data.get("weights") is not None:
            raise refusal("the model has weights of its own; remove `pretrained`, or `weights`")
        return pretrained


def _name_or_folder(name: Any, info: ValidationInfo) -> Any:
    """Return a folder as an absolute path, and any other name as it is: an id on the hub."""
    if not isinstance(name, str) or not name:
        return name
    if "\0" in name:
        raise refusal(f"expected a folder or an id, got {name!r}")
    path = resolve(name, info)
    return str(path) if name.startswith((".", "~", "/")) or Path(name).is_absolute() or path.is_dir() else name


class SavedModel(ModelSpec):
    """A model with its weights: the folder of a saved one, or the id of a published one."""

    kind: ClassVar[str] = "model"
    model: Annotated[
        Text,
        BeforeValidator(_name_or_folder, json_schema_input_type=str),
        Field(description="A saved model's folder, or an id on the hub."),
    ]

    @field_validator("weights", "fit")
    @classmethod
    def _complete(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None:
            raise refusal(f"a `model` is used as it was saved; remove `{info.field_name}`")
        return value


_KEYS: dict[str, type[Spec]] = {"mlp": MLPModel, "timm": TimmModel, "model": SavedModel}


AnyModel = Annotated[
    Annotated[MLPModel, Tag(branch("mlp"))]
    | Annotated[TimmModel, Tag(branch("timm"))]
    | Annotated[SavedModel, Tag(branch("model"))],
    Discriminator(lambda value: key_of(value, _KEYS)),
    one_key_of(list(_KEYS), ModelSpec.model_fields, "a model", "{mlp: {hidden: [16]}}"),
]

BRANCHES: dict[str, type[Spec]] = {branch(key): cls for key, cls in _KEYS.items()}


def has_weights(model: ModelSpec) -> bool:
    """Return whether a model is more than its random start once it has been loaded, or fitted."""
    pretrained = isinstance(model, TimmModel) and model.pretrained
    return pretrained or isinstance(model, SavedModel) or model.weights is not None or model.fit is not None
