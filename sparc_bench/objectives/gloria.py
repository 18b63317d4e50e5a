"""GLoRIA: words contrasted with the patches that they attend to, across all pairs of a batch (Huang et al. 2021).

Shapes: B pairs of this rank, N images, M texts, L text tokens, P patches, D joint width, R regions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from sparc_bench.cards.bounds import Number, Weight
from sparc_bench.cards.card import Strict
from sparc_bench.features import ImageFeatures, Regions, TextFeatures
from sparc_bench.objective import Ctx, ImageOut, TextOut
from sparc_bench.objectives._pairwise import in_text_chunks, to_text_rows
from sparc_bench.objectives.clip import contrastive_loss, cross_entropy_both_ways, full_precision
from sparc_bench.two_towers.heads import HeadedObjective, HeadOptions

TITLE = "GLoRIA: CLIP's loss plus a contrast of pairs by their words' attended patches"
SOURCE = "Huang et al. 2021 (ICCV), its released code; SPARC's changes: arXiv 2401.09865 section D.3"

ORIGINAL_SCALE = 10.0
WORD_TEMPERATURE = 4.0
PAIR_TEMPERATURE = 5.0
_EPS = 1e-6
_TEXTS_AT_ONCE = 32
_NUMBERS_AT_ONCE = 2**18  # values of a tensor N P M L at evaluation, to fit the processor's cache


def attention_similarity(
    patches_NPD: Float[Tensor, "N P D"],
    tokens_MLD: Float[Tensor, "M L D"],
    mask_ML: Bool[Tensor, "M L"],
    word_temperature: float = WORD_TEMPERATURE,
    pair_temperature: float = PAIR_TEMPERATURE,
    divisor: float = 1.0,
    text_chunk: int | None = None,
    weights_NP: Float[Tensor, "N P"] | None = None,
) -> Float[Tensor, "N M"]:
    """Z, the local score of every image with every text, from un-normalised vectors.

    Inner products of patches and words go through a softmax over the words of a text for each patch and then, times
    `word_temperature`, through a softmax over the patches for each word. Z is the log of the sum over words of
    exp(`pair_temperature` times the cosine of a word with its weighted sum of patches); it grows with the length of the
    text. A text without a word scores 0, like one word with cosine 0. Z is computed in float32 under autocast.

    Args:
        patches_NPD: adapted patches.
        tokens_MLD: adapted tokens; the content of padding changes nothing.
        mask_ML: True where a token is a word.
        word_temperature: factor before the softmax over patches; the paper's code has 4.
        pair_temperature: factor of the cosines; the paper's code has 5.
        divisor: divisor of the inner products in the softmax over words; sqrt(D) in SPARC (section D.3).
        text_chunk: texts at once, recomputed in the backward pass; None for all of them.
        weights_NP: weights of the patches, whose logarithm is added before the softmax over patches; weight 0 excludes
            a patch. None for equal weights.
    """
    with torch.autocast(patches_NPD.device.type, enabled=False):
        patches_NPD = full_precision(patches_NPD)
        products_NPP = patches_NPD @ patches_NPD.mT
        lowest = torch.finfo(patches_NPD.dtype).min
        prior_NP11 = None
        if weights_NP is not None:
            prior_NP11 = full_precision(weights_NP).log().clamp_min(lowest)[..., None, None]

        def score(tokens_mLD: Tensor, mask_mL: Tensor) -> tuple[Tensor]:
            tokens_mLD = full_precision(tokens_mLD).masked_fill(~mask_mL.unsqueeze(-1), 0.0)
            padding_mL = patches_NPD.new_zeros(mask_mL.shape).masked_fill(~mask_mL, lowest / 2)
            inner_NPmL = F.linear(patches_NPD, tokens_mLD.flatten(0, 1)).reshape(*patches_NPD.shape[:2], *mask_mL.shape)
            attention_NPmL = padding_mL.add(inner_NPmL, alpha=1 / divisor).softmax(-1) * word_temperature
            if prior_NP11 is not None:
                attention_NPmL = attention_NPmL + prior_NP11
            attention_NPmL = attention_NPmL.softmax(1)
            # the weighted sum c of patches is never formed: c . t and |c|^2 are sums of the patches' inner products
            inner_NmL = (attention_NPmL * inner_NPmL).sum(1)
            products_NPmL = (products_NPP @ attention_NPmL.flatten(2)).view_as(attention_NPmL)
            square_NmL = (attention_NPmL * products_NPmL).sum(1)
            length_mL = tokens_mLD.square().sum(-1).clamp_min(_EPS**2).sqrt()
            cosine_NmL = inner_NmL * square_NmL.clamp_min(_EPS**2).rsqrt() / length_mL
            return (_log_sum_over_words(pair_temperature * cosine_NmL, mask_mL),)

        return in_text_chunks(score, (tokens_MLD, mask_ML), text_chunk)[0]


def _log_sum_over_words(scores_XML: Tensor, mask_ML: Tensor) -> Tensor:
    sums_XM = scores_XML.masked_fill(~mask_ML, torch.finfo(scores_XML.dtype).min).logsumexp(-1)
    return sums_XM.masked_fill(~mask_ML.any(-1), 0.0)


class GloriaOptions(HeadOptions):
    """Options of GLoRIA; the defaults are those of SPARC's comparison, the original's are options."""

    temperatures: Literal["learned", "original"] = Field(
        default="learned",
        description="factor of the scores in both losses - learned: one for both, as in SPARC's comparison "
        "(section D.3); original: fixed at 10",
    )
    divisor: Literal["sqrt_dim", "one"] = Field(
        default="sqrt_dim",
        description="divisor of the inner products in the softmax over words - sqrt_dim: SPARC's change, 'crucial' "
        "(section D.3); one: the original",
    )
    global_weight: Weight = Field(default=1.0, description="weight of the global loss (original: 1)")
    local_weight: Weight = Field(default=1.0, description="weight of the local loss (original: 1)")
    text_chunk: Number | None = Field(default=8, description="texts at once in the local score; none for all of them")


class Objective(HeadedObjective):
    """Global plus local contrast; each is the mean of both directions, half of the original's sum.

    The test score is the mean of the global cosine and Z. The original instead takes 5 times the best word's cosine for
    Z and z-scores classes over the images passed in.
    """

    Options: ClassVar[type[Strict]] = GloriaOptions
    scored_as: ClassVar[tuple[str, ...]] = ("global", "local")
    paths: ClassVar[Mapping[str, bool]] = {"local": True, "global": True}
    token_path: ClassVar[str | None] = "local"
    prompt_ensemble: ClassVar[Literal["embeddings", "scores"]] = "scores"
    options: GloriaOptions

    def __init__(self, image_width: int, text_width: int, options: Strict) -> None:
        super().__init__(image_width, text_width, options)
        self._divisor = math.sqrt(self.options.dim) if self.options.divisor == "sqrt_dim" else 1.0
        if self.options.temperatures == "original":
            del self.log_scale

    @property
    def scale(self) -> Tensor:
        """Factor of both losses' scores: learned, or the original's 10."""
        if self.options.temperatures == "original":
            return self.g_v.weight.new_tensor(ORIGINAL_SCALE)
        return self.log_scale.exp()

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Clamp a learned scale to 1..max_scale."""
        if self.options.temperatures == "learned":
            super().after_step(step)

    def forward(self, image: ImageOut, text: TextOut, ctx: Ctx) -> dict[str, Tensor]:
        """Both losses of the first caption."""
        global_loss = contrastive_loss(
            self.global_image(image), self.global_text(text)[:, 0], self.scale, ctx.known_true(), ctx
        )
        local_BN = attention_similarity(
            self.g_v(image.patches_BPW),
            ctx.gather(self.g_t(text.tokens_BKLW[:, 0]), ragged=True),
            ctx.gather(text.mask_BKL[:, 0], ragged=True),
            divisor=self._divisor,
            text_chunk=self.options.text_chunk,
        )
        per_image_BN, per_text_BN = self.scale * local_BN, self.scale * to_text_rows(local_BN, ctx)
        ctx.logits["local"] = (per_image_BN.detach(), per_text_BN.detach())
        local_loss = cross_entropy_both_ways(per_image_BN, per_text_BN, ctx.known_true(), ctx)
        return {
            "loss": self.options.global_weight * global_loss + self.options.local_weight * local_loss,
            "global_loss": global_loss.detach(),
            "local_loss": local_loss.detach(),
            "scale": self.scale.detach(),
        }

    def similarity(
        self, images: ImageFeatures, texts: TextFeatures, regions: Regions | None = None, path: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores of whole images, the mean of the global cosine and Z; or scores of regions, from one path.

        The region score by "local", the default, is Z with the softmax over the region's patches; by "global", it is
        the cosine of the region's mean patch with the text's global vector.
        """
        if regions is None:
            cosine_NM, _ = super().similarity(images, texts)
            scores_NM = (cosine_NM + self._local_scores(images.patches["local"], texts)) / 2
        elif path == "global":
            return super().similarity(images, texts, regions, path)
        else:
            scores_NM = self._local_scores(images.patches["local"], texts, regions)
        return scores_NM, scores_NM

    def dense_scores(self, images: ImageFeatures, texts: TextFeatures, path: str | None = None) -> Tensor:
        """Region score of every single patch; by "local", the default, every word attends to that one patch."""
        if path == "global":
            return super().dense_scores(images, texts, path)
        if images.grid is None:
            raise RuntimeError("patches without a grid")
        patches_X1D = images.patches["local"].flatten(0, 1).unsqueeze(1)
        scores_NPM = self._local_scores(patches_X1D, texts).reshape(len(images), -1, len(texts))
        return scores_NPM.mT.reshape(len(images), len(texts), *images.grid)

    def _local_scores(self, patches_NPD: Tensor, texts: TextFeatures, regions: Regions | None = None) -> Tensor:
        """Z in bounded memory, N x M or R x M, over chunks of texts of similar length, to save padding."""
        if texts.tokens_MLD is None or texts.mask_ML is None:
            raise RuntimeError("the text features hold no tokens: ask for 'tokens'")
        rows = len(patches_NPD) if regions is None else len(regions)
        scores_XM = patches_NPD.new_empty(rows, len(texts))
        by_length_M = texts.mask_ML.sum(-1).argsort(stable=True)
        for first in range(0, len(texts), _TEXTS_AT_ONCE):
            text_m = by_length_M[first : first + _TEXTS_AT_ONCE]
            mask_mL = texts.mask_ML[text_m]
            used_L = mask_mL.any(0)
            used_L[0] |= ~used_L.any()
            tokens_mLD, mask_mL = texts.tokens_MLD[text_m][:, used_L], mask_mL[:, used_L]
            size = max(1, _NUMBERS_AT_ONCE // (mask_mL.numel() * patches_NPD.shape[1]))
            for start in range(0, rows, size):
                part = slice(start, start + size)
                scores_XM[part, text_m] = attention_similarity(
                    patches_NPD[part] if regions is None else patches_NPD[regions.image_index_R[part]],
                    tokens_mLD,
                    mask_mL,
                    divisor=self._divisor,
                    weights_NP=None if regions is None else regions.weights_RP[part],
                )
        return scores_XM
