"""FILIP: contrast of token-wise maximum similarities (Yao et al. 2022, arXiv 2111.07783).

A pair of image and text has two scores: image to text, the mean over patches of the maximum over words; text to image,
the mean over words of the maximum over patches.

Shapes: B pairs of this rank, N images, M texts, L text tokens, P patches, R regions, W tower width, D joint width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from sparc_bench.cards.bounds import Number
from sparc_bench.cards.card import Strict
from sparc_bench.features import ImageFeatures, Regions, TextFeatures
from sparc_bench.objective import Ctx, ImageOut, ImageVectors, TextOut
from sparc_bench.objectives._pairwise import in_text_chunks, to_text_rows, without_padding
from sparc_bench.objectives.clip import cross_entropy_both_ways, full_precision
from sparc_bench.two_towers.heads import HeadedObjective, HeadOptions

TITLE = "FILIP: contrast of token-wise maximum similarities, patches to words and words to patches"
SOURCE = "Yao et al. 2022, arXiv 2111.07783, section 3.1; as SPARC trained it: Bica et al. 2024, section D.3"

_IMAGES_AT_ONCE, _TEXTS_AT_ONCE = 16, 32


def token_max_similarity(
    patches_NPD: Float[Tensor, "N P D"],
    tokens_MLD: Float[Tensor, "M L D"],
    mask_ML: Bool[Tensor, "M L"],
    text_chunk: int | None = None,
) -> tuple[Float[Tensor, "N M"], Float[Tensor, "N M"]]:
    """Both scores of all pairs, from unit vectors.

    Args:
        patches_NPD: unit patch vectors.
        tokens_MLD: unit token vectors; the content of padding changes nothing.
        mask_ML: True where a token is a word.
        text_chunk: texts at once, recomputed in the backward pass; None for all of them.

    Returns:
        Image to text: mean over patches of the maximum over words. Text to image: mean over words of the maximum over
        patches. A text without a word scores 0.
    """

    def score(tokens_MLD: Tensor, mask_ML: Tensor) -> tuple[Tensor, Tensor]:
        cosine_NPLM = _cosines(patches_NPD, tokens_MLD, mask_ML)
        return _highest(cosine_NPLM, 2).mean(1), _mean_over_words(_highest(cosine_NPLM, 1), mask_ML)

    per_image_NM, per_text_NM = in_text_chunks(score, (tokens_MLD, mask_ML), text_chunk)
    return per_image_NM, per_text_NM


def _cosines(patches_NPD: Tensor, tokens_MLD: Tensor, mask_ML: Tensor) -> Tensor:
    # padding is replaced by a word of its text (zeros if it has none): no maximum changes and NPLM needs no mask
    word_MD = tokens_MLD[torch.arange(len(mask_ML), device=mask_ML.device), mask_ML.int().argmax(1)]
    word_MD = word_MD.masked_fill(~mask_ML.any(1, keepdim=True), 0.0)
    filled_LMD = torch.where(mask_ML.unsqueeze(-1), tokens_MLD, word_MD.unsqueeze(1)).transpose(0, 1)
    cosine_NPX = patches_NPD @ filled_LMD.flatten(0, 1).T
    return cosine_NPX.reshape(*cosine_NPX.shape[:2], *filled_LMD.shape[:2])


def _highest(cosine_NPLM: Tensor, dim: int) -> Tensor:
    # with gradients, max keeps an index and amax all of NPLM; without gradients amax is much faster
    return cosine_NPLM.max(dim).values if cosine_NPLM.requires_grad else cosine_NPLM.amax(dim)


def _mean_over_words(best_NLM: Tensor, mask_ML: Tensor) -> Tensor:
    weight_ML = mask_ML / mask_ML.sum(1, keepdim=True).clamp_min(1)
    return (best_NLM * weight_ML.T.to(best_NLM.dtype)).sum(1)


def token_max_loss(
    patches_BPD: Float[Tensor, "B P D"],
    tokens_BLD: Float[Tensor, "B L D"],
    mask_BL: Bool[Tensor, "B L"],
    scale: Float[Tensor, ""] | float,
    text_chunk: int | None = None,
    known_true_NN: Bool[Tensor, "N N"] | None = None,
    ctx: Ctx | None = None,
) -> Float[Tensor, ""]:
    """Mean of both directions' cross entropy of the scaled scores; the vectors are normalised here.

    Images are contrasted by the first matrix of `token_max_similarity`, texts by the second. The loss is computed in
    float32 under autocast, and the logits go to `ctx.logits` as "token_max".

    Args:
        patches_BPD: patches of matched pairs, un-normalised.
        tokens_BLD: tokens of matched pairs, un-normalised; the content of padding changes nothing.
        mask_BL: True where a token is a word.
        scale: inverse temperature.
        text_chunk: see `token_max_similarity`.
        known_true_NN: pairs (image row, caption column) off the diagonal that are true, hence no negatives.
        ctx: context of the run, for data parallelism.
    """
    ctx = ctx or Ctx()
    with torch.autocast(patches_BPD.device.type, enabled=False):
        tokens_NLD = ctx.gather(_unit_words(tokens_BLD, mask_BL), ragged=True)
        mask_NL = ctx.gather(mask_BL, ragged=True)
        i2t_BN, t2i_BN = token_max_similarity(
            _unit(patches_BPD), *without_padding(tokens_NLD, mask_NL), text_chunk=text_chunk
        )
        per_image_BN, per_text_BN = scale * i2t_BN, scale * to_text_rows(t2i_BN, ctx)
        ctx.logits["token_max"] = (per_image_BN.detach(), per_text_BN.detach())
        return cross_entropy_both_ways(per_image_BN, per_text_BN, known_true_NN, ctx)


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(full_precision(vectors), dim=-1, eps=1e-6)


def _unit_words(tokens_MLD: Tensor, mask_ML: Tensor) -> Tensor:
    return _unit(tokens_MLD.masked_fill(~mask_ML.unsqueeze(-1), 0.0))


def drop_tokens(
    patches_BPW: Float[Tensor, "B P W"],
    tokens_BLV: Float[Tensor, "B L V"],
    mask_BL: Bool[Tensor, "B L"],
    share: float,
    ctx: Ctx,
) -> tuple[Float[Tensor, "B Q W"], Float[Tensor, "B K V"], Bool[Tensor, "B K"]]:
    """Patches, tokens and mask without a random share of each image's patches and of each caption's words.

    Args:
        patches_BPW: patch vectors.
        tokens_BLV: token vectors.
        mask_BL: True where a token is a word.
        share: share of the P patches and of the words of each caption to drop, rounded; at least one stays.
        ctx: context of the run; its generator draws for the rows of all ranks.
    """
    if ctx.generator is None:
        raise RuntimeError("token dropping needs Ctx.generator")
    everyone_NL = ctx.gather(mask_BL, ragged=True)
    _, everyone_NL = without_padding(everyone_NL, everyone_NL)  # draws then depend on neither ranks nor padding
    rows, patches, length = ctx.rows(len(mask_BL)), patches_BPW.shape[1], everyone_NL.shape[1]
    draw_NP = torch.rand(len(everyone_NL), patches, generator=ctx.generator)
    draw_NL = torch.rand(everyone_NL.shape, generator=ctx.generator)

    tokens_BLV, mask_BL = tokens_BLV[:, :length], mask_BL[:, :length]
    draw_BL = draw_NL[rows, : mask_BL.shape[1]].to(mask_BL.device).masked_fill(~mask_BL, 2.0)
    words_B = mask_BL.sum(1)
    kept_B = torch.maximum(words_B - (share * words_B).round().long(), words_B.clamp_max(1))
    longest = max(1, int(kept_B.max()))
    word_BK = draw_BL.argsort(1)[:, :longest]
    patch_BQ = draw_NP[rows].argsort(1)[:, : max(1, patches - round(share * patches))].to(patches_BPW.device)
    return (
        patches_BPW.take_along_dim(patch_BQ.unsqueeze(-1), 1),
        tokens_BLV.take_along_dim(word_BK.unsqueeze(-1), 1),
        torch.arange(word_BK.shape[1], device=kept_B.device) < kept_B.unsqueeze(1),
    )


class TokenMaxOptions(HeadOptions):
    """Options of the token-wise maximum."""

    token_drop: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of each image's patches and of each caption's words that a training step leaves out, drawn "
        "uniformly at random; none at evaluation. The papers differ: FILIP keeps the 25 % that are most similar to "
        "the other modality's tokens on the same device, which depends on the number of devices and needs the whole "
        "matrix first; SPARC used '20 % token dropping' without stating a rule (0.2 here). A choice by similarity "
        "within the pair would be cheap, but it would leak the caption into the contrast.",
    )
    text_chunk: Number | None = Field(
        default=8, description="texts at once, recomputed in the backward pass; none for all of them"
    )


def kept_vectors(
    heads: HeadedObjective, image: ImageOut, text: TextOut, share: float, ctx: Ctx
) -> tuple[Tensor, Tensor, Tensor]:
    """Projected patches BPD, projected tokens BLD of the first caption and their mask, after token dropping."""
    patches_BPW, tokens_BLW, mask_BL = image.patches_BPW, text.tokens_BKLW[:, 0], text.mask_BKL[:, 0]
    if heads.training and share > 0:
        patches_BPW, tokens_BLW, mask_BL = drop_tokens(patches_BPW, tokens_BLW, mask_BL, share, ctx)
    return heads.g_v(patches_BPW), heads.g_t(tokens_BLW), mask_BL


class FilipOptions(TokenMaxOptions):
    """Options of FILIP, which has no pooled vectors."""

    image_head: Literal["none"] = Field(default="none", description="no pooled image vector, so no h_v")
    text_pool: Literal["words"] = Field(default="words", description="no pooled text vector in the loss")


class Objective(HeadedObjective):
    """FILIP's loss alone."""

    Options: ClassVar[type[Strict]] = FilipOptions
    scored_as: ClassVar[tuple[str, ...]] = ("token_max",)
    paths: ClassVar[Mapping[str, bool]] = {"local": True}
    token_path: ClassVar[str | None] = "local"
    prompt_ensemble: ClassVar[Literal["embeddings", "scores"]] = "scores"
    options: FilipOptions

    def forward(self, image: ImageOut, text: TextOut, ctx: Ctx) -> dict[str, Tensor]:
        """The loss of the first caption."""
        loss = token_max_loss(
            *kept_vectors(self, image, text, self.options.token_drop, ctx),
            self.scale,
            self.options.text_chunk,
            ctx.known_true(),
            ctx,
        )
        return {"loss": loss, "token_max_loss": loss.detach(), "scale": self.scale.detach()}

    def image_features(self, image: ImageOut, need: frozenset[str]) -> ImageVectors:
        """Patches, and the mean of unit patches as global vector (for probes; FILIP's score does not use it)."""
        patches_NPD = self.g_v(image.patches_BPW)
        global_ND = _unit(patches_NPD).mean(1) if "global" in need else None
        return ImageVectors(global_ND, {"local": patches_NPD} if "patches" in need else {})

    def text_features(self, text: TextOut, need: frozenset[str]) -> tuple[Tensor | None, Tensor | None]:
        """The mean of unit words as global vector (for probes; FILIP's score does not use it), and the tokens."""
        tokens_MLD, mask_ML = self.g_t(text.tokens_BKLW[:, 0]), text.mask_BKL[:, 0]
        words_M1 = mask_ML.sum(1, keepdim=True).clamp_min(1)
        global_MD = _unit_words(tokens_MLD, mask_ML).sum(1) / words_M1 if "global" in need else None
        return global_MD, tokens_MLD if "tokens" in need else None

    def similarity(
        self, images: ImageFeatures, texts: TextFeatures, regions: Regions | None = None, path: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both scores of images, or of regions with the weighted mean and the maximum over the region's patches."""
        patches_NPD = _unit(images.patches[path or "local"])
        rows = len(images) if regions is None else len(regions)
        i2t_RM, t2i_RM = patches_NPD.new_empty(rows, len(texts)), patches_NPD.new_empty(rows, len(texts))
        for texts_X, tokens_XLD, mask_XL in _text_chunks(texts):
            if regions is not None:
                i2t_RM[:, texts_X], t2i_RM[:, texts_X] = _region_scores(patches_NPD, tokens_XLD, mask_XL, regions)
                continue
            for start in range(0, rows, _IMAGES_AT_ONCE):
                few = slice(start, start + _IMAGES_AT_ONCE)
                i2t_RM[few, texts_X], t2i_RM[few, texts_X] = token_max_similarity(patches_NPD[few], tokens_XLD, mask_XL)
        return i2t_RM, t2i_RM

    def dense_scores(self, images: ImageFeatures, texts: TextFeatures, path: str | None = None) -> Tensor:
        """Maximum over words of the cosine with each patch: (N, M, rows, columns)."""
        if images.grid is None:
            raise RuntimeError("patches without a grid")
        patches_NPD = _unit(images.patches[path or "local"])
        scores_NMP = patches_NPD.new_empty(len(images), len(texts), patches_NPD.shape[1])
        for texts_X, tokens_XLD, mask_XL in _text_chunks(texts):
            for start in range(0, len(images), _IMAGES_AT_ONCE):
                few = slice(start, start + _IMAGES_AT_ONCE)
                scores_NMP[few, texts_X] = _cosines(patches_NPD[few], tokens_XLD, mask_XL).amax(2).mT
        return scores_NMP.reshape(*scores_NMP.shape[:2], *images.grid)


def _text_chunks(texts: TextFeatures) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Chunks of texts of similar length, to save padding: indices, unit tokens and mask."""
    if texts.tokens_MLD is None or texts.mask_ML is None:
        raise RuntimeError("the text features hold no tokens: ask for 'tokens'")
    by_length_M = texts.mask_ML.sum(1).argsort(stable=True)
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        texts_X = by_length_M[start : start + _TEXTS_AT_ONCE]
        tokens_XLD, mask_XL = without_padding(texts.tokens_MLD[texts_X], texts.mask_ML[texts_X])
        yield texts_X, _unit_words(tokens_XLD, mask_XL), mask_XL


def _region_scores(patches_NPD: Tensor, tokens_XLD: Tensor, mask_XL: Tensor, regions: Regions) -> tuple[Tensor, Tensor]:
    shape = (len(regions), len(tokens_XLD))
    i2t_RX, t2i_RX = patches_NPD.new_empty(shape), patches_NPD.new_empty(shape)
    for number in sorted(set(regions.image_index_R.tolist())):
        of_image_r = (regions.image_index_R == number).nonzero()[:, 0]
        weights_rP = regions.weights_RP[of_image_r].to(patches_NPD.dtype)
        cosine_PLX = _cosines(patches_NPD[number : number + 1], tokens_XLD, mask_XL)[0]
        best_rLX = torch.stack([cosine_PLX[weights_P > 0].amax(0) for weights_P in weights_rP])
        i2t_RX[of_image_r] = weights_rP @ cosine_PLX.amax(1)
        t2i_RX[of_image_r] = _mean_over_words(best_rLX, mask_XL)
    return i2t_RX, t2i_RX
