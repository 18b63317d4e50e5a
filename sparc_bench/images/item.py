"""The id of an image and the function that opens it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image

from sparc_bench.errors import UnreadableImageError
from sparc_bench.images.depth import is_deep, shallow

MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)
"""Most pixels of an image that Pillow decodes, since a small file of many can fill the memory."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the original image; right and bottom are exclusive."""


def open_image_file(path: Path) -> Image.Image:
    """The RGB image of a file, fully decoded, so that a truncated file fails here; EXIF orientation is not applied.

    Raises:
        UnreadableImageError: the file is missing, truncated or no image.
    """
    return decoded_image(path, str(path))


def decoded_image(source: Path | BinaryIO, name: str) -> Image.Image:
    """The RGB image of a path or an open file, as `open_image_file`; errors call it `name`.

    Raises:
        UnreadableImageError: as `open_image_file`, or it has more than `MOST_PIXELS`.
        UserError: more than 8 bits a channel, and a range that is not known.
    """
    try:
        with Image.open(source) as image:
            if is_deep(image):
                return shallow(image, name)
            if "transparency" in image.info:  # through RGBA, since Pillow warns where RGB is made at once
                return image.convert("RGBA").convert("RGB")
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise UnreadableImageError(f"{name} does not exist: check --data-root.") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(
            f"{name} has more than the {MOST_PIXELS / 1e6:.0f} megapixels that are decoded: save it smaller."
        ) from error
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadableImageError(f"{name} cannot be decoded ({error}): copy the file again.") from error


def stored_size(path: Path) -> tuple[int, int] | None:
    """Width and height of an image file as stored, from its header alone; None where that cannot be read."""
    try:
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(path) as image,
        ):
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def is_stored_turned(path: Path) -> bool:
    """Whether the file's EXIF orientation would turn it by 90 degrees for display."""
    with Image.open(path) as image:
        return image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)


@dataclass(frozen=True)
class ImageItem:
    """One image, not yet opened; picklable, so that loader workers can open it.

    Attributes:
        id: name of the image, unique within the data set; items of the same image share it.
        opener: function that returns the RGB image; a module-level function or a `functools.partial` of one.
        content: hash of the bytes that `opener` decodes, by which features and pixels are cached; empty: the data
            split's `pixels_hash` or `fingerprint` stands for it.
        file_name: name of the image's file, by which other programs may know it; empty without one.
    """

    id: str
    opener: Callable[[], Image.Image]
    content: str = ""
    file_name: str = ""

    def open(self) -> Image.Image:
        """The RGB image.

        Raises:
            UnreadableImageError: the image cannot be decoded.
        """
        return self.opener()

    @classmethod
    def file(cls, item_id: str, path: Path, content: str = "") -> ImageItem:
        """The item of an image file."""
        return cls(item_id, partial(open_image_file, path), content, path.name)
