"""NegCLIP: CLIP's loss with a hard negative caption, written to be false of the image, per caption (arXiv 2210.01936).

Shapes: B pairs of this rank, N pairs of all ranks, D joint width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sparc_bench.dataset import Example
from sparc_bench.objective import Ctx, ImageOut, TextOut
from sparc_bench.objectives.clip import full_precision
from sparc_bench.two_towers.heads import HeadedObjective, HeadOptions

TITLE = "NegCLIP: CLIP's loss with false captions among the negatives of every image"
SOURCE = "Yuksekgonul et al. 2023, arXiv 2210.01936"


def hard_negative_losses(
    image_BD: Float[Tensor, "B D"],
    text_BD: Float[Tensor, "B D"],
    false_BD: Float[Tensor, "B D"],
    scale: Float[Tensor, ""] | float,
    known_true_NN: Bool[Tensor, "N N"] | None = None,
    ctx: Ctx | None = None,
    name: str = "global",
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Cross entropies of images over all true and false captions, and of true captions over all images.

    The columns of false captions follow those of all true ones, so that the column of an image's caption does not
    depend on the number of ranks. The vectors are normalised here; the objective is the mean of both.

    Args:
        image_BD: image vectors of matched pairs.
        text_BD: vectors of their captions.
        false_BD: vectors of captions that are false of these images; each is a negative for all images.
        scale: inverse temperature.
        known_true_NN: pairs (image row, caption column) off the diagonal that are true, hence no negatives.
        ctx: context of the run, for data parallelism.
        name: name of the logits of images and true captions in `ctx.logits`.
    """
    ctx = ctx or Ctx()
    rows = ctx.rows(len(image_BD))
    with torch.autocast(image_BD.device.type, enabled=False):
        image_BD, text_BD, false_BD = (F.normalize(full_precision(x), dim=-1) for x in (image_BD, text_BD, false_BD))
        per_image_BN = scale * image_BD @ ctx.gather(text_BD).T
        per_text_BN = scale * text_BD @ ctx.gather(image_BD).T
        false_BN = scale * image_BD @ ctx.gather(false_BD).T
        ctx.logits[name] = (per_image_BN.detach(), per_text_BN.detach())
        if known_true_NN is not None:
            lowest = torch.finfo(per_image_BN.dtype).min
            per_image_BN = per_image_BN.masked_fill(known_true_NN[rows], lowest)
            per_text_BN = per_text_BN.masked_fill(known_true_NN.T[rows], lowest)
        own_B = torch.arange(rows.start, rows.stop, device=image_BD.device)
        image_B = F.cross_entropy(torch.cat([per_image_BN, false_BN], 1), own_B, reduction="none")
        text_B = F.cross_entropy(per_text_BN, own_B, reduction="none")
        return ctx.mean(image_B, torch.ones_like(image_B)), ctx.mean(text_B, torch.ones_like(text_B))


class Objective(HeadedObjective):
    """The mean of both directions' cross entropy.

    The paper also samples similar images into a batch, which is a matter of the data and left out here. A false caption
    is known to be false of its own image; as in the paper, its truth for the batch's other images is not checked.
    """

    Options = HeadOptions
    data_needs: ClassVar[frozenset[str]] = frozenset({"captions", "negatives"})

    @property
    def negatives_per_image(self) -> int:
        """Written negatives per image in a step: one for the caption."""
        return 1

    def texts(self, example: Example, chosen: Sequence[int]) -> tuple[str, ...]:
        """The caption and its negative: K = 2."""
        return (*super().texts(example, chosen), *(example.negatives[k] for k in chosen))

    def forward(self, image: ImageOut, text: TextOut, ctx: Ctx) -> dict[str, Tensor]:
        """Losses of both directions; text 0 of an image is its caption, text 1 the false caption."""
        texts_BKD = self.global_text(text)
        image_loss, text_loss = hard_negative_losses(
            self.global_image(image), texts_BKD[:, 0], texts_BKD[:, 1], self.scale, ctx.known_true(), ctx
        )
        return {
            "loss": (image_loss + text_loss) / 2,
            "image_loss": image_loss.detach(),
            "text_loss": text_loss.detach(),
            "scale": self.scale.detach(),
        }
