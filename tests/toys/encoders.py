"""Encoders whose vectors are known: what a protocol must make of an answer key, a constant and noise.

Vectors are looked up by image id and by text, so that the order of images and candidates cannot matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sparc_bench.cards.model_card import ModelCard
from sparc_bench.dataset import Example, Examples
from sparc_bench.encoder import Encoder
from sparc_bench.features import ImageFeatures, Regions, TextFeatures
from sparc_bench.images.item import Box, ImageItem
from sparc_bench.images.view import View, in_batches

Vectors = Callable[[str], np.ndarray]
PatchVectors = Callable[[str, str], np.ndarray]
"""(path, image id) -> vectors of the patches, row-major: P x D."""


def blank(width: int = 8, height: int = 8) -> Image.Image:
    return Image.new("RGB", (width, height))


def item(item_id: str) -> ImageItem:
    return ImageItem(item_id, blank)


@dataclass
class LookupEncoder(Encoder):
    """An encoder of given vectors; scores are dot products (no normalisation: the vectors decide alone).

    With `twisted` the image-to-text scores are the dot products and the text-to-image scores their negatives, as a
    model with two different matrices might have.
    """

    image_vector: Vectors
    text_vector: Vectors
    patch_vectors: PatchVectors | None = None
    grid: tuple[int, int] = (4, 4)
    size: int = 8
    twisted: bool = False
    prompt_ensemble: Literal["embeddings", "scores"] = "embeddings"
    card: ModelCard = field(default_factory=lambda: ModelCard(name="lookup", title="", family="test", source="test"))
    gives: frozenset[str] = frozenset({"image", "text", "global", "patches", "tokens"})
    paths: Mapping[str, bool] = field(default_factory=lambda: {"local": True, "global": False})
    weights_hash: str = "none"
    precision: str = "float32"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    asked: list[tuple[str, int]] = field(default_factory=list)

    def preprocess(self, view: View) -> tuple[Tensor, Box]:
        rows, columns = view.size or (self.size, self.size)
        return torch.zeros(3, rows, columns), view.in_original((0.0, 0.0, float(self.size), float(self.size)))

    def stream(self, groups: Iterable[Sequence[View]], need: frozenset[str]) -> Iterator[ImageFeatures]:
        for views in in_batches(groups, self.runtime.batch_size):
            self.asked.append(("images", len(views)))
            patches = {}
            if "patches" in need:
                for path in self.paths:
                    patches[path] = torch.stack([self._patches(path, view.id) for view in views])
            yield ImageFeatures(
                ids=tuple(view.id for view in views),
                global_ND=_stacked([self.image_vector(view.id) for view in views]) if "global" in need else None,
                patches=patches,
                grid=self.grid,
                area_N4=torch.tensor([self.preprocess(view)[1] for view in views]),
            )

    def texts(self, texts: Sequence[str], need: frozenset[str]) -> TextFeatures:
        self.asked.append(("texts", len(texts)))
        vectors_MD = _stacked([self.text_vector(text) for text in texts])
        tokens = "tokens" in need
        return TextFeatures(
            texts=tuple(texts),
            global_MD=vectors_MD if "global" in need else None,
            tokens_MLD=vectors_MD[:, None, :] if tokens else None,
            mask_ML=torch.ones(len(texts), 1, dtype=torch.bool) if tokens else None,
        )

    def similarity(
        self, images: ImageFeatures, texts: TextFeatures, regions: Regions | None = None, path: str | None = None
    ) -> tuple[Tensor, Tensor]:
        assert texts.global_MD is not None
        if regions is not None:
            patches_NPD = images.patches[path or next(iter(self.paths))]
            vectors = torch.einsum("rp,rpd->rd", regions.weights_RP.float(), patches_NPD[regions.image_index_R])
        else:
            assert images.global_ND is not None
            vectors = images.global_ND
        scores = vectors @ texts.global_MD.T
        return scores, -scores if self.twisted else scores

    def dense_scores(self, images: ImageFeatures, texts: TextFeatures, path: str | None = None) -> Tensor:
        assert texts.global_MD is not None
        patches_NPD = images.patches[path or next(iter(self.paths))]
        return torch.einsum("npd,md->nmp", patches_NPD, texts.global_MD).unflatten(2, self.grid)

    def _patches(self, path: str, image_id: str) -> Tensor:
        if self.patch_vectors is None:
            count = self.grid[0] * self.grid[1]
            return torch.as_tensor(self.image_vector(image_id), dtype=torch.float32).expand(count, -1)
        return torch.as_tensor(self.patch_vectors(path, image_id), dtype=torch.float32)


def _stacked(vectors: Sequence[np.ndarray]) -> Tensor:
    return torch.as_tensor(np.stack(vectors), dtype=torch.float32)


def noise(key: str, width: int, seed: int = 0) -> np.ndarray:
    """A unit vector that depends on the key and the seed alone."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    vector = np.random.default_rng(int.from_bytes(digest[:8], "little")).normal(size=width)
    return vector / np.linalg.norm(vector)


def random_encoder(seed: int = 0, width: int = 64, grid: tuple[int, int] = (4, 4)) -> LookupEncoder:
    """Every image, text and patch has a random direction of its own."""
    count = grid[0] * grid[1]
    return LookupEncoder(
        image_vector=lambda image_id: noise(f"image {image_id}", width, seed),
        text_vector=lambda text: noise(f"text {text}", width, seed),
        patch_vectors=lambda path, image_id: np.stack(
            [noise(f"{path} {image_id} {patch}", width, seed) for patch in range(count)]
        ),
        grid=grid,
    )


def constant_encoder(width: int = 4, grid: tuple[int, int] = (4, 4)) -> LookupEncoder:
    """Every image, text and patch has the same vector: all scores are equal, exactly."""
    vector = np.eye(width)[0]
    return LookupEncoder(lambda _: vector, lambda _: vector, grid=grid)


def answer_key(
    ids: Sequence[str], texts: Sequence[str], truth_NM: np.ndarray, grid: tuple[int, int] = (4, 4)
) -> LookupEncoder:
    """Scores 1 where `truth_NM` says so and 0 elsewhere."""
    image_rows = dict(zip(ids, np.asarray(truth_NM, dtype=np.float32), strict=True))
    text_rows = dict(zip(texts, np.eye(len(texts), dtype=np.float32), strict=True))
    return LookupEncoder(lambda image_id: image_rows[image_id], lambda text: text_rows[text], grid=grid)


def caption_key(data: Examples, truth_NM: np.ndarray | None = None) -> LookupEncoder:
    """Knows which caption is true of which image (default: each image's own, and equal strings alike)."""
    truth_NM = data.own_truth() if truth_NM is None else truth_NM
    texts = list(dict.fromkeys([*data.captions, *data.pool]))
    place = np.array([texts.index(caption) for caption in data.captions])
    truth_NU = np.zeros((len(data), len(texts)), dtype=bool)
    rows, columns = np.nonzero(truth_NM)
    truth_NU[rows, place[columns]] = True
    return answer_key([example.id for example in data.examples], texts, truth_NU)


def label_key(data: Examples, prompts: Sequence[str]) -> LookupEncoder:
    """Knows every image's label; `prompts` are the prompted class names in the order of the classes."""
    truth = np.array([[example.label == label for label in range(len(data.classes))] for example in data.examples])
    return answer_key([example.id for example in data.examples], prompts, truth)


def split_of(examples: Sequence[Example], **about: object) -> Examples:
    """A data split of hand-made examples."""
    return Examples(dataset="handmade", split="test", examples=tuple(examples), **about)  # type: ignore[arg-type]
