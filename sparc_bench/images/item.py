"""One image, not yet opened: its id and how to decode it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from sparc_bench.errors import UnreadableImageError

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the original image; right and bottom are exclusive."""


def open_image_file(path: Path) -> Image.Image:
    """Decode an image file to RGB, fully, so that a truncated file fails here; an EXIF orientation is not applied.

    Raises:
        UnreadableImageError: the file is missing, truncated or no image.
    """
    return decoded_image(path, str(path))


def decoded_image(source: Path | BinaryIO, name: str) -> Image.Image:
    """The same of a path or an open file; `name` says in errors what it is."""
    try:
        with Image.open(source) as image:
            if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would clip to white instead of scaling
                return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
            if "transparency" in image.info:  # dropped all the same, but without Pillow's warning
                return image.convert("RGBA").convert("RGB")
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise UnreadableImageError(f"{name} does not exist: check --data-root.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(f"{name} cannot be decoded ({error}): copy the file again.") from error


@dataclass(frozen=True)
class ImageItem:
    """One image, not yet opened; picklable, so that loader workers can open it.

    Attributes:
        id: names the picture: unique within the data set, but for items about the same one, which share it.
        opener: returns the RGB image; a module-level function or a `functools.partial` of one.
        crop: the part of the opened image that is the image of this item, or None for all of it.
    """

    id: str
    opener: Callable[[], Image.Image]
    crop: Box | None = None

    def open(self) -> Image.Image:
        """The RGB image, cropped where the item says so; raises UnreadableImageError."""
        image = self.opener()
        if self.crop is None:
            return image
        left, top, right, bottom = (round(edge) for edge in self.crop)
        return image.crop((left, top, right, bottom))

    @classmethod
    def file(cls, item_id: str, path: Path, crop: Box | None = None) -> ImageItem:
        """The item of an image file."""
        return cls(item_id, partial(open_image_file, path), crop)
