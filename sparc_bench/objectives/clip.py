"""CLIP's contrastive loss (Radford et al. 2021; SPARC eq. 1) on the heads that all objectives share.

Shapes: B batch, D joint width.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparc_bench.objective import Ctx, ImageOut, TextOut
from sparc_bench.training.heads import HeadedObjective, HeadOptions

TITLE = "CLIP: symmetric softmax contrast of global vectors"
SOURCE = "Radford et al. 2021, arXiv 2103.00020; SPARC eq. 1"


def full_precision(vectors: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 as they are."""
    return vectors.float() if vectors.dtype in (torch.bfloat16, torch.float16) else vectors


def contrastive_loss(
    image_BD: Float[Tensor, "B D"],
    text_BD: Float[Tensor, "B D"],
    scale: Float[Tensor, ""] | float,
    known_true_BB: Bool[Tensor, "B B"] | None = None,
    ctx: Ctx | None = None,
) -> Float[Tensor, ""]:
    """Mean of both directions' cross entropy of scaled cosines; the vectors are normalised here.

    Args:
        image_BD: image vectors of matched pairs.
        text_BD: text vectors of matched pairs.
        scale: inverse temperature.
        known_true_BB: pairs (image row, caption column) off the diagonal that are true and so no negatives.
        ctx: the run, for data parallelism.
    """
    ctx = ctx or Ctx()
    with torch.autocast(image_BD.device.type, enabled=False):
        image_BD = torch.nn.functional.normalize(full_precision(image_BD), dim=-1)
        text_BD = torch.nn.functional.normalize(full_precision(text_BD), dim=-1)
        per_image_BN = scale * image_BD @ ctx.gather(text_BD).T
        per_text_BN = scale * text_BD @ ctx.gather(image_BD).T
        if known_true_BB is not None:
            lowest = torch.finfo(per_image_BN.dtype).min
            per_image_BN = per_image_BN.masked_fill(known_true_BB, lowest)
            per_text_BN = per_text_BN.masked_fill(known_true_BB.T, lowest)
        rows_B = torch.arange(len(image_BD), device=image_BD.device)
        loss_B = (
            torch.nn.functional.cross_entropy(per_image_BN, rows_B, reduction="none")
            + torch.nn.functional.cross_entropy(per_text_BN, rows_B, reduction="none")
        ) / 2
        return ctx.mean(loss_B, torch.ones_like(loss_B))


class Objective(HeadedObjective):
    """The global loss alone."""

    Options = HeadOptions

    def forward(self, image: ImageOut, text: TextOut, ctx: Ctx) -> dict[str, Tensor]:
        """The contrastive loss of the first caption."""
        loss = contrastive_loss(
            self.global_image(image), self.global_text(text)[:, 0], self.scale, ctx.extra.get("known_true"), ctx
        )
        return {"loss": loss, "global_loss": loss.detach(), "scale": self.scale.detach()}
