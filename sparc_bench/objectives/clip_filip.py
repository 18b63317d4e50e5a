"""CLIP + FILIP: the sum of losses with which SPARC's authors stabilised FILIP (SPARC section D.3, tables 9 and 10).

Shapes: B pairs of this rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from sparc_bench.cards.bounds import Weight
from sparc_bench.cards.card import Strict
from sparc_bench.objective import Ctx, ImageOut, TextOut
from sparc_bench.objectives.clip import contrastive_loss
from sparc_bench.objectives.filip import TokenMaxOptions, kept_vectors, token_max_loss
from sparc_bench.two_towers.heads import HeadedObjective

TITLE = "CLIP + FILIP: the global contrast plus FILIP's token-wise one"
SOURCE = "Bica et al. 2024, arXiv 2401.09865, section D.3; Yao et al. 2022, arXiv 2111.07783"


class ClipFilipOptions(TokenMaxOptions):
    """Weights of the sum, which the paper does not state."""

    global_weight: Weight = Field(default=1.0, description="weight of the global loss (not stated; a plain sum)")
    token_max_weight: Weight = Field(default=1.0, description="weight of FILIP's loss (not stated; a plain sum)")


class Objective(HeadedObjective):
    """The weighted sum of CLIP's and FILIP's losses, each with a learned temperature.

    The temperatures differ because maxima of cosines are higher and closer together than cosines. The test score is the
    cosine of global vectors, as in SPARC's evaluation.
    """

    Options: ClassVar[type[Strict]] = ClipFilipOptions
    paths: ClassVar[Mapping[str, bool]] = {"local": True, "global": True}
    token_path: ClassVar[str | None] = "local"
    options: ClipFilipOptions

    def __init__(self, image_width: int, text_width: int, options: Strict) -> None:
        super().__init__(image_width, text_width, options)
        self.log_token_max_scale = nn.Parameter(torch.tensor(math.log(1 / self.options.temperature)))

    @property
    def token_max_scale(self) -> Tensor:
        """The inverse temperature of FILIP's loss."""
        return self.log_token_max_scale.exp()

    def forward(self, image: ImageOut, text: TextOut, ctx: Ctx) -> dict[str, Tensor]:
        """Both losses of the first caption; token dropping affects FILIP's loss only."""
        global_loss = contrastive_loss(
            self.global_image(image), self.global_text(text)[:, 0], self.scale, ctx.known_true(), ctx
        )
        token_loss = token_max_loss(
            *kept_vectors(self, image, text, self.options.token_drop, ctx),
            self.token_max_scale,
            self.options.text_chunk,
            ctx.known_true(),
            ctx,
        )
        return {
            "loss": self.options.global_weight * global_loss + self.options.token_max_weight * token_loss,
            "global_loss": global_loss.detach(),
            "token_max_loss": token_loss.detach(),
            "scale": self.scale.detach(),
            "token_max_scale": self.token_max_scale.detach(),
        }

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Clamp both inverse temperatures to 1..max_scale."""
        super().after_step(step)
        self.log_token_max_scale.clamp_(0.0, math.log(self.options.max_scale))
