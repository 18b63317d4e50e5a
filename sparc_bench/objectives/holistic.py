"""Holistic CLIP (2024): an image tower with several class tokens, each trained on its own kind of caption.

Shapes: B pairs of this rank, N pairs of all ranks, M branches, K captions per image (K = M), D joint width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor

from sparc_bench.cards.bounds import Captions, Weight
from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Example
from sparc_bench.errors import UserError
from sparc_bench.features import ImageFeatures, Regions, TextFeatures, unit
from sparc_bench.objective import Ctx, ImageOut, ImageVectors, TextOut
from sparc_bench.objectives.clip import contrastive_loss, full_precision
from sparc_bench.two_towers.heads import HeadedObjective, HeadOptions

TITLE = "Holistic CLIP: one branch of the image tower for each kind of caption"
SOURCE = "Holistic CLIP, arXiv 2412.00440 (class-token variant)"


def branch_contrastive_loss(
    branches_BMD: Float[Tensor, "B M D"],
    captions_BKD: Float[Tensor, "B M D"],
    scale: Float[Tensor, ""] | float,
    known_true_NNK: Bool[Tensor, "N N M"] | None = None,
    ctx: Ctx | None = None,
) -> Float[Tensor, ""]:
    """Mean over branches of the contrast of the k-th branch with the k-th captions of all images (K = M).

    Args:
        branches_BMD: image vectors, one per branch.
        captions_BKD: text vectors, one per branch.
        scale: inverse temperature.
        known_true_NNK: (image, image of the caption, caption) pairs that are true, hence no negatives.
        ctx: context of the run; the mean over branches of the scaled cosines goes to its logits as "branches".
    """
    ctx = ctx or Ctx()
    losses: list[Tensor] = []
    for k, (branch_BD, caption_BD) in enumerate(zip(branches_BMD.unbind(1), captions_BKD.unbind(1), strict=True)):
        known_NN = None if known_true_NNK is None else known_true_NNK[:, :, k]
        losses.append(contrastive_loss(branch_BD, caption_BD, scale, known_NN, ctx, f"branch_{k}"))
    per_image, per_text = zip(*(ctx.logits[f"branch_{k}"] for k in range(len(losses))), strict=True)
    ctx.logits["branches"] = (torch.stack(per_image).mean(0), torch.stack(per_text).mean(0))
    return torch.stack(losses).mean()


def branch_diversity_loss(
    branches_BMD: Float[Tensor, "B M D"], margin: float = 0.7, ctx: Ctx | None = None
) -> Float[Tensor, ""]:
    """Excess over `margin` of the mean cosine between two branches of an image; 0 below the margin.

    The mean runs over pairs of different branches and over the images of all ranks, before the margin is subtracted.
    """
    ctx = ctx or Ctx()
    branches = branches_BMD.shape[1]
    with torch.autocast(branches_BMD.device.type, enabled=False):
        unit_BMD = F.normalize(full_precision(branches_BMD), dim=-1)
        cosine_BMM = unit_BMD @ unit_BMD.transpose(1, 2)
        others_B = cosine_BMM.sum((1, 2)) - cosine_BMM.diagonal(dim1=1, dim2=2).sum(1)
        # ranks exchange one number per image, so that the margin applies to the mean over all ranks
        return F.relu(ctx.gather(others_B).mean() / (branches * (branches - 1)) - margin)


class HolisticOptions(HeadOptions):
    """Number of branches, the captions that each of them learns from, and the weight of the diversity loss."""

    branches: Captions = Field(
        default=5,
        ge=2,
        description="class tokens of the image tower, and captions per image: as many as the data have kinds of "
        "captions (scenes1: 5)",
    )
    caption_kinds: tuple[str, ...] = Field(
        default=(),
        description="kind of caption (`caption_tags`) of each branch, for data with tagged captions; empty: the k-th "
        "caption for the k-th branch",
    )
    diversity_weight: Weight = Field(default=1.0, description="weight of the diversity term (1 in the official code)")

    @model_validator(mode="after")
    def _one_kind_per_branch(self) -> HolisticOptions:
        if self.caption_kinds and len(set(self.caption_kinds)) != self.branches:
            raise ValueError(f"caption_kinds must name {self.branches} different kinds, one per branch: mend it")
        return self


class Objective(HeadedObjective):
    """Contrast of every branch with its own captions, and a margin on the similarity of branches.

    All branches share the heads: v_m = g_v(h_v(f_m(x))). The test score is the mean over branches of cosines.
    """

    Options: ClassVar[type[Strict]] = HolisticOptions
    scored_as: ClassVar[tuple[str, ...]] = ("branches",)
    paths: ClassVar[Mapping[str, bool]] = {"local": False}
    prompt_ensemble: ClassVar[Literal["embeddings", "scores"]] = "scores"
    gives: ClassVar[frozenset[str]] = frozenset({"image", "text", "global", "branches", "patches"})
    options: HolisticOptions

    @classmethod
    def tower_options(cls, options: Strict) -> dict[str, Any]:
        """Options of the heads, with one class token per branch."""
        assert isinstance(options, HolisticOptions)
        return {**super().tower_options(options), "branches": options.branches}

    @property
    def captions_per_image(self) -> int:
        """Captions per image in a step: one per branch."""
        return self.options.branches

    def choose(self, example: Example, rng: np.random.Generator) -> list[int]:  # noqa: ARG002 - nothing is drawn
        """Caption index for every branch: a caption of its kind where `caption_kinds` is set, else the k-th.

        An example without that kind, or with fewer captions than branches, repeats its captions in order.
        """
        kinds = self.options.caption_kinds
        numbers = [k % len(example.captions) for k in range(self.options.branches)]
        if not kinds:
            return numbers
        if not example.caption_tags:
            raise UserError("The captions of this data have no tags: leave objective_options.caption_kinds out.")
        for tag in example.caption_tags:
            if tag not in kinds:
                raise UserError(f"No branch reads '{tag}' captions: name that kind in objective_options.caption_kinds.")
        tags = example.caption_tags
        return [tags.index(kind) if kind in tags else number for kind, number in zip(kinds, numbers, strict=True)]

    def _branches(self, image: ImageOut) -> Tensor:
        return self.g_v(self.h_v(image.pooled_BMW))  # type: ignore[no-any-return]

    def forward(self, image: ImageOut, text: TextOut, ctx: Ctx) -> dict[str, Tensor]:
        """Both losses, with one caption per branch."""
        branches_BMD = self._branches(image)
        contrast = branch_contrastive_loss(
            branches_BMD, self.global_text(text), self.scale, ctx.extra.get("known_true"), ctx
        )
        diversity = branch_diversity_loss(branches_BMD, ctx=ctx)
        return {
            "loss": contrast + self.options.diversity_weight * diversity,
            "branch_loss": contrast.detach(),
            "diversity_loss": diversity.detach(),
            "scale": self.scale.detach(),
        }

    def image_features(self, image: ImageOut, need: frozenset[str]) -> ImageVectors:
        """Branches, the mean of their unit vectors as the global vector, and g_v of the patches."""
        branches_NKD = self._branches(image) if need & {"branches", "global"} else None
        return ImageVectors(
            unit(branches_NKD).mean(1) if branches_NKD is not None and "global" in need else None,
            {"local": self.g_v(image.patches_BPW)} if "patches" in need else {},
            branches_NKD if "branches" in need else None,
        )

    def similarity(
        self, images: ImageFeatures, texts: TextFeatures, regions: Regions | None = None, path: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean over branches of their cosines with the texts; regions as in the base class."""
        if regions is not None:
            return super().similarity(images, texts, regions, path)
        if images.branches_NKD is None or texts.global_MD is None:
            raise RuntimeError("the features hold no branches or no text vectors: ask for 'branches' and 'global'")
        mean_ND = unit(images.branches_NKD).mean(1)
        scores_NM = mean_ND @ unit(texts.global_MD).T
        return scores_NM, scores_NM
