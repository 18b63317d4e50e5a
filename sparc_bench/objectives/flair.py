"""FLAIR (2024): text-conditioned attention pooling, by which each text has its own vector of an image.

Shapes: B images of this rank, N images of all ranks, K captions per image, P patches, S = P + 1 (the last is the zero
slot), D joint width, H heads, E = D / H, Q queries, C texts of a chunk; at evaluation M texts, R images or regions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from sparc_bench.cards.bounds import Bias, Captions, Heads, Number
from sparc_bench.cards.card import Strict
from sparc_bench.features import ImageFeatures, Regions, TextFeatures, present
from sparc_bench.objective import Ctx, ImageOut, ImageVectors, TextOut
from sparc_bench.objectives._pairwise import in_text_chunks, to_text_rows
from sparc_bench.objectives.clip import full_precision
from sparc_bench.objectives.siglip import pair_losses
from sparc_bench.two_towers.heads import HeadedObjective, HeadOptions

TITLE = "FLAIR: text-conditioned attention pooling of patches, sigmoid losses, several captions per image"
SOURCE = "FLAIR, arXiv 2412.03561"

_EPS = 1e-6
_WEIGHTS_AT_ONCE = 1 << 22  # attention weights held at evaluation: 16 MB
_ROWS_AT_ONCE = 16


def zero_slot_attention(
    queries_BHQE: Float[Tensor, "B H Q E"],
    keys_BHPE: Float[Tensor, "B H P E"],
    values_BHPE: Float[Tensor, "B H P E"],
    weights_BP: Float[Tensor, "B P"] | None = None,
) -> Float[Tensor, "B H Q E"]:
    """Scaled dot-product attention over the patches and one additional slot with zero key and value.

    Args:
        queries_BHQE: query projections of texts.
        keys_BHPE: key projections of patches.
        values_BHPE: value projections of patches.
        weights_BP: weights of a region's patches, of any sum. A patch counts by its weight over the largest weight of
            the region (the logarithm is added to the score; weight 0 excludes the patch), the zero slot by 1. A region
            of n equal patches is thus pooled as an image of these patches, a region of all patches as the image.
    """
    keys_BHSE, values_BHSE = F.pad(keys_BHPE, (0, 0, 0, 1)), F.pad(values_BHPE, (0, 0, 0, 1))
    prior_B11S = None
    if weights_BP is not None:
        share_BP = weights_BP / weights_BP.amax(-1, keepdim=True)
        prior_BP = share_BP.log().masked_fill(weights_BP <= 0, torch.finfo(weights_BP.dtype).min)
        prior_B11S = F.pad(prior_BP, (0, 1))[:, None, None]
    return F.scaled_dot_product_attention(queries_BHQE, keys_BHSE, values_BHSE, attn_mask=prior_B11S)


def conditioned_loss(
    own_BK: Float[Tensor, "B K"],
    others_BN: Float[Tensor, "B N"],
    bias: Float[Tensor, ""] | float,
    known_true_BN: Bool[Tensor, "B N"] | None = None,
    ctx: Ctx | None = None,
) -> Float[Tensor, ""]:
    """L_TCS: sum over images and their K + N - 1 texts of the sigmoid losses, divided by K + N - 1.

    Args:
        own_BK: scaled cosines of each image, conditioned on its own captions, with these captions.
        others_BN: scaled cosines with one caption of every image; the image's own column is left out.
        bias: bias added to all logits.
        known_true_BN: captions of other images that are true of the image, hence left out.
        ctx: context of the run, for data parallelism.
    """
    ctx = ctx or Ctx()
    (batch, captions), images = own_BK.shape, others_BN.shape[1]
    left_out_BN = torch.eye(images, dtype=torch.bool, device=own_BK.device)[ctx.rows(batch)]
    if known_true_BN is not None:
        left_out_BN = left_out_BN | known_true_BN
    own_loss_BK = pair_losses(own_BK + bias, torch.ones_like(own_BK, dtype=torch.bool))
    others_loss_BN = pair_losses(others_BN + bias, torch.zeros_like(left_out_BN), left_out_BN)
    loss_B = own_loss_BK.sum(1) + others_loss_BN.sum(1)
    return ctx.mean(loss_B, torch.ones_like(loss_B)) * (images / (captions + images - 1))


def multi_caption_loss(
    image_BD: Float[Tensor, "B D"],
    captions_BKD: Float[Tensor, "B K D"],
    scale: Float[Tensor, ""] | float,
    bias: Float[Tensor, ""] | float,
    known_true_NNK: Bool[Tensor, "N N K"] | None = None,
    ctx: Ctx | None = None,
) -> Float[Tensor, ""]:
    """L_MPS: sum over images and all N K captions of the sigmoid losses, divided by N K.

    Args:
        image_BD: global image vectors; normalised here.
        captions_BKD: vectors of each image's captions; normalised here.
        scale: inverse temperature.
        bias: bias added to scale times cosine.
        known_true_NNK: (image, image of the caption, caption) pairs that are true, hence left out.
        ctx: context of the run, for data parallelism.
    """
    ctx = ctx or Ctx()
    rows = ctx.rows(len(image_BD))
    with torch.autocast(image_BD.device.type, enabled=False):
        image_BD = F.normalize(full_precision(image_BD), dim=-1)
        captions_NKD = F.normalize(ctx.gather(full_precision(captions_BKD)), dim=-1)
        logits_BNK = scale * torch.einsum("bd,nkd->bnk", image_BD, captions_NKD) + bias
        own_NN = torch.eye(len(captions_NKD), dtype=torch.bool, device=image_BD.device)
        left_out_BNK = None if known_true_NNK is None else known_true_NNK[rows]
        losses_BNK = pair_losses(logits_BNK, own_NN[rows].unsqueeze(-1).expand_as(logits_BNK), left_out_BNK)
        loss_B = losses_BNK.sum((1, 2)) / captions_BKD.shape[1]
        return ctx.mean(loss_B, torch.ones_like(loss_B))


class AttentionPool(nn.Module):
    """Multi-head attention from texts to the patches and a zero slot; no residual, no MLP."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.text_norm, self.patch_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        for projection in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def queries(self, texts_XD: Tensor) -> Tensor:
        """Query projections of texts, heads concatenated, in full precision."""
        return full_precision(self.query(self.text_norm(texts_XD)))

    def keys_and_values(self, patches_BPD: Tensor) -> tuple[Tensor, Tensor]:
        """Key and value projections of patches, each BHPE, in full precision."""
        normed_BPD = self.patch_norm(patches_BPD)
        return self._split(self.key(normed_BPD)), self._split(self.value(normed_BPD))

    def pooled(
        self, queries_BQD: Tensor, keys_BHPE: Tensor, values_BHPE: Tensor, weights_BP: Tensor | None = None
    ) -> Tensor:
        """Text-conditioned image vectors BQD."""
        heads_BHQE = zero_slot_attention(self._split(queries_BQD), keys_BHPE, values_BHPE, weights_BP)
        pooled_BQD: Tensor = self.out(heads_BHQE.transpose(1, 2).flatten(2))
        return pooled_BQD

    def _split(self, x_BXD: Tensor) -> Tensor:
        return full_precision(x_BXD).view(*x_BXD.shape[:2], self.heads, -1).transpose(1, 2)


class FlairOptions(HeadOptions):
    """Options of FLAIR; the defaults are the paper's."""

    captions: Captions = Field(default=8, description="captions per image in a step (K; the paper: 8)")
    heads: Heads = Field(default=8, description="heads of the attention pooling (the paper: 8); a divisor of dim")
    bias: Bias = Field(default=-10.0, description="initial bias of the logits (the paper: -10); learned")
    text_chunk: Number | None = Field(
        default=8, description="texts at once, recomputed in the backward pass; none for all of them"
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> FlairOptions:
        if self.dim % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide dim ({self.dim}): change one of them")
        return self


class Objective(HeadedObjective):
    """Mean of L_TCS (conditioned vectors) and L_MPS (global vectors), with one temperature and one bias.

    The test score is the cosine of each text with the image vector conditioned on it.
    """

    Options: ClassVar[type[Strict]] = FlairOptions
    scored_as: ClassVar[tuple[str, ...]] = ("conditioned",)
    paths: ClassVar[Mapping[str, bool]] = {"local": True}
    prompt_ensemble: ClassVar[Literal["embeddings", "scores"]] = "scores"
    gives: ClassVar[frozenset[str]] = frozenset({"image", "text", "global", "patches"})
    options: FlairOptions

    def __init__(self, image_width: int, text_width: int, options: Strict) -> None:
        super().__init__(image_width, text_width, options)
        self.bias = nn.Parameter(torch.tensor(self.options.bias))
        self.pool = AttentionPool(self.options.dim, self.options.heads)

    @property
    def captions_per_image(self) -> int:
        """Captions per image in a step: K of the paper."""
        return self.options.captions

    def forward(self, image: ImageOut, text: TextOut, ctx: Ctx) -> dict[str, Tensor]:
        """Both losses; the negatives of L_TCS are one random caption of every other image."""
        captions_BKD = self.global_text(text)
        known_true_NNK = ctx.extra.get("known_true")
        own_BK, others_BN, known_true_BN = self._conditioned(image, captions_BKD, known_true_NNK, ctx)
        ctx.logits["conditioned"] = (others_BN.detach(), to_text_rows(others_BN.detach(), ctx))
        conditioned = conditioned_loss(own_BK, others_BN, self.bias, known_true_BN, ctx)
        multi_caption = multi_caption_loss(
            self.global_image(image), captions_BKD, self.scale, self.bias, known_true_NNK, ctx
        )
        return {
            "loss": (conditioned + multi_caption) / 2,
            "conditioned_loss": conditioned.detach(),
            "multi_caption_loss": multi_caption.detach(),
            "scale": self.scale.detach(),
            "bias": self.bias.detach(),
        }

    def _conditioned(
        self, image: ImageOut, captions_BKD: Tensor, known_true_NNK: Tensor | None, ctx: Ctx
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Scaled cosines with own captions BK and with one caption of every image BN; mask BN of known-true pairs."""
        rows = ctx.rows(len(captions_BKD))
        keys_BHPE, values_BHPE = self.pool.keys_and_values(self.g_v(image.patches_BPW))
        queries_BKD = self.pool.queries(captions_BKD)
        with torch.autocast(captions_BKD.device.type, enabled=False):
            captions_BKD = full_precision(captions_BKD)
            captions_NKD, queries_NKD = ctx.gather(captions_BKD), ctx.gather(queries_BKD)
            drawn_BN = self._drawn(captions_NKD, ctx)[rows]

            def score(queries_CKD: Tensor, captions_CKD: Tensor, drawn_CB: Tensor) -> tuple[Tensor]:
                place_C1 = torch.arange(len(drawn_CB), device=drawn_CB.device).unsqueeze(1)
                pooled_BCD = self.pool.pooled(queries_CKD[place_C1, drawn_CB].transpose(0, 1), keys_BHPE, values_BHPE)
                return (_cosine(pooled_BCD, captions_CKD[place_C1, drawn_CB].transpose(0, 1)),)

            (others_BN,) = in_text_chunks(score, (queries_NKD, captions_NKD, drawn_BN.T), self.options.text_chunk)
            own_BK = _cosine(self.pool.pooled(queries_BKD, keys_BHPE, values_BHPE), captions_BKD)
            known_true_BN = None
            if known_true_NNK is not None:
                known_true_BN = known_true_NNK[rows].gather(2, drawn_BN.unsqueeze(-1)).squeeze(-1)
            return self.scale * own_BK, self.scale * others_BN, known_true_BN

    def _drawn(self, captions_NKD: Tensor, ctx: Ctx) -> Tensor:
        """Caption index NN drawn for each image (row) from every image (column); 0 without a generator."""
        images, captions = captions_NKD.shape[:2]
        if ctx.generator is None:
            return torch.zeros(images, images, dtype=torch.long, device=captions_NKD.device)
        drawn_NN = torch.randint(
            captions, (images, images), generator=ctx.generator, device=ctx.generator.device, dtype=torch.long
        )
        return drawn_NN.to(captions_NKD.device)

    def image_features(self, image: ImageOut, need: frozenset[str]) -> ImageVectors:
        """Global vectors of L_MPS, and g_v of the patches, the input of the pooling."""
        return ImageVectors(
            self.global_image(image) if "global" in need else None,
            {"local": self.g_v(image.patches_BPW)} if "patches" in need else {},
        )

    def similarity(
        self, images: ImageFeatures, texts: TextFeatures, regions: Regions | None = None, path: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cosine of each text with the image or region vector conditioned on it."""
        texts_MD = present(texts.global_MD, "text")
        queries_MD = self.pool.queries(texts_MD)
        patches_NPD = images.patches[path or "local"]
        keys_NHPE, values_NHPE = self.pool.keys_and_values(patches_NPD)
        count = len(patches_NPD) if regions is None else len(regions)
        scores_RM = texts_MD.new_empty(count, len(texts_MD))
        texts_at_once = max(1, _WEIGHTS_AT_ONCE // (_ROWS_AT_ONCE * self.options.heads * patches_NPD.shape[1]))
        for first in range(0, count, _ROWS_AT_ONCE):
            rows = slice(first, min(first + _ROWS_AT_ONCE, count))
            of_image = rows if regions is None else regions.image_index_R[rows]
            weights_RP = None if regions is None else regions.weights_RP[rows]
            keys_RHPE, values_RHPE = keys_NHPE[of_image], values_NHPE[of_image]
            for start in range(0, len(texts_MD), texts_at_once):
                part = slice(start, start + texts_at_once)
                queries_RCD = queries_MD[part].expand(len(keys_RHPE), -1, -1)
                pooled_RCD = self.pool.pooled(queries_RCD, keys_RHPE, values_RHPE, weights_RP)
                scores_RM[rows, part] = _cosine(pooled_RCD, texts_MD[part])
        return scores_RM, scores_RM

    def dense_scores(self, images: ImageFeatures, texts: TextFeatures, path: str | None = None) -> Tensor:
        """Scores of each patch as a region of its own: (N, M, rows, columns).

        With one patch and the zero slot, the attention weight a_h of the patch in a head is the sigmoid of its score.
        The conditioned vector is the sum of a_h v_h, where v_h is the patch's value through the output layer, head by
        head, and the output bias is one more v_h of weight 1. Its cosine with a text follows from the products of the
        v_h with the text and with each other, so that no vector for every patch and text is formed.
        """
        if images.grid is None:
            raise RuntimeError("patches without a grid")
        texts_MD = present(texts.global_MD, "text")
        unit_MD = F.normalize(texts_MD, dim=-1, eps=_EPS)
        queries_MHE = self.pool.queries(texts_MD).view(len(texts_MD), self.options.heads, -1)
        patches_NPD = images.patches[path or "local"]
        out_HED = self.pool.out.weight.T.reshape(self.options.heads, -1, self.options.dim)
        scores_NMP = texts_MD.new_empty(len(patches_NPD), len(texts_MD), patches_NPD.shape[1])
        texts_at_once = max(1, _WEIGHTS_AT_ONCE // ((self.options.heads + 1) * patches_NPD.shape[1]))
        for row, patches_PD in enumerate(patches_NPD):
            keys_HPE, values_HPE = (each[0] for each in self.pool.keys_and_values(patches_PD.unsqueeze(0)))
            bias_1PD = self.pool.out.bias.expand(1, len(patches_PD), -1)
            values_GPD = torch.cat([torch.einsum("hpe,hed->hpd", values_HPE, out_HED), bias_1PD])
            products_PGG = torch.einsum("gpd,fpd->pgf", values_GPD, values_GPD)
            for start in range(0, len(texts_MD), texts_at_once):
                part = slice(start, start + texts_at_once)
                weights_MPH = torch.einsum("mhe,hpe->mph", queries_MHE[part], keys_HPE) / queries_MHE.shape[-1] ** 0.5
                weights_MPG = F.pad(weights_MPH.sigmoid(), (0, 1), value=1.0)
                product_MP = (weights_MPG * torch.einsum("gpd,md->mpg", values_GPD, unit_MD[part])).sum(-1)
                square_MP = (torch.einsum("mpg,pgf->mpf", weights_MPG, products_PGG) * weights_MPG).sum(-1)
                scores_NMP[row, part] = product_MP / square_MP.clamp_min(_EPS**2).sqrt()
        return scores_NMP.view(*scores_NMP.shape[:2], *images.grid)


def _cosine(pooled_BQD: Tensor, texts_BQD: Tensor) -> Tensor:
    return (F.normalize(pooled_BQD, dim=-1, eps=_EPS) * F.normalize(texts_BQD, dim=-1, eps=_EPS)).sum(-1)
