"""Encoders that know nothing, for the reference rows: one that says the same of everything, one that says anything.

Both have the patch paths, grid and areas of the model that they stand beside, so that a task treats them alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from sparc_bench.cards.model_card import ModelCard
from sparc_bench.encoder import Encoder
from sparc_bench.features import ImageFeatures, Regions, TextFeatures, present, unit
from sparc_bench.images.item import Box
from sparc_bench.images.view import View, in_batches


class HasGeometry(Encoder, Protocol):
    """An encoder that can say where an image's grid lies without encoding it."""

    def geometry(self, views: Sequence[View]) -> tuple[tuple[int, int], Tensor]:
        """Grid and area_N4 of views of one input size."""
        ...


class _ReferenceEncoder(Encoder):
    """Global vectors, patches and tokens from `vectors`; cosine scores (see `sparc_bench.encoder.Encoder`)."""

    name: ClassVar[str]
    width: ClassVar[int]

    def __init__(self, beside: HasGeometry) -> None:
        self._beside = beside
        self.card = ModelCard(name=self.name, title=f"{self.name} reference", family=self.name, source="this project")
        self.gives = beside.gives & {"image", "text", "global", "patches", "tokens"} | {"global"}
        self.paths: Mapping[str, bool] = beside.paths
        self.prompt_ensemble: Literal["embeddings", "scores"] = beside.prompt_ensemble
        self.weights_hash = self.name
        self.precision = "float32"
        self.device = torch.device("cpu")

    def vectors(self, key: str, count: int) -> Tensor:
        """`count` rows of `width` numbers that belong to a key."""
        raise NotImplementedError

    def preprocess(self, view: View) -> tuple[Tensor, Box]:
        """Pixels and area of the model beside it."""
        return self._beside.preprocess(view)

    def stream(self, groups: Iterable[Sequence[View]], need: frozenset[str]) -> Iterator[ImageFeatures]:
        """Vectors by image id and window; no image is opened for them."""
        for views in in_batches(groups, self.runtime.batch_size):
            yield self._features(views, need)

    def _features(self, views: Sequence[View], need: frozenset[str]) -> ImageFeatures:
        ids = tuple(view.id for view in views)
        keys = [f"{view.id}\x1f{view.window}" for view in views]
        global_ND = torch.cat([self.vectors(f"image\x1f{key}", 1) for key in keys]) if "global" in need else None
        if "patches" not in need:
            return ImageFeatures(ids, global_ND)
        grid, area_N4 = self._beside.geometry(views)
        patches = {
            path: torch.stack([self.vectors(f"patches\x1f{path}\x1f{key}", grid[0] * grid[1]) for key in keys])
            for path in self.paths
        }
        return ImageFeatures(ids, global_ND, None, patches, grid, area_N4)

    def texts(self, texts: Sequence[str], need: frozenset[str]) -> TextFeatures:
        """Vectors by the exact string, and one per white-space word."""
        global_MD = torch.cat([self.vectors(f"text\x1f{text}", 1) for text in texts]) if "global" in need else None
        if "tokens" not in need:
            return TextFeatures(tuple(texts), global_MD)
        words_M = torch.tensor([max(1, len(text.split())) for text in texts])
        longest = int(words_M.max())
        tokens_MLD = torch.stack([self.vectors(f"tokens\x1f{text}", longest) for text in texts])
        return TextFeatures(tuple(texts), global_MD, tokens_MLD, torch.arange(longest) < words_M[:, None])

    def similarity(
        self, images: ImageFeatures, texts: TextFeatures, regions: Regions | None = None, path: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cosine of global vectors, or of pooled patches, with the texts' global vectors."""
        if regions is None:
            vectors_RD = present(images.global_ND, "image")
        else:
            patches_NPD = images.patches[path or next(iter(self.paths))]
            vectors_RD = torch.einsum("rp,rpd->rd", regions.weights_RP.cpu(), patches_NPD[regions.image_index_R.cpu()])
        scores = self._cosine(vectors_RD, present(texts.global_MD, "text"))
        return scores, scores

    def dense_scores(self, images: ImageFeatures, texts: TextFeatures, path: str | None = None) -> Tensor:
        """Cosine of every patch with the texts' global vectors."""
        if images.grid is None:
            raise RuntimeError("dense scores were asked of features without patches")
        patches_NPD = images.patches[path or next(iter(self.paths))]
        scores_NPM = self._cosine(patches_NPD, present(texts.global_MD, "text"))
        return scores_NPM.transpose(1, 2).reshape(len(images), len(texts), *images.grid)

    def token_maps(self, images: ImageFeatures, words: Sequence[str], path: str | None = None) -> Tensor:
        """Cosine of every patch with a vector of each word, which stands for its place in the caption too."""
        tokens_LD = self.texts([" ".join(words)], frozenset({"tokens"})).tokens_MLD
        if images.grid is None or tokens_LD is None:
            raise RuntimeError("token maps were asked of features without patches")
        patches_NPD = images.patches[path or self._beside.token_path or next(iter(self.paths))]
        scores_NPL = self._cosine(patches_NPD, tokens_LD[0])
        return scores_NPL.transpose(1, 2).reshape(len(images), len(words), *images.grid)

    def untrained(self) -> None:
        """None: a guess has no towers to leave untrained."""

    def _cosine(self, rows: Tensor, texts_MD: Tensor) -> Tensor:
        return unit(rows) @ unit(texts_MD).T


class ConstantEncoder(_ReferenceEncoder):
    """Every image, patch and text is the same: all scores tie, exactly."""

    name = "constant"
    width = 1

    def vectors(self, key: str, count: int) -> Tensor:  # noqa: ARG002 - the same whatever the key
        """Ones."""
        return torch.ones(count, self.width)

    def _cosine(self, rows: Tensor, texts_MD: Tensor) -> Tensor:
        # not computed: rounding could tell two constants apart, and the tie rule would not see them as equal
        return torch.ones(*rows.shape[:-1], len(texts_MD))


class RandomEncoder(_ReferenceEncoder):
    """Gaussian vectors keyed by a hash of id or string, so that neither order nor batch size changes one."""

    name = "random"
    width = 64

    def vectors(self, key: str, count: int) -> Tensor:
        """Standard normal rows."""
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "big")
        return torch.from_numpy(np.random.default_rng(seed).standard_normal((count, self.width), dtype=np.float32))
