"""CUAXU: CLIP's loss plus alignment, uniformity and cross-modal uniformity (arXiv 2405.18570).

Shapes: B pairs of this rank, N pairs of all ranks, D joint width.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from sparc_bench.cards.bounds import Weight
from sparc_bench.cards.card import Strict
from sparc_bench.objective import Ctx, ImageOut, TextOut
from sparc_bench.objectives.clip import contrastive_loss, full_precision
from sparc_bench.two_towers.heads import HeadedObjective, HeadOptions

TITLE = "CUAXU: CLIP's loss plus alignment and uniformity within and across modalities"
SOURCE = "arXiv 2405.18570 (CUA and CUAXU); uniformity after Wang and Isola 2020, arXiv 2005.10242"


UniformityPairs = Literal["distinct", "all"]
"""Pairs of the uniformity within a modality.

distinct: j < k, and their mean, as in the authors' code (`torch.pdist`; Wang and Isola's `lunif`).
all: every j and k, j = k too, and 1/N as in the paper's formula; a vector beside itself adds N constant terms, which
make the gradient .3 to .65 times as large.
"""


def uniformity_loss(x_ND: Float[Tensor, "N D"], pairs: UniformityPairs = "all") -> Float[Tensor, ""]:
    """U(x) = log(1/N sum_{j,k} exp(-2 |x_j - x_k|^2)) of unit vectors; normalised here.

    The factor of all pairs is 1/N as in the paper, not 1/N^2: the value grows with log N, the gradient does not change.
    Of distinct pairs it is the logarithm of their mean; 0 for a single vector.

    Args:
        x_ND: vectors of one modality.
        pairs: that the sum goes over.
    """
    with torch.autocast(x_ND.device.type, enabled=False):
        unit_ND = F.normalize(full_precision(x_ND), dim=-1)
        if pairs == "all":
            return _potential(unit_ND @ unit_ND.T, None)
        itself_NN = torch.eye(len(unit_ND), dtype=torch.bool, device=unit_ND.device)
        several = len(unit_ND) > 1
        mean = _potential(unit_ND @ unit_ND.T, itself_NN) - math.log(max(1, len(unit_ND) - 1))
        return mean if several else mean * 0


def alignment_loss(
    image_BD: Float[Tensor, "B D"], text_BD: Float[Tensor, "B D"], ctx: Ctx | None = None
) -> Float[Tensor, ""]:
    """1/N sum_j |v_j - t_j|^2 of unit vectors of matched pairs; normalised here.

    Args:
        image_BD: image vectors.
        text_BD: text vectors.
        ctx: context of the run, for data parallelism.
    """
    with torch.autocast(image_BD.device.type, enabled=False):
        cosine_B = F.cosine_similarity(full_precision(image_BD), full_precision(text_BD), dim=-1)
        return (ctx or Ctx()).mean(2 - 2 * cosine_B, torch.ones_like(cosine_B))


def cross_uniformity_loss(
    image_ND: Float[Tensor, "N D"],
    text_ND: Float[Tensor, "N D"],
    known_true_NN: Bool[Tensor, "N N"] | None = None,
) -> Float[Tensor, ""]:
    """log(1/N sum_j sum_{k != j} exp(-2 |v_j - t_k|^2)) of unit vectors; normalised here; 0 if no pair remains.

    Args:
        image_ND: image vectors of matched pairs.
        text_ND: text vectors of matched pairs.
        known_true_NN: pairs (image row, caption column) off the diagonal that are true: they are left out.
    """
    with torch.autocast(image_ND.device.type, enabled=False):
        image_ND, text_ND = (F.normalize(full_precision(x), dim=-1) for x in (image_ND, text_ND))
        left_out_NN = torch.eye(len(image_ND), dtype=torch.bool, device=image_ND.device)
        if known_true_NN is not None:
            left_out_NN = left_out_NN | known_true_NN
        return _potential(image_ND @ text_ND.T, left_out_NN).where(~left_out_NN.all(), 0.0)


def _potential(cosine_NN: Tensor, left_out_NN: Tensor | None) -> Tensor:
    # -2 |a - b|^2 = -2 (2 - 2 cos) of unit vectors; differences of nearly equal vectors would lose precision
    exponent_NN = 4 * cosine_NN - 4
    if left_out_NN is not None:
        exponent_NN = exponent_NN.masked_fill(left_out_NN, torch.finfo(exponent_NN.dtype).min)
    return exponent_NN.flatten().logsumexp(0) - math.log(len(cosine_NN))


class CuaxuOptions(HeadOptions):
    """Weights of the terms, 1 as in the paper; without the last term the loss is the paper's CUA."""

    alignment_weight: Weight = Field(default=1.0, description="weight of the alignment term")
    uniformity_weight: Weight = Field(default=1.0, description="weight of the mean of both modalities' uniformity")
    uniformity_pairs: UniformityPairs = Field(
        default="distinct",
        description="pairs of the uniformity within a modality: distinct, as the authors' code has it, or all, as the "
        "paper's formula has it, each vector beside itself too",
    )
    cross_uniformity_weight: Weight = Field(default=1.0, description="weight of the cross-modal uniformity; 0 for CUA")


class Objective(HeadedObjective):
    """CLIP's loss plus three weighted terms of the same global vectors.

    The paper fine-tunes with a fixed temperature of 0.01; here the temperature is learned, as in every objective with
    CLIP's loss.
    """

    Options: ClassVar[type[Strict]] = CuaxuOptions
    options: CuaxuOptions

    def forward(self, image: ImageOut, text: TextOut, ctx: Ctx) -> dict[str, Tensor]:
        """All four terms of the first caption; uniformity, which is no mean over rows, uses the rows of all ranks."""
        image_BD, text_BD = self.global_image(image), self.global_text(text)[:, 0]
        image_ND, text_ND = (ctx.gather(full_precision(x)) for x in (image_BD, text_BD))
        global_loss = contrastive_loss(image_BD, text_BD, self.scale, ctx.known_true(), ctx)
        alignment = alignment_loss(image_BD, text_BD, ctx)
        pairs = self.options.uniformity_pairs
        uniformity = (uniformity_loss(image_ND, pairs) + uniformity_loss(text_ND, pairs)) / 2
        cross_uniformity = cross_uniformity_loss(image_ND, text_ND, ctx.known_true())
        return {
            "loss": global_loss
            + self.options.alignment_weight * alignment
            + self.options.uniformity_weight * uniformity
            + self.options.cross_uniformity_weight * cross_uniformity,
            "global_loss": global_loss.detach(),
            "alignment_loss": alignment.detach(),
            "uniformity_loss": uniformity.detach(),
            "cross_uniformity_loss": cross_uniformity.detach(),
            "scale": self.scale.detach(),
        }
