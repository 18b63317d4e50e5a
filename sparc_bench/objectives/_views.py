"""Base of the multi-view losses: an image and its captions as views of one object, and a fixed temperature.

Shapes: B pairs of this rank, N pairs of all ranks, V views, K captions, D joint width.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from sparc_bench.cards.bounds import Captions, Temperature
from sparc_bench.cards.card import Strict
from sparc_bench.objective import Ctx, ImageOut, TextOut
from sparc_bench.objectives.clip import full_precision
from sparc_bench.two_towers.heads import HeadedObjective, HeadOptions


class ViewOptions(HeadOptions):
    """Number of views, and the fixed temperature."""

    captions: Captions = Field(default=2, description="captions per image; the views are the image and these captions")
    temperature: Temperature = Field(default=0.1, description="fixed, not learned (arXiv 2507.06979: 0.1 to 0.5)")

    @model_validator(mode="after")
    def _nothing_to_bound(self) -> ViewOptions:
        if "max_scale" in self.model_fields_set:
            raise ValueError("max_scale bounds a learned temperature and this loss has a fixed one: leave it out")
        return self


class ViewsObjective(HeadedObjective):
    """Base of losses over the global vectors of V = 1 + captions views.

    The test score is the cosine of image and text; no logits of these losses equal it.
    """

    Options: ClassVar[type[Strict]] = ViewOptions
    scored_as: ClassVar[tuple[str, ...]] = ()
    options: ViewOptions

    def __init__(self, image_width: int, text_width: int, options: Strict) -> None:
        super().__init__(image_width, text_width, options)
        del self.log_scale  # the temperature is fixed: a parameter would stay idle

    @property
    def captions_per_image(self) -> int:
        """Number of views other than the image."""
        return self.options.captions

    @property
    def scale(self) -> Tensor:
        """The fixed inverse temperature."""
        return self.g_v.weight.new_tensor(1 / self.options.temperature, dtype=torch.float32)

    def views(self, image: ImageOut, text: TextOut, ctx: Ctx) -> Tensor:
        """Views VND of all ranks, the image first, un-normalised."""
        views_BVD = torch.cat([self.global_image(image).unsqueeze(1), self.global_text(text)], 1)
        return ctx.gather(full_precision(views_BVD)).transpose(0, 1)

    def after_step(self, step: int) -> None:
        """Do nothing: a fixed temperature needs no clamping."""
