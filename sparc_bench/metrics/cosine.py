"""Cosine scores of images, regions and patches with texts, the rule of CLIP.

Shapes: N images, M texts, L text tokens, P patches, R regions, D joint width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparc_bench.errors import UserError
from sparc_bench.features import ImageFeatures, Regions, TextFeatures, unit


def similarity(images: ImageFeatures, texts: TextFeatures, regions: Regions | None = None, path: str = "") -> Tensor:
    """Cosine of global vectors (NM), or of regions' weighted sums of the path's patches (RM), with the texts'."""
    texts_MD = texts.unit_MD
    rows_RD = images.unit_ND if regions is None else unit(pooled(images.patches[path], regions))
    _refuse_other_width(rows_RD, texts_MD)
    return rows_RD @ texts_MD.T


def _refuse_other_width(rows: Tensor, texts_MD: Tensor) -> None:
    if rows.shape[-1] != texts_MD.shape[-1]:
        raise UserError(
            f"Vectors of images have {rows.shape[-1]} numbers and vectors of texts {texts_MD.shape[-1]}: let the model "
            "project both into one joint space."
        )


def dense_scores(images: ImageFeatures, texts: TextFeatures, path: str) -> Tensor:
    """Cosine of every patch of a path with the texts' global vectors: (N, M, rows, columns)."""
    if images.grid is None:
        raise RuntimeError("dense scores were asked of features without patches")
    patches_NPD = unit(images.patches[path])
    _refuse_other_width(patches_NPD, texts.unit_MD)
    scores_NMP = torch.einsum("npd,md->nmp", patches_NPD, texts.unit_MD)
    return scores_NMP.reshape(*scores_NMP.shape[:2], *images.grid)


def token_maps(images: ImageFeatures, texts: TextFeatures, path: str) -> Tensor:
    """Cosines of the patches of a path with every token of the texts: (N, M, L, rows, columns)."""
    if images.grid is None or texts.tokens_MLD is None:
        raise RuntimeError("token maps were asked of features without patches or without tokens")
    scores_NMLP = torch.einsum("npd,mld->nmlp", unit(images.patches[path]), unit(texts.tokens_MLD))
    return scores_NMLP.reshape(*scores_NMLP.shape[:3], *images.grid)


def pooled(patches_NPD: Tensor, regions: Regions) -> Tensor:
    """Weighted sums of patches, one per region: RD."""
    return torch.einsum("rp,rpd->rd", regions.weights_RP, patches_NPD[regions.image_index_R])
