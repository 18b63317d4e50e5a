"""Plug-in data set and model for measuring the time of scoring: no photos, no weights, vectors about random centres.

Shapes: C classes or photos (one centre each), D joint width.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from sparc_bench.cards.card import Strict
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.dataset import DataSplit, Example
from sparc_bench.encoder import ImageTextEncoder, Runtime
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.images.item import Box, ImageItem

TITLE = "made-up labels and captions for measurements of time"
SOURCE = "none"
NEEDS_ON_DISK = ""
PROVIDES = frozenset({"labels", "captions"})
SPLITS = ("all",)

WIDTH = 512
_NUMBER = re.compile(r"(?:class|photo) (\d+)")


class Options(Strict):
    """How much of what."""

    images: int
    classes: int
    """0: none, and every image has captions"""
    captions: int
    """of each image"""


def read(root: Path | None, split: str, options: Options) -> DataSplit:  # noqa: ARG001 - nothing lies on disk
    """Images in class folders by name, as ImageNet's lie, or with captions of their own."""
    rng = np.random.default_rng(0)
    names = rng.permutation(options.images) + 1
    label_N = np.sort(np.arange(options.images) % options.classes) if options.classes else np.arange(options.images)
    names = names[np.lexsort((names, label_N))]
    examples = []
    for label, name in zip(label_N.tolist(), names.tolist(), strict=True):
        image_id = f"n{10_000_000 + 7919 * label:08d}/ILSVRC2012_val_{name:08d}.JPEG"
        examples.append(
            Example(
                id=image_id,
                image=ImageItem(image_id, partial(_closed, image_id)),
                captions=tuple(f"caption {number} of photo {label}" for number in range(options.captions)),
                label=label if options.classes else None,
            )
        )
    return DataSplit(
        dataset="made_up",
        split=split,
        examples=tuple(examples),
        classes=tuple(f"class {number}" for number in range(options.classes)),
        fingerprint=hashlib.sha256(options.model_dump_json().encode()).hexdigest(),
    )


def _closed(image_id: str) -> NoReturn:
    raise RuntimeError(f"{image_id} was opened, but what is measured is scoring from the cache")


class Vectors(ImageTextEncoder):
    """Images and texts at a random distance from the centre of their class or photo; cosine scores.

    Args:
        data: of `read`; the model must know where its images belong.
        distance: standard deviation about the centres, whose own is 1.
    """

    def __init__(self, data: DataSplit, distance: float) -> None:
        card = ModelCard(name="made_up", title="made-up vectors", family="made_up", source="none")
        super().__init__(card, Runtime(), self._number, "none", {"distance": distance, "width": WIDTH})
        centre_of = data.classes or data.examples
        self._centres_CD = torch.randn(len(centre_of), WIDTH, generator=torch.Generator().manual_seed(2**40))
        self._centre_of = {
            example.image.id: place if example.label is None else example.label for place, example in enumerate(data)
        }
        self._distance = distance

    def _number(self, item: ImageItem, size: int | None) -> tuple[Tensor, Box]:  # noqa: ARG002
        return torch.tensor(self._centre_of[item.id]), (0.0, 0.0, 1.0, 1.0)

    def encode_pixels(self, pixels: Tensor, need: frozenset[str]) -> ImageFeatures:  # noqa: ARG002
        """Vectors of images, whose "pixels" are the number of their centre."""
        return ImageFeatures((), self._about(pixels, seed=int(pixels[0])))

    def encode_texts(self, texts: Sequence[str], need: frozenset[str]) -> TextFeatures:  # noqa: ARG002
        """Vectors of texts, by the number in them."""
        numbers = [int(found.group(1)) for text in texts if (found := _NUMBER.search(text))]
        return TextFeatures(tuple(texts), self._about(torch.tensor(numbers), seed=-1 - numbers[0]))

    def _about(self, centres: Tensor, seed: int) -> Tensor:
        noise = torch.randn(len(centres), WIDTH, generator=torch.Generator().manual_seed(seed))
        return self._centres_CD[centres] + self._distance * noise
