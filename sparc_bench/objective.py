"""The objective seam: a loss as the trainer sees it, and the same model's scores at evaluation.

A new loss is one Python file with a class `Objective`: a module that owns its heads, temperature, bias and prototypes;
the training loop knows none of its specialities. `HeadedObjective` brings the projections, the temperature and cosine
scores. A complete one, image-to-text InfoNCE, which gives the same gradients on eight GPUs as on one:

    import torch
    import torch.nn.functional as F

    from sparc_bench.two_towers.heads import HeadedObjective


    class Objective(HeadedObjective):
        def forward(self, image, text, ctx):
            image_BD = F.normalize(self.global_image(image), dim=-1)
            text_BD = F.normalize(self.global_text(text)[:, 0], dim=-1)
            logits_BN = self.scale * image_BD @ ctx.gather(text_BD).T
            own = ctx.rows(len(image_BD))
            own_B = torch.arange(own.start, own.stop, device=image_BD.device)
            loss_B = F.cross_entropy(logits_BN, own_B, reduction="none")
            return {"loss": ctx.mean(loss_B, torch.ones_like(loss_B))}

Named by `--plugin image_to_text.py`, it is the `objective = "image_to_text"` of a recipe. A loss that ships with the
package is such a file in `sparc_bench/objectives/`, with TITLE and SOURCE; it leaves the pairs of `ctx.known_true()`
out of its negatives, and notes its scores in `ctx.logits`.

Shapes: B batch, N batch of all processes, K captions per image, L text tokens, P patches, M pooled vectors per image,
D joint width, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sparc_bench import distributed
from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Example
from sparc_bench.features import ImageFeatures, Regions, TextFeatures
from sparc_bench.metrics import cosine


@dataclass(frozen=True)
class ImageOut:
    """Outputs of the image tower: patches_BPW, row-major over the grid, and pooled_BMW.

    M = 1, and the pooled vector is the average of the patches; an open_clip checkpoint's own pooling replaces it
    (class token), and `tower_options` may ask for M branches.
    """

    patches_BPW: Tensor
    pooled_BMW: Tensor
    grid: tuple[int, int]


@dataclass(frozen=True)
class TextOut:
    """Outputs of the text tower: tokens_BKLW, pooled_BKW (average over words), masks of words and special tokens.

    An open_clip checkpoint's own pooling replaces the average (end-of-text token).
    """

    tokens_BKLW: Tensor
    pooled_BKW: Tensor
    mask_BKL: Tensor
    special_BKL: Tensor


@dataclass(frozen=True)
class Tokens:
    """Token ids, with masks of words and of special tokens (BOS, EOS); all others are padding."""

    ids_BKL: Tensor
    mask_BKL: Tensor
    special_BKL: Tensor

    def to(self, device: torch.device) -> Tokens:
        """Tokens on a device."""
        return Tokens(self.ids_BKL.to(device), self.mask_BKL.to(device), self.special_BKL.to(device))


@dataclass(frozen=True)
class Batch:
    """Batch of one rank.

    Attributes:
        index_B: index of each example in the training data.
        tokens: token ids of the captions.
        captions: the K texts of each example.
        extra: further tensors of the objective's `collate`; `caption_index` (BK) is the number of each text among its
            example's captions.
    """

    index_B: Tensor
    tokens: Tokens
    captions: tuple[tuple[str, ...], ...]
    extra: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Ctx:
    """Context of a training step, for a loss: other ranks, random numbers, further data.

    Attributes:
        rank: number of this process.
        world: number of processes.
        counts: number of rows of each rank's batch (several processes only).
        generator: random generator with the same state on every rank, so that all ranks draw the same for the batch.
        extra: `Batch.extra`, for all N rows on every rank. `known_true` (NNK) marks pairs (image, image of the caption,
            caption) that are true by the data set's truth and not an image's own: every objective leaves them out of
            its negatives.
        logits: output of the loss: its scaled scores by name, (image-to-text BN, text-to-image BN), detached. Tests
            compare those that `Objective.scored_as` names with the scores at evaluation.
    """

    rank: int = 0
    world: int = 1
    counts: tuple[int, ...] = ()
    generator: torch.Generator | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    logits: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def gather(self, rows_BX: Tensor, ragged: bool = False) -> Tensor:
        """Rows of all ranks in rank order (N of them), with gradients; one process gives its own rows.

        `ragged`: whether ranks may differ in the second dimension (caption length); shorter rows are padded with zeros.
        """
        return rows_BX if self.world == 1 else distributed.gather(rows_BX, self.counts, self.rank, ragged)

    def mean(self, values_X: Tensor, weights_X: Tensor) -> Tensor:
        """Weighted mean over all ranks: the local weighted sum times `world`, divided by the weight of all ranks."""
        weight = weights_X.sum()
        if self.world != 1:
            weight = distributed.sum_over_ranks(weight) / self.world
        return (values_X * weights_X).sum() / weight.clamp_min(torch.finfo(values_X.dtype).tiny)

    def rows(self, count: int) -> slice:
        """Slice of this rank's `count` rows among the N rows of all ranks."""
        start = sum(self.counts[: self.rank])
        return slice(start, start + count)

    def known_true(self) -> Tensor | None:
        """Mask NN (image, image of the first caption) of true pairs that are no negatives; None without known truth."""
        known_NNK = self.extra.get("known_true")
        return None if known_NNK is None else known_NNK[:, :, 0]


class ImageVectors(NamedTuple):
    """Image vectors of an objective at evaluation, un-normalised; see `ImageFeatures`."""

    global_ND: Tensor | None = None
    patches: Mapping[str, Tensor] = MappingProxyType({})
    branches_NKD: Tensor | None = None


class Objective(nn.Module):
    """Base of every training loss.

    Class attributes:
        Options: class of the table `objective_options` of a recipe.
        data_needs: annotations that the training data must have (`PROVIDES` of the data set's module).
        scored_as: names in `Ctx.logits` whose mean is the score at evaluation times the scale; empty if there are none.
        paths: patch path -> whether this loss trains it (see `Encoder.paths`).
        token_path: patch path that a loss contrasts with the tokens of captions; None without such a loss.
        prompt_ensemble: average of a class's prompts at evaluation, over embeddings or scores.
        gives: features of an encoder with this objective (see `Encoder.gives`).
    """

    Options: ClassVar[type[Strict]] = Strict
    data_needs: ClassVar[frozenset[str]] = frozenset({"captions"})
    scored_as: ClassVar[tuple[str, ...]] = ("global",)
    paths: ClassVar[Mapping[str, bool]] = {}
    token_path: ClassVar[str | None] = None
    prompt_ensemble: ClassVar[Literal["embeddings", "scores"]] = "embeddings"
    gives: ClassVar[frozenset[str]] = frozenset({"image", "text", "global", "patches", "tokens"})

    def __init__(self, image_width: int, text_width: int, options: Strict) -> None:  # noqa: ARG002 - the seam
        super().__init__()
        self.options = options

    @property
    def captions_per_image(self) -> int:
        """Number of captions per image in a training step, K."""
        return 1

    @property
    def negatives_per_image(self) -> int:
        """Number of hard-negative captions per image in a training step."""
        return 0

    @classmethod
    def tower_options(cls, options: Strict) -> dict[str, Any]:  # noqa: ARG003 - the seam
        """Options of the towers: `branches` of the image tower, `full_context` of the tokenizer.

        `branches` (0 by default) is the number of class tokens, whose outputs are `ImageOut.pooled_BMW` in place of the
        patches' average.
        """
        return {}

    def collate(
        self,
        examples: Sequence[Example],
        index: Sequence[int],
        tokenize: Callable[[Sequence[Sequence[str]]], Tokens],
        rngs: Sequence[np.random.Generator],
    ) -> Batch:
        """Batch of the examples' `texts`; objectives with further views override this.

        Each example has a generator of its own, seeded by its position in the batch of all ranks, so that the number of
        ranks changes no draw.
        """
        chosen = [self.choose(example, rng) for example, rng in zip(examples, rngs, strict=True)]
        texts = tuple(self.texts(example, numbers) for example, numbers in zip(examples, chosen, strict=True))
        return Batch(torch.as_tensor(index), tokenize(texts), texts, {"caption_index": torch.as_tensor(chosen)})

    def choose(self, example: Example, rng: np.random.Generator) -> list[int]:
        """Indices of `captions_per_image` random captions of an example; none repeats before all have been drawn."""
        drawn: list[int] = []
        while len(drawn) < self.captions_per_image:
            drawn += [int(k) for k in rng.permutation(len(example.captions))]
        return drawn[: self.captions_per_image]

    def texts(self, example: Example, chosen: Sequence[int]) -> tuple[str, ...]:
        """Texts of an example for the text tower: the chosen captions; objectives with hard negatives add them."""
        return tuple(example.captions[k] for k in chosen)

    def forward(self, image: ImageOut, text: TextOut, ctx: Ctx) -> dict[str, Tensor]:
        """Scalars: the loss to minimise ("loss"), its unweighted parts and further logged quantities."""
        raise NotImplementedError

    def image_features(self, image: ImageOut, need: frozenset[str]) -> ImageVectors:
        """Image vectors at evaluation; `need` is a subset of {"global", "patches", "branches"}."""
        raise NotImplementedError

    def text_features(self, text: TextOut, need: frozenset[str]) -> tuple[Tensor | None, Tensor | None]:
        """Text vectors at evaluation, K = 1: (global_MD or None, tokens_MLD or None), un-normalised."""
        raise NotImplementedError

    def similarity(
        self, images: ImageFeatures, texts: TextFeatures, regions: Regions | None = None, path: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cosine scores, for both directions alike: NM, or RM of regions (weighted sums of the path's patches)."""
        scores = cosine.similarity(images, texts, regions, path or next(iter(self.paths), ""))
        return scores, scores

    def dense_scores(self, images: ImageFeatures, texts: TextFeatures, path: str | None = None) -> Tensor:
        """Cosine scores of every patch with the texts' global vectors: (N, M, rows, columns)."""
        return cosine.dense_scores(images, texts, path or next(iter(self.paths)))

    def inverse_temperature(self) -> float | None:
        """The factor of the cosines, learned or fixed; None for a loss without one."""
        return None

    def after_step(self, step: int) -> None:
        """Update after each optimiser step (clamping, prototypes)."""

    def held_out(self, batches: Sequence[tuple[ImageOut, ImageOut, TextOut]]) -> dict[str, Any]:  # noqa: ARG002
        """Figures for the training summary, from held-out batches (image, grey image, text) after training."""
        return {}
