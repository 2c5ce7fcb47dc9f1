"""What a recipe says about a model: an MLP, a model of timm by name, a small Llama or BERT, or one that was saved."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

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
    name_or_folder,
    one_key_of,
    refusal,
    refuse,
)

DEFAULT_FIT = 60


class FitSpec(Spec):
    """How a teacher without weights is trained on the labels."""

    epochs: Annotated[
        Count | None, Field(description=f"Passes over the training rows; {DEFAULT_FIT} unless `steps` is given.")
    ] = None
    steps: Annotated[Count | None, Field(description="Optimiser steps, instead of epochs.")] = None
    batch_size: Annotated[Count, Field(description="Rows per optimiser step.")] = 64
    learning_rate: Annotated[Positive, Field(description="The highest learning rate.")] = 1e-3
    weight_decay: Annotated[NotNegative, Field(description="AdamW's weight decay.")] = 0.01
    warmup: Annotated[Share, Field(description="The share of steps over which the learning rate rises.")] = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**32, description="The seed of the initial weights and of the order.")] = 0

    @model_validator(mode="before")
    @classmethod
    def _default_length(cls, value: Any) -> Any:
        given = not isinstance(value, dict) or value.get("epochs") is not None or value.get("steps") is not None
        return value if given else {**value, "epochs": DEFAULT_FIT}

    @field_validator("steps")
    @classmethod
    def _one_length(cls, steps: int | None, info: ValidationInfo) -> int | None:
        if steps is not None and info.data.get("epochs") is not None:
            raise refusal("epochs are given too; keep one")
        return steps


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
    """Which model this is: "mlp", "timm", "llama", "bert" or "model"."""

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
    """A multilayer perceptron with random weights."""

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


class LlamaOptions(Spec):
    """The shape of a Llama with tied embeddings; its vocabulary is the tokenizer's."""

    hidden: Annotated[int, Field(ge=2, le=10**5, description="The width.")]
    layers: Annotated[Count, Field(description="How many layers.")]
    heads: Annotated[Count, Field(description="Attention heads of each layer; they divide the width into even parts.")]
    key_value_heads: Annotated[
        Count | None, Field(description="Heads of keys and values, which divide the heads; as many unless given.")
    ] = None
    intermediate: Annotated[Count, Field(description="The width inside each layer's MLP.")]

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.hidden % (2 * self.heads):
            refuse([(("heads",), f"expected heads that divide hidden={self.hidden} into even parts, got {self.heads}")])
        if self.key_value_heads is not None and self.heads % self.key_value_heads:
            message = f"expected a number that divides heads={self.heads}, got {self.key_value_heads}"
            refuse([(("key_value_heads",), message)])
        return self


class LlamaModel(ModelSpec):
    """A small Llama with random weights: a language model."""

    kind: ClassVar[str] = "llama"
    llama: LlamaOptions


class BertOptions(Spec):
    """The shape of a BERT with tied embeddings and no dropout; its vocabulary is the tokenizer's."""

    hidden: Annotated[Count, Field(description="The width.")]
    layers: Annotated[Count, Field(description="How many layers.")]
    heads: Annotated[Count, Field(description="Attention heads of each layer; they divide the width.")]
    intermediate: Annotated[Count, Field(description="The width inside each layer's MLP.")]

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.hidden % self.heads:
            refuse([(("heads",), f"expected heads that divide hidden={self.hidden}, got {self.heads}")])
        return self


class BertModel(ModelSpec):
    """A small BERT with random weights: an encoder."""

    kind: ClassVar[str] = "bert"
    bert: BertOptions


class LoraSpec(Spec):
    """Low-rank adapters."""

    rank: Annotated[Count, Field(description="The inner width of each pair of matrices.")] = 8
    alpha: Annotated[Positive, Field(description="Their product is scaled by alpha / rank.")] = 16.0
    targets: Annotated[
        list[Text] | None,
        Field(min_length=1, description="Ends of the paths of layers, such as q_proj; all matrices unless given."),
    ] = None
    dropout: Annotated[Share, Field(description="Before the pair.")] = 0.0


class SavedModel(ModelSpec):
    """A model with its weights: the folder of a saved one, or the id of a published one."""

    kind: ClassVar[str] = "model"
    model: Annotated[
        Text,
        BeforeValidator(name_or_folder, json_schema_input_type=str),
        Field(description="A saved model's folder, or an id on the hub."),
    ]
    revision: Annotated[Text | None, Field(description="A branch, tag or commit of the model on the hub.")] = None
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16", "auto"],
        Field(description="What its weights are kept in; auto: as they were saved."),
    ] = "float32"
    lora: Annotated[
        LoraSpec | None, Field(description="Train low-rank adapters beside its layers, which are frozen.")
    ] = None

    @field_validator("weights")
    @classmethod
    def _complete(cls, value: Any) -> Any:
        if value is not None:
            raise refusal("a `model` is used as it was saved; remove `weights`")
        return value

    @property
    def changed(self) -> list[str]:
        """What is asked of it that only models of transformers have."""
        fields = type(self).model_fields
        return [name for name in ("revision", "dtype", "lora") if getattr(self, name) != fields[name].default]


_KEYS: dict[str, type[ModelSpec]] = {
    "mlp": MLPModel,
    "timm": TimmModel,
    "llama": LlamaModel,
    "bert": BertModel,
    "model": SavedModel,
}


AnyModel = Annotated[
    Annotated[MLPModel, Tag(branch("mlp"))]
    | Annotated[TimmModel, Tag(branch("timm"))]
    | Annotated[LlamaModel, Tag(branch("llama"))]
    | Annotated[BertModel, Tag(branch("bert"))]
    | Annotated[SavedModel, Tag(branch("model"))],
    Discriminator(lambda value: key_of(value, _KEYS)),
    one_key_of(list(_KEYS), ModelSpec.model_fields, "a model", "{mlp: {hidden: [16]}}"),
]

BRANCHES: dict[str, type[ModelSpec]] = {branch(key): cls for key, cls in _KEYS.items()}


def has_weights(model: ModelSpec) -> bool:
    """Return whether a model is more than its random start once it has been loaded, or fitted."""
    pretrained = isinstance(model, TimmModel) and model.pretrained
    return pretrained or isinstance(model, SavedModel) or model.weights is not None or model.fit is not None
