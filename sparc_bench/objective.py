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
package is the same file in `sparc_bench/objectives/`.

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
    """What the image tower gives: patches_BPW row-major over the grid, pooled_BMW (M = 1: their average).

    The tower of an open_clip checkpoint gives what it pools itself: its class token.
    """

    patches_BPW: Tensor
    pooled_BMW: Tensor
    grid: tuple[int, int]


@dataclass(frozen=True)
class TextOut:
    """What the text tower gives: tokens_BKLW, pooled_BKW (average over words), mask_BKL (words), special_BKL.

    The tower of an open_clip checkpoint gives what it pools itself: its end-of-text token.
    """

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
    """This rank's share of a batch: the examples' indices, token ids, captions, and what collate adds (`extra`).

    `extra["caption_index"]` (BK) says which of its example's captions each one is, where it is one of them.
    """

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
        counts: rows of the batch that each rank holds (several processes only).
        generator: for random draws; in the same state on every rank, so a draw for the whole batch is the same on all.
        extra: of the batch, of all its N rows on every rank. `known_true` (NNK) marks pairs (image, image of the
            caption, caption) other than an image's own that the data set's truth marks true: every objective leaves
            them out of its negatives.
        logits: the loss puts its scaled scores here by name, as (image-to-text BN, text-to-image BN), detached: what
            `Objective.scored_as` names is compared with the score at evaluation.
    """

    rank: int = 0
    world: int = 1
    counts: tuple[int, ...] = ()
    generator: torch.Generator | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    logits: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def gather(self, rows_BX: Tensor, ragged: bool = False) -> Tensor:
        """Rows of all ranks in rank order (N of them), with gradients; one process gives its own rows.

        `ragged`: the ranks' rows may differ in their second dimension (caption length); zeros fill it up.
        """
        return rows_BX if self.world == 1 else distributed.gather(rows_BX, self.counts, self.rank, ragged)

    def mean(self, values_X: Tensor, weights_X: Tensor) -> Tensor:
        """Weighted mean over all ranks: local sum times world over the weight of all ranks."""
        weight = weights_X.sum()
        if self.world != 1:
            weight = distributed.sum_over_ranks(weight) / self.world
        return (values_X * weights_X).sum() / weight.clamp_min(torch.finfo(values_X.dtype).tiny)

    def rows(self, count: int) -> slice:
        """Where this rank's `count` rows lie among the N rows of the batch."""
        start = sum(self.counts[: self.rank])
        return slice(start, start + count)

    def known_true(self) -> Tensor | None:
        """Pairs NN (image row, column of every image's first caption) that are no negatives, or None."""
        known_NNK = self.extra.get("known_true")
        return None if known_NNK is None else known_NNK[:, :, 0]


class ImageVectors(NamedTuple):
    """What an objective makes of images at evaluation, un-normalised; see `ImageFeatures`."""

    global_ND: Tensor | None = None
    patches: Mapping[str, Tensor] = MappingProxyType({})
    branches_NKD: Tensor | None = None


class Objective(nn.Module):
    """Base of every training loss.

    Class attributes:
        Options: the table `objective_options` of a recipe.
        data_needs: what the training data must provide (`PROVIDES` of its module).
        scored_as: names in `Ctx.logits` whose mean is the test score times the scale; none where no loss is one.
        paths: patch path -> whether this loss trains it (see `Encoder.paths`).
        token_path: patch path whose patches a loss contrasts with the tokens of captions; None where no loss does.
        prompt_ensemble: how prompts are averaged at evaluation.
        gives: what an encoder with this objective gives.
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
        """K: captions of an image that a step sees."""
        return 1

    @property
    def negatives_per_image(self) -> int:
        """Captions of a batch, per image, that are written to be false of it."""
        return 0

    @classmethod
    def tower_options(cls, options: Strict) -> dict[str, Any]:  # noqa: ARG003 - the seam
        """What this loss asks of the towers: `branches` of the image tower, `full_context` of the tokenizer.

        `branches` (0 by default) are class tokens, whose outputs are `ImageOut.pooled_BMW` instead of the patches'
        average.
        """
        return {}

    def collate(
        self,
        examples: Sequence[Example],
        index: Sequence[int],
        tokenize: Callable[[Sequence[Sequence[str]]], Tokens],
        rngs: Sequence[np.random.Generator],
    ) -> Batch:
        """`texts` of every example, by its own generator; objectives with further views override this.

        A generator is keyed by the example's place in the batch of all ranks, so that the number of ranks changes no
        draw.
        """
        chosen = [self.choose(example, rng) for example, rng in zip(examples, rngs, strict=True)]
        texts = tuple(self.texts(example, numbers) for example, numbers in zip(examples, chosen, strict=True))
        return Batch(torch.as_tensor(index), tokenize(texts), texts, {"caption_index": torch.as_tensor(chosen)})

    def choose(self, example: Example, rng: np.random.Generator) -> list[int]:
        """Numbers of the `captions_per_image` captions that a step sees; every caption once before any comes again."""
        drawn: list[int] = []
        while len(drawn) < self.captions_per_image:
            drawn += [int(k) for k in rng.permutation(len(example.captions))]
        return drawn[: self.captions_per_image]

    def texts(self, example: Example, chosen: Sequence[int]) -> tuple[str, ...]:
        """What the text tower reads of an example: the chosen captions; objectives with negatives add them."""
        return tuple(example.captions[k] for k in chosen)

    def forward(self, image: ImageOut, text: TextOut, ctx: Ctx) -> dict[str, Tensor]:
        """The loss to minimise as "loss", each unweighted part and each logged quantity beside it (scalars)."""
        raise NotImplementedError

    def image_features(self, image: ImageOut, need: frozenset[str]) -> ImageVectors:
        """At evaluation, what `need` names of {"global", "patches", "branches"}."""
        raise NotImplementedError

    def text_features(self, text: TextOut, need: frozenset[str]) -> tuple[Tensor | None, Tensor | None]:
        """At evaluation, K = 1: (global_MD or None, tokens_MLD or None), un-normalised."""
        raise NotImplementedError

    def similarity(
        self, images: ImageFeatures, texts: TextFeatures, regions: Regions | None = None, path: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cosine of global vectors, or of region vectors (weighted sums of the path's patches), with the texts'."""
        scores = cosine.similarity(images, texts, regions, path or next(iter(self.paths), ""))
        return scores, scores

    def dense_scores(self, images: ImageFeatures, texts: TextFeatures, path: str | None = None) -> Tensor:
        """Cosine of every patch with the texts' global vectors: (N, M, rows, columns)."""
        return cosine.dense_scores(images, texts, path or next(iter(self.paths)))

    def after_step(self, step: int) -> None:
        """Called after each optimiser step (clamping, prototype updates)."""

    def held_out(self, batches: Sequence[tuple[ImageOut, ImageOut, TextOut]]) -> dict[str, Any]:  # noqa: ARG002
        """Called once after training with held-out (image, grey image, text) batches: figures for the summary."""
        return {}
