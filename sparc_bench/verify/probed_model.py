"""The model under test with its features of the probe, computed once and shared by all checks.

Shapes: N images, M texts, D joint width, H W rows and columns of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy import ndarray
from PIL import Image
from torch import Tensor

from sparc_bench.encoder import Encoder
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.images.item import Box, ImageItem
from sparc_bench.images.view import View
from sparc_bench.verify import probe

TOLERANCE = {"float32": 1e-5, "bf16": 2e-2}
"""Precision of the forward pass -> largest relative distance of two vectors that count as equal."""

SAME_CALL = {"float32": 1e-5, "bf16": 1e-3}
"""The same bound for one input given twice in one call or in two calls of equal shape: rounding hardly differs."""


@runtime_checkable
class StoresVectors(Protocol):
    """An encoder that looks vectors up instead of computing them."""

    def held(self) -> tuple[Sequence[str], Sequence[str]]:
        """Ids of the images and strings of the texts with a stored vector."""
        ...


class ProbedModel:
    """An encoder with its features of the probe.

    Attributes:
        encoder: the model under test.
        views: the probe's images; for stored vectors a selection of the stored images.
        strings: the probe's texts; for stored vectors a selection of the stored texts.
        stored: True where the encoder looks its vectors up.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.views, self.strings = probe.IMAGES, probe.TEXTS
        self.stored = isinstance(encoder, StoresVectors)
        if isinstance(encoder, StoresVectors):
            names, texts = encoder.held()
            self.views = tuple(View(ImageItem(name, _blank)) for name in spread(names))
            self.strings = tuple(spread(texts))

    @property
    def gives(self) -> frozenset[str]:
        """`Encoder.gives`, without "image" and "text" where there are no vectors (a detector gives boxes alone)."""
        gives = self.encoder.gives
        if not gives & {"global", "patches", "branches"}:
            return gives - {"image", "text"}
        return gives

    @property
    def tolerance(self) -> float:
        """Largest relative distance of two vectors that count as equal in the model's precision."""
        return TOLERANCE.get(self.encoder.precision, max(TOLERANCE.values()))

    @property
    def same_call(self) -> float:
        """Largest relative distance of two vectors of one call that count as equal."""
        return SAME_CALL.get(self.encoder.precision, max(SAME_CALL.values()))

    @property
    def image_need(self) -> frozenset[str]:
        """All kinds of image features that the model gives."""
        return self.encoder.gives & {"global", "patches", "branches"}

    @property
    def text_need(self) -> frozenset[str]:
        """All kinds of text features that the model gives; texts have global vectors even where images have none."""
        return frozenset({"global"}) | (self.encoder.gives & {"tokens"})

    @cached_property
    def images(self) -> ImageFeatures:
        """Features of all images, from one call."""
        return self.encoder.images(self.views, self.image_need)

    @cached_property
    def texts(self) -> TextFeatures:
        """Features of all short texts, from one call."""
        return self.encoder.texts(self.strings, self.text_need)

    def text_vectors(self, texts: Sequence[str]) -> Tensor:
        """Global vectors MD of texts, from one call."""
        vectors_MD = self.encoder.texts(texts, frozenset({"global"})).global_MD
        if vectors_MD is None:
            raise RuntimeError("texts gave no global_MD although 'global' was asked for")
        return vectors_MD

    def pixels(self, image: Image.Image) -> tuple[ndarray | None, Box]:
        """The preprocessed pixels HWC (None where the input is no picture) and the area that `preprocess` reports."""
        pixels, area = self.encoder.preprocess(View(ImageItem("verify", partial(_same, image))))
        return picture(pixels), area

    @cached_property
    def input_size(self) -> tuple[int, int]:
        """Rows and columns of the preprocessed square image; 224 x 224 where the input is no picture."""
        picture_HWC, _ = self.pixels(probe.IMAGES[0].open())
        return (224, 224) if picture_HWC is None else (picture_HWC.shape[0], picture_HWC.shape[1])


def spread(names: Sequence[str], most: int = 512) -> list[str]:
    """At most `most` of the names, evenly spread.

    >>> spread(["a", "b", "c", "d", "e"], 2)
    ['a', 'c']
    """
    return [names[at * len(names) // most] for at in range(most)] if len(names) > most else list(names)


def _blank() -> Image.Image:
    """A blank image in place of one with a stored vector; only its size is read."""
    return Image.new("RGB", (64, 64))


def _same(image: Image.Image) -> Image.Image:
    return image


def picture(pixels: Tensor) -> ndarray | None:
    """Pixels CHW or HWC as float64 HWC; None for an input that is no picture of 1 or 3 channels."""
    if pixels.ndim != 3:
        return None
    array = pixels.detach().cpu().double().numpy()
    if array.shape[0] in (1, 3):
        return np.moveaxis(array, 0, -1)
    return array if array.shape[2] in (1, 3) else None


def image_vectors(features: ImageFeatures) -> dict[str, Tensor]:
    """Name of the kind ("global", "branches", "patches 'PATH'") -> vectors, N first."""
    named = {"global": features.global_ND, "branches": features.branches_NKD}
    present = {name: vectors for name, vectors in named.items() if vectors is not None}
    return present | {f"patches '{path}'": vectors for path, vectors in features.patches.items()}


def image_rows(features: ImageFeatures) -> Tensor:
    """One row per image: the global vector, or all patches of the first path where a model has none."""
    if features.global_ND is not None:
        return features.global_ND
    return next(iter(features.patches.values())).flatten(1)


def distance(found: Tensor, expected: Tensor) -> float:
    """Largest relative distance of matching vectors (last dimension): |found - expected| / |expected|."""
    found, expected = found.double(), expected.double()
    length = expected.norm(dim=-1).clamp_min(torch.finfo(torch.float32).tiny)
    return float(((found - expected).norm(dim=-1) / length).max())


def widest(found: ImageFeatures, expected: ImageFeatures) -> float:
    """Largest relative distance between two sets of features of the same images, over all kinds of vectors."""
    others = image_vectors(expected)
    return max(distance(vectors, others[name]) for name, vectors in image_vectors(found).items())


def apart(worst: float) -> str:
    """A relative distance in words."""
    return "equal" if worst == 0 else f"{worst:.1e} apart"
