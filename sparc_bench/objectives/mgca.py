"""MGCA: alignment of pairs at three levels - instances, tokens and prototypes (Wang et al. 2022).

Shapes: B pairs of this rank, N rows of all ranks, L text tokens, P patches, D joint width, C prototypes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from sparc_bench.cards.bounds import Iterations, Prototypes, Temperature, Weight
from sparc_bench.cards.card import Strict
from sparc_bench.objective import Ctx, ImageOut, TextOut
from sparc_bench.objectives.clip import contrastive_loss, full_precision
from sparc_bench.two_towers.heads import HeadedObjective, HeadOptions

TITLE = "MGCA: CLIP's loss, words against patches within a pair, and swapped assignment to prototypes"
SOURCE = "Wang et al. 2022 (NeurIPS), its released code; SPARC's changes: arXiv 2401.09865 section D.3"

_EPS = 1e-6


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=-1, eps=_EPS)


def word_alignment_loss(
    patches_BPD: Float[Tensor, "B P D"],
    tokens_BLD: Float[Tensor, "B L D"],
    mask_BL: Bool[Tensor, "B L"],
    temperature: float = 0.1,
    ctx: Ctx | None = None,
) -> Float[Tensor, ""]:
    """Contrast of each word with its attended patches, against the words of its own caption, in both directions.

    All words of a caption weigh the same, and all captions of the batch; a caption without a word does not count.
    Padding is no negative (in the original code it is one). The loss is computed in float32 under autocast.

    Args:
        patches_BPD: adapted patches, L2-normalised.
        tokens_BLD: adapted tokens, L2-normalised; the content of padding changes nothing.
        mask_BL: True where a token is a word.
        temperature: temperature of the attention and of the contrast.
        ctx: context of the run, for data parallelism.
    """
    with torch.autocast(patches_BPD.device.type, enabled=False):
        patches_BPD, tokens_BLD = _prepared(patches_BPD, tokens_BLD, mask_BL)
        attention_BLP = (tokens_BLD @ patches_BPD.mT / temperature).softmax(-1)
        logits_BLL = tokens_BLD @ _unit(attention_BLP @ patches_BPD).mT / temperature
        padding_B1L = ~mask_BL.unsqueeze(1)
        fill = torch.finfo(logits_BLL.dtype).min
        rows_BL = logits_BLL.masked_fill(padding_B1L, fill).logsumexp(-1)
        columns_BL = logits_BLL.mT.masked_fill(padding_B1L, fill).logsumexp(-1)
        loss_BL = (rows_BL + columns_BL) / 2 - logits_BLL.diagonal(dim1=1, dim2=2)
        words_B = mask_BL.sum(-1).to(loss_BL.dtype)
        loss_B = loss_BL.masked_fill(~mask_BL, 0.0).sum(-1) / words_B.clamp_min(1)
        return (ctx or Ctx()).mean(loss_B, (words_B > 0).to(loss_B.dtype))


def patch_alignment_loss(
    patches_BPD: Float[Tensor, "B P D"],
    tokens_BLD: Float[Tensor, "B L D"],
    mask_BL: Bool[Tensor, "B L"],
    temperature: float = 0.1,
    ctx: Ctx | None = None,
) -> Float[Tensor, ""]:
    """Contrast of each patch with its attended words, against the patches of its own image, in both directions.

    The attended words are L2-normalised, as in the paper (the original code omits this for transformers). An image
    whose caption has no word does not count. The arguments are those of `word_alignment_loss`.
    """
    with torch.autocast(patches_BPD.device.type, enabled=False):
        patches_BPD, tokens_BLD = _prepared(patches_BPD, tokens_BLD, mask_BL)
        scores_BPL = patches_BPD @ tokens_BLD.mT / temperature
        fill = torch.finfo(scores_BPL.dtype).min
        attention_BPL = scores_BPL.masked_fill(~mask_BL.unsqueeze(1), fill).softmax(-1)
        logits_BPP = patches_BPD @ _unit(attention_BPL @ tokens_BLD).mT / temperature
        rows_BP, columns_BP = logits_BPP.logsumexp(-1), logits_BPP.logsumexp(-2)
        loss_B = ((rows_BP + columns_BP) / 2 - logits_BPP.diagonal(dim1=1, dim2=2)).mean(-1)
        return (ctx or Ctx()).mean(loss_B, mask_BL.any(-1).to(loss_B.dtype))


def _prepared(patches_BPD: Tensor, tokens_BLD: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
    return full_precision(patches_BPD), full_precision(tokens_BLD).masked_fill(~mask_BL.unsqueeze(-1), 0.0)


@torch.no_grad()
def sinkhorn(scores_NC: Float[Tensor, "N C"], epsilon: float = 0.05, iterations: int = 3) -> Float[Tensor, "N C"]:
    """Soft assignment of rows to prototypes that uses all prototypes about equally; without gradient.

    Sinkhorn's algorithm divides first the columns, then the rows of exp(`scores_NC` / `epsilon`) by their sums,
    `iterations` times, in logarithms: each row sums to 1 exactly, each column to about N/C.
    """
    log_NC = full_precision(scores_NC) / epsilon
    for _ in range(iterations):
        log_NC = log_NC.log_softmax(0).log_softmax(1)
    return log_NC.exp()


def prototype_loss(
    image_BD: Float[Tensor, "B D"],
    text_BD: Float[Tensor, "B D"],
    prototypes_CD: Float[Tensor, "C D"],
    temperature: float = 0.2,
    epsilon: float = 0.05,
    iterations: int = 3,
    ctx: Ctx | None = None,
) -> Float[Tensor, ""]:
    """Mean cross entropy of each modality's prediction of the other modality's assignment to prototypes.

    The assignments (`sinkhorn`) use the rows of all ranks and carry no gradient. The prototypes are normalised here.

    Args:
        image_BD: image vectors of matched pairs, L2-normalised.
        text_BD: text vectors of matched pairs, L2-normalised.
        prototypes_CD: prototypes.
        temperature: temperature of the predictions.
        epsilon: see `sinkhorn`.
        iterations: see `sinkhorn`.
        ctx: context of the run, for data parallelism.
    """
    ctx = ctx or Ctx()
    with torch.autocast(image_BD.device.type, enabled=False):
        unit_CD = _unit(full_precision(prototypes_CD))
        image_BC, text_BC = full_precision(image_BD) @ unit_CD.T, full_precision(text_BD) @ unit_CD.T
        rows = ctx.rows(len(image_BC))
        image_target_BC = sinkhorn(ctx.gather(image_BC.detach()), epsilon, iterations)[rows]
        text_target_BC = sinkhorn(ctx.gather(text_BC.detach()), epsilon, iterations)[rows]
        from_text_B = -(image_target_BC * (text_BC / temperature).log_softmax(-1)).sum(-1)
        from_image_B = -(text_target_BC * (image_BC / temperature).log_softmax(-1)).sum(-1)
        loss_B = (from_text_B + from_image_B) / 2
        return ctx.mean(loss_B, torch.ones_like(loss_B))


class MgcaOptions(HeadOptions):
    """Options of MGCA; the defaults are those of SPARC's comparison (section D.4)."""

    instance_weight: Weight = Field(default=1.0, description="lambda_1, weight of the instance loss")
    token_weight: Weight = Field(default=1.0, description="lambda_2, weight of the sum of the word and the patch loss")
    prototype_weight: Weight = Field(default=1.0, description="lambda_3, weight of the prototype loss")
    local_temperature: Temperature = Field(default=0.1, description="fixed temperature of the word and patch losses")
    prototype_temperature: Temperature = Field(default=0.2, description="fixed temperature of the prototype loss")
    prototypes: Prototypes = Field(default=500, ge=2, description="number of prototypes")
    epsilon: Temperature = Field(default=0.05, description="temperature of the assignment; lower is harder")
    iterations: Iterations = Field(default=3, description="iterations of Sinkhorn's algorithm")


class Objective(HeadedObjective):
    """lambda_1 instance + lambda_2 (word + patch) + lambda_3 prototype loss.

    As in SPARC's comparison, all words and all patches weigh the same (the original weights them by the attention of
    [CLS]) and the instance loss has a learned temperature. The instance loss is the mean of both directions, half of
    the original's sum, as in every objective here. The test score is the global cosine.
    """

    Options: ClassVar[type[Strict]] = MgcaOptions
    paths: ClassVar[Mapping[str, bool]] = {"local": True, "global": True}
    token_path: ClassVar[str | None] = "local"
    options: MgcaOptions

    def __init__(self, image_width: int, text_width: int, options: Strict) -> None:
        super().__init__(image_width, text_width, options)
        self.prototypes_CD = nn.Parameter(
            torch.randn(self.options.prototypes, self.options.dim) / math.sqrt(self.options.dim)
        )

    def forward(self, image: ImageOut, text: TextOut, ctx: Ctx) -> dict[str, Tensor]:
        """The four losses of the first caption."""
        options = self.options
        image_BD, text_BD = self.global_image(image), self.global_text(text)[:, 0]
        instance_loss = contrastive_loss(image_BD, text_BD, self.scale, ctx.known_true(), ctx)
        patches_BPD = _unit(full_precision(self.g_v(image.patches_BPW)))
        tokens_BLD = _unit(full_precision(self.g_t(text.tokens_BKLW[:, 0])))
        mask_BL = text.mask_BKL[:, 0]
        word_loss = word_alignment_loss(patches_BPD, tokens_BLD, mask_BL, options.local_temperature, ctx)
        patch_loss = patch_alignment_loss(patches_BPD, tokens_BLD, mask_BL, options.local_temperature, ctx)
        cluster_loss = prototype_loss(
            _unit(full_precision(image_BD)),
            _unit(full_precision(text_BD)),
            self.prototypes_CD,
            options.prototype_temperature,
            options.epsilon,
            options.iterations,
            ctx,
        )
        return {
            "loss": options.instance_weight * instance_loss
            + options.token_weight * (word_loss + patch_loss)
            + options.prototype_weight * cluster_loss,
            "global_loss": instance_loss.detach(),
            "word_loss": word_loss.detach(),
            "patch_loss": patch_loss.detach(),
            "prototype_loss": cluster_loss.detach(),
            "scale": self.scale.detach(),
        }
