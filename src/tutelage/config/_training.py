"""What a recipe says about training: how long, how fast, how often, and where."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from tutelage.config._spec import Count, NotNegative, Positive, Share, Spec, refusal
from tutelage.config._words import came

DEFAULT_EPOCHS = 60

Seed = Annotated[int, Field(ge=0, lt=2**32)]


def _seeds(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, list)):
        raise refusal("expected how many seeds (3 is 0, 1, 2), or a list of them")
    if isinstance(value, int) and not 1 <= value <= 1000:
        raise refusal(f"expected 1 to 1000 seeds, got {came(value)}; for one seed of your own, write [seed]")
    if isinstance(value, list):
        if not value:
            raise refusal("expected at least one seed, got an empty list")
        for seed in value:
            if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
                raise refusal(f"expected whole numbers from 0 to 2^32 - 1, got {came(seed)}")
            if value.count(seed) > 1:
                raise refusal(f"the seed {seed} stands there twice; name each once")
    return value


class TrainingSpec(Spec):
    """How the student, and its baseline, are trained."""

    epochs: Annotated[
        Count | None, Field(description=f"Passes over the transfer set; {DEFAULT_EPOCHS} unless `steps` is given.")
    ] = None
    steps: Annotated[Count | None, Field(description="Optimiser steps, instead of epochs.")] = None
    batch_size: Annotated[Count, Field(description="Rows per forward pass.")] = 64
    accumulation: Annotated[Count, Field(description="Forward passes per optimiser step.")] = 1
    learning_rate: Annotated[Positive, Field(description="The highest learning rate.")] = 1e-3
    weight_decay: Annotated[NotNegative, Field(description="AdamW's weight decay.")] = 0.01
    warmup: Annotated[Share, Field(description="The share of steps over which the learning rate rises.")] = 0.0
    schedule: Annotated[
        Literal["cosine", "linear", "constant"], Field(description="How the learning rate falls after that.")
    ] = "cosine"
    max_grad_norm: Annotated[NotNegative, Field(description="Gradients longer than this are cut to it; 0: none.")] = 1.0
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"], Field(description="What the networks compute in.")
    ] = "float32"
    seeds: Annotated[
        Annotated[int, Field(ge=1, le=1000)] | list[Seed],
        BeforeValidator(_seeds),
        Field(description="How many seeds are run, from 0, or a list of them."),
    ] = 1
    mix: Annotated[
        NotNegative,
        Field(description="b of Beta(b, b): each batch gets as many mixtures of two rows, without labels; 0: none."),
    ] = 0.0
    evaluations: Annotated[Count, Field(description="How many times a run is evaluated, evenly spread.")] = 20
    checkpoints: Annotated[Count, Field(description="How many checkpoints a run keeps, evenly spread.")] = 4
    device: Annotated[Literal["auto", "cpu", "cuda"], Field(description="Where it runs; auto: a GPU if there is.")] = (
        "auto"
    )

    @model_validator(mode="before")
    @classmethod
    def _default_length(cls, value: Any) -> Any:
        given = not isinstance(value, dict) or value.get("epochs") is not None or value.get("steps") is not None
        return value if given else {**value, "epochs": DEFAULT_EPOCHS}

    @field_validator("steps")
    @classmethod
    def _one_length(cls, steps: int | None, info: ValidationInfo) -> int | None:
        if steps is not None and info.data.get("epochs") is not None:
            raise refusal("epochs are given too; keep one (in overrides: `training.epochs=null training.steps=100`)")
        return steps

    @property
    def seed_list(self) -> list[int]:
        """The seeds to run, as a list."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else list(self.seeds)
