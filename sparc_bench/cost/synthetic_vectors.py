"""A synthetic data set and model (one plug-in) to measure the time of scoring: vectors around random centres.

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
from sparc_bench.dataset import Example, Examples
from sparc_bench.encoder import ImageTextEncoder, Runtime
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.images.item import Box, ImageItem
from sparc_bench.images.view import View

TITLE = "synthetic labels and captions to measure the time of scoring"
SOURCE = "none"
NEEDS_ON_DISK = ""
PROVIDES = frozenset({"labels", "captions"})
SPLITS = ("all",)

WIDTH = 512
_NUMBER = re.compile(r"(?:class|photo) (\d+)")


class Options(Strict):
    """Size of the data set."""

    images: int
    classes: int
    """number of classes; 0 for a data set of captions"""
    captions: int
    """number of captions of each image"""


def read(root: Path | None, split: str, options: Options) -> Examples:  # noqa: ARG001 - nothing lies on disk
    """Images with class labels and names like ImageNet's, or with captions of their own."""
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
    return Examples(
        dataset="synthetic_vectors",
        split=split,
        examples=tuple(examples),
        classes=tuple(f"class {number}" for number in range(options.classes)),
        fingerprint=hashlib.sha256(options.model_dump_json().encode()).hexdigest(),
    )


def _closed(image_id: str) -> NoReturn:
    raise RuntimeError(f"{image_id} was opened, but scoring from the cache opens no image")


class SyntheticEncoder(ImageTextEncoder):
    """An encoder of images and texts with vectors around the centre of their class or image; cosine scores.

    Args:
        data: data of `read`, from which the centre of each image is known.
        distance: standard deviation around the centres; the centres have standard deviation 1.
    """

    def __init__(self, data: Examples, distance: float) -> None:
        card = ModelCard(name="synthetic_vectors", title="synthetic vectors", family="synthetic_vectors", source="none")
        super().__init__(card, Runtime(), self._number, "none", {"distance": distance, "width": WIDTH})
        centre_of = data.classes or data.examples
        self._centres_CD = torch.randn(len(centre_of), WIDTH, generator=torch.Generator().manual_seed(2**40))
        self._centre_of = {
            example.image.id: place if example.label is None else example.label for place, example in enumerate(data)
        }
        self._distance = distance

    def _number(self, view: View) -> tuple[Tensor, Box]:
        return torch.tensor(self._centre_of[view.id]), (0.0, 0.0, 1.0, 1.0)

    def encode_pixels(self, pixels: Tensor, need: frozenset[str]) -> ImageFeatures:  # noqa: ARG002
        """Vectors of images; `pixels` holds the numbers of their centres."""
        return ImageFeatures((), self._about(pixels, seed=int(pixels[0])))

    def encode_texts(self, texts: Sequence[str], need: frozenset[str]) -> TextFeatures:  # noqa: ARG002
        """Vectors of texts, around the centre whose number the text names."""
        numbers = [int(found.group(1)) for text in texts if (found := _NUMBER.search(text))]
        return TextFeatures(tuple(texts), self._about(torch.tensor(numbers), seed=-1 - numbers[0]))

    def _about(self, centres: Tensor, seed: int) -> Tensor:
        noise = torch.randn(len(centres), WIDTH, generator=torch.Generator().manual_seed(seed))
        return self._centres_CD[centres] + self._distance * noise
