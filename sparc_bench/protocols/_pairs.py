"""Scores of images and texts by the model's own rule, in bounded memory.

Shapes: N images, U distinct texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int
from numpy import ndarray
from torch import Tensor

from sparc_bench.features import Encoder, ImageFeatures, ImageItem, TextFeatures
from sparc_bench.image_stream import stream

_TEXTS_AT_ONCE = 2048


@dataclass(frozen=True)
class DistinctTexts:
    """Strings without repetition, and where each original one went.

    Each string is scored once, so equal captions tie exactly, whatever the arithmetic.
    """

    texts: tuple[str, ...]
    index_M: Int[ndarray, "M"]

    @classmethod
    def of(cls, texts: Sequence[str]) -> DistinctTexts:
        """In order of first appearance."""
        place = {text: index for index, text in enumerate(dict.fromkeys(texts))}
        return cls(tuple(place), np.array([place[text] for text in texts], dtype=np.int64))


def pairwise(encoder: Encoder) -> bool:
    """Whether the model's score needs more of an image and a text than one vector each."""
    return encoder.prompt_ensemble == "scores" or "global" not in encoder.gives


def image_need(encoder: Encoder) -> frozenset[str]:
    """What `similarity` may look at in an image: the global vector, or all there is for a pairwise model."""
    return frozenset({"global", "branches", "patches"} & encoder.gives) if pairwise(encoder) else frozenset({"global"})


def text_need(encoder: Encoder) -> frozenset[str]:
    """What `similarity` may look at in a text."""
    return frozenset({"global", "tokens"} if pairwise(encoder) and "tokens" in encoder.gives else {"global"})


def image_chunks(encoder: Encoder, items: Sequence[ImageItem]) -> Iterator[tuple[slice, ImageFeatures]]:
    """Features of runs of images: at most 64 where patches are held, 256 where vectors are."""
    start = 0
    for images in stream(encoder, items, image_need(encoder), most=64 if pairwise(encoder) else 256):
        yield slice(start, start + len(images)), images
        start += len(images)


def score_chunks(
    encoder: Encoder, items: Sequence[ImageItem], texts: Sequence[str]
) -> Iterator[tuple[slice, Float32[ndarray, "N U"], Float32[ndarray, "N U"]]]:
    """For runs of images their rows, image-to-text scores and text-to-image scores with all texts, in float32.

    The two arrays are one object where the model has one matrix for both.
    """
    features = encoder.texts(texts, text_need(encoder))
    for rows, images in image_chunks(encoder, items):
        yield rows, *score(encoder, images, features)


def score(
    encoder: Encoder, images: ImageFeatures, texts: TextFeatures
) -> tuple[Float32[ndarray, "N U"], Float32[ndarray, "N U"]]:
    """Image-to-text and text-to-image scores of some images with all texts (one object where they are the same)."""
    blocks = [
        encoder.similarity(images, texts[start : start + _TEXTS_AT_ONCE])
        for start in range(0, len(texts), _TEXTS_AT_ONCE)
    ]
    image_to_text = _array([block[0] for block in blocks])
    if all(block[0] is block[1] for block in blocks):
        return image_to_text, image_to_text
    return image_to_text, _array([block[1] for block in blocks])


def _array(blocks: Sequence[Tensor]) -> Float32[ndarray, "N U"]:
    scores: Float32[ndarray, "N U"] = torch.cat([block.detach().float().cpu() for block in blocks], dim=1).numpy()
    return scores
