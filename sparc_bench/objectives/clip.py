"""CLIP's contrastive loss (Radford et al. 2021; SPARC eq. 1) on the shared heads.

Shapes: B pairs of this rank, N pairs of all ranks, D joint width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sparc_bench.objective import Ctx, ImageOut, TextOut
from sparc_bench.two_towers.heads import HeadedObjective, HeadOptions

TITLE = "CLIP: symmetric softmax contrast of global vectors"
SOURCE = "Radford et al. 2021, arXiv 2103.00020; SPARC eq. 1"


def full_precision(vectors: Tensor) -> Tensor:
    """The vectors in float32, or unchanged if in float32 or float64."""
    return vectors.float() if vectors.dtype in (torch.bfloat16, torch.float16) else vectors


def contrastive_loss(
    image_BD: Float[Tensor, "B D"],
    text_BD: Float[Tensor, "B D"],
    scale: Float[Tensor, ""] | float,
    known_true_NN: Bool[Tensor, "N N"] | None = None,
    ctx: Ctx | None = None,
    name: str = "global",
) -> Float[Tensor, ""]:
    """Mean of both directions' cross entropy of scaled cosines; the vectors are normalised here.

    Args:
        image_BD: image vectors of matched pairs.
        text_BD: text vectors of matched pairs.
        scale: inverse temperature.
        known_true_NN: pairs (image row, caption column) off the diagonal that are true, hence no negatives.
        ctx: context of the run, for data parallelism.
        name: name of the logits in `ctx.logits`.
    """
    ctx = ctx or Ctx()
    with torch.autocast(image_BD.device.type, enabled=False):
        image_BD = F.normalize(full_precision(image_BD), dim=-1)
        text_BD = F.normalize(full_precision(text_BD), dim=-1)
        per_image_BN = scale * image_BD @ ctx.gather(text_BD).T
        per_text_BN = scale * text_BD @ ctx.gather(image_BD).T
        ctx.logits[name] = (per_image_BN.detach(), per_text_BN.detach())
        return cross_entropy_both_ways(per_image_BN, per_text_BN, known_true_NN, ctx)


def cross_entropy_both_ways(
    per_image_BN: Float[Tensor, "B N"],
    per_text_BN: Float[Tensor, "B N"],
    known_true_NN: Bool[Tensor, "N N"] | None = None,
    ctx: Ctx | None = None,
) -> Float[Tensor, ""]:
    """Mean over all pairs of both directions' cross entropy, from this rank's rows of logits.

    Args:
        per_image_BN: logits of this rank's images with every text.
        per_text_BN: logits of this rank's texts with every image.
        known_true_NN: pairs (image row, caption column) off the diagonal that are true, hence no negatives.
        ctx: context of the run, for data parallelism.
    """
    ctx = ctx or Ctx()
    rows = ctx.rows(len(per_image_BN))
    if known_true_NN is not None:
        lowest = torch.finfo(per_image_BN.dtype).min
        per_image_BN = per_image_BN.masked_fill(known_true_NN[rows], lowest)
        per_text_BN = per_text_BN.masked_fill(known_true_NN.T[rows], lowest)
    own_B = torch.arange(rows.start, rows.stop, device=per_image_BN.device)
    loss_B = (
        F.cross_entropy(per_image_BN, own_B, reduction="none") + F.cross_entropy(per_text_BN, own_B, reduction="none")
    ) / 2
    return ctx.mean(loss_B, torch.ones_like(loss_B))


class Objective(HeadedObjective):
    """CLIP's loss alone."""

    Options = HeadOptions

    def forward(self, image: ImageOut, text: TextOut, ctx: Ctx) -> dict[str, Tensor]:
        """The contrastive loss of the first caption."""
        loss = contrastive_loss(
            self.global_image(image), self.global_text(text)[:, 0], self.scale, ctx.known_true(), ctx
        )
        return {"loss": loss, "global_loss": loss.detach(), "scale": self.scale.detach()}
