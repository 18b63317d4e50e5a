"""PACL: contrast of texts with text-conditioned image vectors (Mukhoti et al. 2023, arXiv 2212.04994).

Shapes: B pairs of this rank, N images, M texts, P patches, R regions, W tower width, D joint width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from sparc_bench.cards.bounds import Number
from sparc_bench.cards.card import Strict
from sparc_bench.features import ImageFeatures, Regions, TextFeatures, present
from sparc_bench.objective import Ctx, ImageOut, ImageVectors, TextOut
from sparc_bench.objectives._pairwise import in_text_chunks, to_text_rows
from sparc_bench.objectives.clip import cross_entropy_both_ways, full_precision
from sparc_bench.two_towers.heads import HeadedObjective, HeadOptions

TITLE = "PACL: contrast of texts with image vectors pooled from patches by their similarity to the text"
SOURCE = "Mukhoti et al. 2023, arXiv 2212.04994; from scratch with a learned temperature: SPARC section D.4"

_ROWS_AT_ONCE, _TEXTS_AT_ONCE = 64, 256


def patch_pooled_similarity(
    patches_NPD: Float[Tensor, "N P D"],
    text_MD: Float[Tensor, "M D"],
    text_chunk: int | None = None,
    weights_NP: Float[Tensor, "N P"] | None = None,
) -> Float[Tensor, "N M"]:
    """Cosine of every text with the image vector pooled for it, from unit vectors.

    The pooled vector of a pair is the weighted sum of unit patches; the weights are the softmax over patches of their
    cosines with the text, without a temperature.

    Args:
        patches_NPD: unit patch vectors.
        text_MD: unit text vectors.
        text_chunk: texts at once, recomputed in the backward pass; None for all of them.
        weights_NP: prior weights of the patches, whose logarithm is added to the cosines; weight 0 excludes a patch.
            None for equal weights.
    """
    log_weights_NP1: Tensor | float = 0.0
    if weights_NP is not None:
        log_weights_NP1 = weights_NP.log().clamp_min(torch.finfo(weights_NP.dtype).min).unsqueeze(-1)

    def score(text_MD: Tensor) -> tuple[Tensor]:
        cosine_NPM = patches_NPD @ text_MD.T
        attention_NPM = (cosine_NPM + log_weights_NP1).softmax(1)
        length_NM = (attention_NPM.mT @ patches_NPD).norm(dim=-1).clamp_min(1e-6)
        return ((attention_NPM * cosine_NPM).sum(1) / length_NM,)

    return in_text_chunks(score, (text_MD,), text_chunk)[0]


def patch_pooled_loss(
    patches_BPD: Float[Tensor, "B P D"],
    text_BD: Float[Tensor, "B D"],
    scale: Float[Tensor, ""] | float,
    text_chunk: int | None = None,
    known_true_NN: Bool[Tensor, "N N"] | None = None,
    ctx: Ctx | None = None,
) -> Float[Tensor, ""]:
    """Mean of both directions' cross entropy of scaled `patch_pooled_similarity`; the vectors are normalised here.

    The loss is computed in float32 under autocast, and the logits go to `ctx.logits` as "patch_pooled".

    Args:
        patches_BPD: patches of matched pairs, un-normalised.
        text_BD: text vectors of matched pairs, un-normalised.
        scale: inverse temperature.
        text_chunk: see `patch_pooled_similarity`.
        known_true_NN: pairs (image row, caption column) off the diagonal that are true, hence no negatives.
        ctx: context of the run, for data parallelism.
    """
    ctx = ctx or Ctx()
    with torch.autocast(patches_BPD.device.type, enabled=False):
        per_image_BN = scale * patch_pooled_similarity(_unit(patches_BPD), ctx.gather(_unit(text_BD)), text_chunk)
        per_text_BN = to_text_rows(per_image_BN, ctx)
        ctx.logits["patch_pooled"] = (per_image_BN.detach(), per_text_BN.detach())
        return cross_entropy_both_ways(per_image_BN, per_text_BN, known_true_NN, ctx)


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(full_precision(vectors), dim=-1, eps=1e-6)


class PaclOptions(HeadOptions):
    """Options of PACL on the shared heads: g_v is part of its vision embedder; images are pooled only for a text."""

    image_head: Literal["none"] = Field(default="none", description="no text-free image vector, so no h_v")
    text_chunk: Number | None = Field(
        default=8, description="texts at once, recomputed in the backward pass; none for all of them"
    )


class Objective(HeadedObjective):
    """PACL's loss alone; an image has no vector without a text.

    The vision embedder is e_v(x) = W_skip x + W_2 relu(W_1 x + b_1) + b_2 with the shared g_v as W_skip. The paper does
    not state its hidden width; with D it has 1.05 million parameters from 768 to 512, about as many as reported for
    ViT-B/16.
    """

    Options: ClassVar[type[Strict]] = PaclOptions
    scored_as: ClassVar[tuple[str, ...]] = ("patch_pooled",)
    paths: ClassVar[Mapping[str, bool]] = {"local": True}
    prompt_ensemble: ClassVar[Literal["embeddings", "scores"]] = "scores"
    gives: ClassVar[frozenset[str]] = frozenset({"image", "text", "patches"})
    options: PaclOptions

    def __init__(self, image_width: int, text_width: int, options: Strict) -> None:
        super().__init__(image_width, text_width, options)
        dim = self.options.dim
        self.residual = nn.Sequential(nn.Linear(image_width, dim), nn.ReLU(), nn.Linear(dim, dim))

    def embed(self, patches_BPW: Tensor) -> Tensor:
        """Patches BPD through the vision embedder e_v."""
        embedded_BPD: Tensor = self.g_v(patches_BPW) + self.residual(patches_BPW)
        return embedded_BPD

    def forward(self, image: ImageOut, text: TextOut, ctx: Ctx) -> dict[str, Tensor]:
        """The loss of the first caption."""
        loss = patch_pooled_loss(
            self.embed(image.patches_BPW),
            self.global_text(text)[:, 0],
            self.scale,
            self.options.text_chunk,
            ctx.known_true(),
            ctx,
        )
        return {"loss": loss, "patch_pooled_loss": loss.detach(), "scale": self.scale.detach()}

    def image_features(self, image: ImageOut, need: frozenset[str]) -> ImageVectors:
        """Embedded patches; never a global vector."""
        return ImageVectors(None, {"local": self.embed(image.patches_BPW)} if "patches" in need else {})

    def similarity(
        self, images: ImageFeatures, texts: TextFeatures, regions: Regions | None = None, path: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """`patch_pooled_similarity` of images, or of regions, whose weights multiply those of the text."""
        patches_NPD, text_MD = _unit(images.patches[path or "local"]), _unit(present(texts.global_MD, "text"))
        rows_R = torch.arange(len(images), device=patches_NPD.device) if regions is None else regions.image_index_R
        scores_RM = patches_NPD.new_empty(len(rows_R), len(text_MD))
        for start in range(0, len(rows_R), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            weights_rP = None if regions is None else regions.weights_RP[part].to(patches_NPD.dtype)
            for first in range(0, len(text_MD), _TEXTS_AT_ONCE):
                few = slice(first, first + _TEXTS_AT_ONCE)
                scores_RM[part, few] = patch_pooled_similarity(
                    patches_NPD[rows_R[part]], text_MD[few], weights_NP=weights_rP
                )
        return scores_RM, scores_RM
