"""SigLIP's sigmoid loss (Zhai et al. 2023): binary classification of every pair of image and text.

Shapes: B pairs of this rank, N pairs of all ranks, D joint width.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from sparc_bench.cards.bounds import Bias, Temperature
from sparc_bench.cards.card import Strict
from sparc_bench.objective import Ctx, ImageOut, TextOut
from sparc_bench.objectives._pairwise import to_text_rows
from sparc_bench.objectives.clip import full_precision
from sparc_bench.two_towers.heads import HeadedObjective, HeadOptions

TITLE = "SigLIP: sigmoid loss of global vectors, each pair by itself"
SOURCE = "Zhai et al. 2023, arXiv 2303.15343, section 3.2"


def pair_losses(
    logits_X: Float[Tensor, "*X"], matched_X: Bool[Tensor, "*X"], left_out_X: Bool[Tensor, "*X"] | None = None
) -> Float[Tensor, "*X"]:
    """-log sigmoid(logit) of matched pairs, -log sigmoid(-logit) of the others; 0 where a pair is left out."""
    losses_X = -F.logsigmoid(torch.where(matched_X, logits_X, -logits_X))
    return losses_X if left_out_X is None else losses_X.masked_fill(left_out_X, 0.0)


def sigmoid_loss(
    image_BD: Float[Tensor, "B D"],
    text_BD: Float[Tensor, "B D"],
    scale: Float[Tensor, ""] | float,
    bias: Float[Tensor, ""] | float,
    known_true_NN: Bool[Tensor, "N N"] | None = None,
    ctx: Ctx | None = None,
) -> Float[Tensor, ""]:
    """Sum over all N texts, mean over images, of `pair_losses`; the vectors are normalised here.

    Args:
        image_BD: image vectors of matched pairs.
        text_BD: text vectors of matched pairs.
        scale: inverse temperature.
        bias: bias added to scale times cosine; initially low because nearly all pairs are negatives.
        known_true_NN: pairs (image row, caption column) off the diagonal that are true, hence left out.
        ctx: context of the run; the scaled cosines (without bias) go to its logits as "global".
    """
    ctx = ctx or Ctx()
    rows = ctx.rows(len(image_BD))
    with torch.autocast(image_BD.device.type, enabled=False):
        image_BD = F.normalize(full_precision(image_BD), dim=-1)
        text_BD = F.normalize(full_precision(text_BD), dim=-1)
        logits_BN = scale * image_BD @ ctx.gather(text_BD).T
        ctx.logits["global"] = (logits_BN.detach(), to_text_rows(logits_BN.detach(), ctx))
        matched_NN = torch.eye(logits_BN.shape[1], dtype=torch.bool, device=logits_BN.device)
        left_out_BN = None if known_true_NN is None else known_true_NN[rows]
        losses_BN = pair_losses(logits_BN + bias, matched_NN[rows], left_out_BN)
        loss_B = losses_BN.sum(1)
        return ctx.mean(loss_B, torch.ones_like(loss_B))


class SiglipOptions(HeadOptions):
    """Initial temperature and bias, as in the paper; both are learned."""

    temperature: Temperature = Field(default=0.1, description="initial temperature (section 3.2: scale 10); learned")
    bias: Bias = Field(default=-10.0, description="initial bias of the logits (section 3.2: -10); learned")


class Objective(HeadedObjective):
    """SigLIP's loss of global vectors alone; the test score is their cosine."""

    Options: ClassVar[type[Strict]] = SiglipOptions
    options: SiglipOptions

    def __init__(self, image_width: int, text_width: int, options: Strict) -> None:
        super().__init__(image_width, text_width, options)
        self.bias = nn.Parameter(torch.tensor(self.options.bias))

    def forward(self, image: ImageOut, text: TextOut, ctx: Ctx) -> dict[str, Tensor]:
        """The sigmoid loss of the first caption."""
        loss = sigmoid_loss(
            self.global_image(image), self.global_text(text)[:, 0], self.scale, self.bias, ctx.known_true(), ctx
        )
        return {
            "loss": loss,
            "sigmoid_loss": loss.detach(),
            "scale": self.scale.detach(),
            "bias": self.bias.detach(),
        }
