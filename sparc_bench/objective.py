"""The seam between the trainer and a loss.

An objective owns its heads, temperature, bias and prototypes; the towers compute only what it needs; the training loop
knows none of its specialities. At evaluation the same module turns tower outputs into vectors and scores.

Shapes: B batch, K captions per image, L text tokens, P patches, M pooled vectors per image, D joint width, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparc_bench.cards import Strict
from sparc_bench.examples import Example
from sparc_bench.features import ImageFeatures, Regions, TextFeatures


@dataclass(frozen=True)
class ImageOut:
    """What the image tower gives: patches_BPW row-major over the grid, pooled_BMW (M = 1: their average)."""

    patches_BPW: Tensor
    pooled_BMW: Tensor
    grid: tuple[int, int]


@dataclass(frozen=True)
class TextOut:
    """What the text tower gives: tokens_BKLW, pooled_BKW (average over words), mask_BKL (words), special_BKL."""

    tokens_BKLW: Tensor
    pooled_BKW: Tensor
    mask_BKL: Tensor
    special_BKL: Tensor


@dataclass(frozen=True)
class Tokens:
    """Token ids and which of them are words or specials (BOS, EOS); the rest is padding."""

    ids_BKL: Tensor
    mask_BKL: Tensor
    special_BKL: Tensor

    def to(self, device: torch.device) -> Tokens:
        """The same on a device."""
        return Tokens(self.ids_BKL.to(device), self.mask_BKL.to(device), self.special_BKL.to(device))


@dataclass(frozen=True)
class Batch:
    """One batch of pairs: the examples' indices, token ids, and whatever the objective's collate adds (`extra`)."""

    index_B: Tensor
    tokens: Tokens
    captions: tuple[tuple[str, ...], ...]
    extra: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Ctx:
    """What a loss may know of the run around it.

    Attributes:
        rank: of this process.
        world: number of processes.
        step: training step, from 0.
        generator: for random draws.
        extra: of the batch. `known_true` (B, B) marks pairs (image row, caption column) other than the diagonal that
            the data set's truth marks true: every objective leaves them out of its negatives.
        encode_image: the image tower, for objectives that encode further views.
        encode_text: the text tower, likewise.
    """

    rank: int = 0
    world: int = 1
    step: int = 0
    generator: torch.Generator | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    encode_image: Callable[[Tensor], ImageOut] | None = None
    encode_text: Callable[[Tokens], TextOut] | None = None

    def gather(self, rows_BX: Tensor) -> Tensor:
        """Rows of all ranks in rank order, with gradients; one process gives its own rows."""
        if self.world != 1:
            raise RuntimeError("this version trains in one process")
        return rows_BX

    def mean(self, values_X: Tensor, weights_X: Tensor) -> Tensor:
        """Weighted mean over all ranks: local sum times world over the all-reduced weight."""
        if self.world != 1:
            raise RuntimeError("this version trains in one process")
        return (values_X * weights_X).sum() / weights_X.sum().clamp_min(torch.finfo(values_X.dtype).tiny)


class Objective(nn.Module):
    """Base of every training loss.

    Class attributes:
        Options: the table `objective_options` of a recipe.
        needs: what the towers compute for it, of {"patches", "pooled", "tokens"}.
        paths: patch path -> whether this loss trains it (see `Encoder.paths`).
        prompt_ensemble: how prompts are averaged at evaluation.
        gives: what an encoder with this objective gives.
    """

    Options: ClassVar[type[Strict]] = Strict
    needs: ClassVar[frozenset[str]] = frozenset({"pooled"})
    paths: ClassVar[Mapping[str, bool]] = {}
    prompt_ensemble: ClassVar[Literal["embeddings", "scores"]] = "embeddings"
    gives: ClassVar[frozenset[str]] = frozenset({"image", "text", "global", "patches", "tokens"})

    def __init__(self, image_width: int, text_width: int, options: Strict) -> None:  # noqa: ARG002 - the seam
        super().__init__()
        self.options = options

    def tower_options(self) -> dict[str, Any]:
        """What this loss asks of the towers (such as a number of image branches)."""
        return {}

    def collate(
        self,
        examples: Sequence[Example],
        index: Sequence[int],
        tokenize: Callable[[Sequence[Sequence[str]]], Tokens],
        rng: np.random.Generator,
    ) -> Batch:
        """One caption per example, drawn by `rng`; objectives with several captions or views override this."""
        chosen = [int(rng.integers(len(example.captions))) for example in examples]
        captions = tuple((example.captions[k],) for example, k in zip(examples, chosen, strict=True))
        return Batch(torch.as_tensor(index), tokenize(captions), captions, {"caption_index": torch.as_tensor(chosen)})

    def forward(self, image: ImageOut, text: TextOut, ctx: Ctx) -> dict[str, Tensor]:
        """The loss to minimise as "loss", each unweighted part and each logged quantity beside it (scalars)."""
        raise NotImplementedError

    def image_features(self, image: ImageOut, need: frozenset[str]) -> tuple[Tensor | None, dict[str, Tensor]]:
        """At evaluation: (global_ND or None, patch path -> NPD), un-normalised."""
        raise NotImplementedError

    def text_features(self, text: TextOut, need: frozenset[str]) -> tuple[Tensor | None, Tensor | None]:
        """At evaluation, K = 1: (global_MD or None, tokens_MLD or None), un-normalised."""
        raise NotImplementedError

    def similarity(
        self, images: ImageFeatures, texts: TextFeatures, regions: Regions | None = None, path: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cosine of global vectors, or of region vectors (weighted sums of the path's patches), with the texts'."""
        texts_MD = _unit(_present(texts.global_MD, "text"))
        if regions is None:
            scores = _unit(_present(images.global_ND, "image")) @ texts_MD.T
        else:
            patches_NPD = images.patches[path or next(iter(self.paths))]
            pooled_RD = torch.einsum("rp,rpd->rd", regions.weights_RP, patches_NPD[regions.image_index_R])
            scores = _unit(pooled_RD) @ texts_MD.T
        return scores, scores

    def dense_scores(self, images: ImageFeatures, texts: TextFeatures, path: str | None = None) -> Tensor:
        """Cosine of every patch with the texts' global vectors: (N, M, rows, columns)."""
        patches_NPD = _unit(images.patches[path or next(iter(self.paths))])
        scores_NMP = torch.einsum("npd,md->nmp", patches_NPD, _unit(_present(texts.global_MD, "text")))
        if images.grid is None:
            raise RuntimeError("patches without a grid")
        return scores_NMP.reshape(*scores_NMP.shape[:2], *images.grid)

    def after_step(self, step: int) -> None:
        """Called after each optimiser step (clamping, prototype updates)."""

    def held_out(self, batches: Sequence[tuple[ImageOut, ImageOut, TextOut]]) -> dict[str, Any]:  # noqa: ARG002
        """Called once after training with held-out (image, grey image, text) batches: figures for the summary."""
        return {}


def _present(vectors: Tensor | None, side: str) -> Tensor:
    if vectors is None:
        raise RuntimeError(f"the {side} features hold no global vectors: ask for 'global'")
    return vectors


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=-1)
