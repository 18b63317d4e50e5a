"""Images, texts and a task to give to a small model of any family."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
from PIL import Image

from sparc_bench.cards import discovery
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.cli.task_inputs import TaskInputs, task_inputs
from sparc_bench.encoders.precomputed import stored_id
from sparc_bench.images.item import ImageItem
from sparc_bench.images.view import View

TEXTS = ("a photo of a cat", "A Photo of a CAT!", "two dogs, one red ball.", "zebra " * 30, "42", "a red star", "")
SIZES = ((90, 60), (60, 91), (33, 120), (64, 64), (120, 37), (32, 32), (47, 46))
CROP = (10.0, 5.0, 50.0, 45.0)


def picture(seed: int, width: int, height: int) -> Image.Image:
    """Smooth colours, like no other seed's."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def items(count: int) -> list[View]:
    """Images of different shapes."""
    return [View(ImageItem(f"{at}.jpg", partial(picture, at, *SIZES[at % len(SIZES)]))) for at in range(count)]


def cropped() -> tuple[View, View]:
    """A part of an image, and the same part as an image of its own, which is called like it."""
    part = View(ImageItem("0.jpg", partial(picture, 0, *SIZES[0])), CROP)
    return part, View(ImageItem(stored_id(part), part.open))


def task(name: str = "scenes_classification_shape", **data: object) -> TaskCard:
    """A task of 36 scenes: enough for loader workers to be started."""
    card = discovery.task(name)
    return card.model_copy(update={"data": {**card.data, "n": 36, **data}, "expect": {}, "references": ()})


@cache
def inputs() -> TaskInputs:
    """Of the task."""
    return task_inputs(task(), None)
