"""The table [image] of a recipe: an image tower of timm, from random or pretrained weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from sparc_bench.cards.bounds import (
    Depth,
    Deviation,
    Heads,
    Pixels,
    Share,
    Stage,
    Width,
    refuse_large_tower,
    refuse_many_patches,
    refuse_uneven_heads,
)
from sparc_bench.cards.card import Extended

FROM_HUB = "timm"
"""Value of `pretrained` for timm's own weights of the model, on the hub."""

PACKAGE = "package:"
"""Prefix of `pretrained` for a weights file within an installed Python package."""


FITTED = ("projection", "position_mean")
"""Keys of what is fitted to the training features of a frozen trunk."""


class ImageTowerTable(Extended):
    """A model of timm; its feature map gives the patches.

    A vision transformer from random weights loses its class token and takes other sizes; every other model (a
    pretrained one, a ConvNet, a hybrid) is timm's own, without its classifier.
    """

    model: str = Field(default="vit_base_patch16_224", description="timm's name of the model")
    size: Pixels | None = Field(
        default=224,
        description="input height and width in pixels; images are squashed to it; a pretrained model has timm's by "
        "default",
    )
    patch: Pixels | None = Field(default=None, description="patch size in pixels; none: the timm model's")
    width: Width | None = Field(default=None, description="embedding width; none: the timm model's")
    depth: Depth | None = Field(default=None, description="number of layers; none: the timm model's")
    heads: Heads | None = Field(default=None, description="number of attention heads; none: the timm model's")
    interpolation: Literal["bicubic", "bilinear"] | None = Field(
        default="bicubic", description="of the resize; a pretrained model has timm's by default"
    )
    pretrained: str = Field(
        default="",
        description="pretrained weights: timm (its own, through the hub), package:NAME (the weights file in an "
        "installed package) or a file, relative to the card; empty: random weights",
    )
    sha256: str = Field(
        default="", pattern="^([0-9a-f]{64})?$", description="sha256 of the pretrained weights; a file needs it"
    )
    pretrained_on: tuple[str, ...] = Field(
        default=(), description="training data of the pretrained weights, as dataset:split; empty: unknown"
    )
    out_indices: tuple[Stage, ...] = Field(
        default=(),
        description="stages (or layers) whose features are the patches, as timm numbers them; several are brought to "
        "the finest grid among them (bilinear) and joined; empty: the model's last features",
    )
    mean: tuple[Share, Share, Share] | None = Field(
        default=None, description="mean of the channels, of values from 0 to 1; none: 0.5, and timm's where pretrained"
    )
    std: tuple[Deviation, Deviation, Deviation] | None = Field(
        default=None, description="standard deviation of the channels; none: 0.5, and timm's where pretrained"
    )
    projection: Width | None = Field(
        default=None,
        description="the patches of a frozen trunk are projected to so many dimensions: the first principal "
        "directions of the training features; none: they stay as they are",
    )
    position_mean: bool = Field(
        default=False,
        description="whether the mean of the training features at each grid position is taken off the patches of a "
        "frozen trunk",
    )

    FORMER: ClassVar[Mapping[str, Any]] = {
        "pretrained": "",
        "sha256": "",
        "pretrained_on": (),
        "out_indices": (),
        "mean": None,
        "std": None,
        "projection": None,
        "position_mean": False,
    }

    @property
    def is_file(self) -> bool:
        """Whether the pretrained weights are a file that the card names."""
        return bool(self.pretrained) and self.pretrained != FROM_HUB and not self.pretrained.startswith(PACKAGE)

    @model_validator(mode="before")
    @classmethod
    def _as_timm_has_them(cls, values: Any) -> Any:  # noqa: ANN401 - whatever the file holds
        if isinstance(values, dict) and values.get("pretrained"):
            return {"size": None, "interpolation": None} | values
        return values

    @field_validator("model")
    @classmethod
    def _of_timm(cls, name: str) -> str:
        if not re.fullmatch(r"\w+(\.\w+)?", name):
            raise ValueError("is a name of timm's own: hf-hub: and local-dir: would be fetched or read unasked")
        return name

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.patch is not None and self.size is not None:
            if self.size % self.patch:
                raise ValueError(f"size {self.size} is no multiple of patch {self.patch}: change one of them")
            refuse_many_patches(self.size // self.patch)
        if self.width is not None:
            refuse_uneven_heads(self.width, self.heads or 1)
            refuse_large_tower(self.width, self.depth or 1)
        shaped = next((key for key in ("patch", "width", "depth", "heads") if getattr(self, key) is not None), None)
        if shaped and self.pretrained:
            raise ValueError(f"pretrained weights have their own {shaped}: leave {shaped} out")
        if shaped and self.out_indices:
            raise ValueError(f"out_indices are stages of timm's own model: leave {shaped} out")
        if self.is_file and not self.sha256:
            raise ValueError(f"the weights {self.pretrained} need their sha256: add it (sha256sum FILE)")
        if not self.pretrained and (self.sha256 or self.pretrained_on):
            raise ValueError("sha256 and pretrained_on belong to pretrained weights: name them, or leave these out")
        return self
