"""Pictures of more than 8 bits a channel, brought to 8 by the range that their file states, never black or white.

Pillow cuts such values off at 255, and keeps the high byte of colours. What a file states: a PNG its significant bits
(sBIT), a TIFF its bits per sample below 16, or its SMinSampleValue and SMaxSampleValue.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from sparc_bench.errors import UserError

FULL = 65535
"""Highest value of 16 bits."""

DIM = 2**14
"""Values below it leave two of 16 bits unused, so that the file most likely holds fewer bits than it states."""

_BITS, _PHOTOMETRIC, _LOWEST, _HIGHEST = 258, 262, 340, 341  # tags of TIFF
_WHITE_IS_ZERO = 0


def is_deep(image: ImageFile) -> bool:
    """Whether an opened, not yet decoded picture has more than 8 bits a channel."""
    deep_colour = image.format in ("PNG", "TIFF") and any(";16" in str(tile) for tile in image.tile)
    return _is_grey(image) or deep_colour


def shallow(image: ImageFile, name: str) -> Image.Image:
    """The RGB picture of a deep one, of 8 bits a channel.

    Raises:
        UserError: the file does not state its range and seems not to use all of 16 bits, or leaves the stated one.
    """
    bits = _significant_bits(image)
    if not _is_grey(image):
        picture = image.convert("RGBA").convert("RGB")
        if np.asarray(picture).max() < DIM >> 8:
            raise UserError(
                f"{name} has colours of 16 bits, of which it uses the lower ones alone: save it with 8 bits a channel."
            )
        return picture
    tags: Any = getattr(image, "tag_v2", {})
    values_HW = np.asarray(image)
    low, high = float(values_HW.min()), float(values_HW.max())
    if image.format == "PNG" and bits is not None and not (values_HW.astype(np.int64) % 2 ** max(0, 16 - bits)).any():
        stated: tuple[float, float] | None = (0, FULL)  # sBIT counts the high bits; some writers fill the low ones
    else:
        stated = _stated(image, tags, bits, high)
    if stated is None or not stated[0] <= low <= high <= stated[1]:
        states = f"beyond the {stated[1]:g} that it states" if stated else "without stating which value is white"
        raise UserError(
            f"{name} holds values of {low:g} to {high:g} in {_kind(image)}, {states}: save it with 8 bits a channel, "
            "or with a range (SMinSampleValue and SMaxSampleValue in a TIFF, sBIT in a PNG)."
        )
    black, white = stated
    if stated == (0, FULL):
        eight_HW = (values_HW.astype(np.int64) >> 8).astype(np.uint8)
    else:
        eight_HW = np.rint((values_HW.astype(np.float64) - black) * (255 / (white - black))).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        eight_HW = 255 - eight_HW
    return Image.fromarray(eight_HW).convert("RGB")


def _is_grey(image: ImageFile) -> bool:
    return image.mode == "F" or image.mode.startswith("I")


def _stated(image: ImageFile, tags: Any, bits: int | None, high: float) -> tuple[float, float] | None:  # noqa: ANN401 - Pillow's
    """The values of black and of white; None if the file does not state them."""
    highest = _first(tags.get(_HIGHEST))
    if highest is not None:
        lowest = _first(tags.get(_LOWEST)) or 0.0
        return (lowest, highest) if highest > lowest else None
    if bits is not None and bits < 16 and high < 2**bits:
        return 0, 2**bits - 1
    whole = image.mode.startswith("I;16") or image.format == "PPM"  # Pillow scales its stated maximum to FULL
    return (0, FULL) if whole and (high == 0 or high >= DIM or image.format == "PPM") else None


def _significant_bits(image: ImageFile) -> int | None:
    """Bits a sample that the file states, or None."""
    if image.format == "TIFF":
        return _whole(getattr(image, "tag_v2", {}).get(_BITS))
    return _png_significant_bits(image) if image.format == "PNG" else None


def _png_significant_bits(image: ImageFile) -> int | None:
    """First number of the sBIT chunk, which Pillow does not read; None without one."""
    file = image.fp
    if file is None:
        return None
    place = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"sBIT":
                return (file.read(1) or b"\0")[0] or None
            if kind == b"IDAT":
                return None
            file.seek(length + 4, 1)
        return None
    finally:
        file.seek(place)


def _first(value: object) -> float | None:
    try:
        number = float(value[0] if isinstance(value, tuple) else value)  # type: ignore[arg-type]  # whatever a file holds
    except (TypeError, ValueError, IndexError):
        return None
    return number if np.isfinite(number) else None


def _whole(value: object) -> int | None:
    number = _first(value)
    return None if number is None else int(number)


def _kind(image: ImageFile) -> str:
    if image.mode == "F":
        return "floating point"
    return "16 bits" if image.mode.startswith("I;16") else "whole numbers of more than 16 bits"
