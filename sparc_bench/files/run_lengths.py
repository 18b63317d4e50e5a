"""Masks as COCO's run lengths, validated before pycocotools, which reads out of bounds on damaged ones.

Shapes: L characters, R runs.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from pydantic import model_validator

from sparc_bench.files.annotations import CocoRow


class RunLengths(CocoRow):
    """A mask as COCO's run lengths: counts as a list or packed into a string; size is (height, width)."""

    counts: list[int] | str
    size: tuple[int, int]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        refuse_damaged(self.counts, *self.size)
        return self


def unpacked(counts: str) -> Int[ndarray, "R"]:
    """The lengths of the runs of a packed string, of pixels outside and inside in turns.

    A number is stored in groups of five bits, lowest first, each plus 48 as a character; the sixth bit marks that
    another group follows, the fifth bit of the last group is the sign. From the fourth number on, the difference to the
    number two places before is stored.

    Raises:
        ValueError: the string is not in this format, or a length is negative.

    >>> unpacked("c26>0U6").tolist()
    [83, 6, 14, 6, 211]
    """
    group_L = np.frombuffer(counts.encode("ascii", errors="replace"), dtype=np.uint8).astype(np.int64) - 48
    if ((group_L < 0) | (group_L > 63)).any():
        raise ValueError("its counts are no packed run lengths")
    last_L = group_L & 32 == 0
    if not len(group_L) or not last_L[-1]:
        raise ValueError("its counts break off")
    ends_R = np.flatnonzero(last_L)
    starts_R = np.concatenate([[0], ends_R[:-1] + 1])
    length_R = ends_R - starts_R + 1
    if length_R.max() > 7:
        raise ValueError("its counts are no packed run lengths")
    place_L = np.arange(len(group_L)) - np.repeat(starts_R, length_R)
    number_R = np.add.reduceat((group_L & 31) << 5 * place_L, starts_R)
    number_R -= (group_L[ends_R] & 16 > 0).astype(np.int64) << 5 * length_R
    for first in (1, 2):
        number_R[first::2] = np.cumsum(number_R[first::2])
    if (number_R < 0).any():
        raise ValueError("its counts hold negative lengths")
    return number_R


def refuse_damaged(counts: str | list[int], height: int, width: int) -> None:
    """Raise ValueError for run lengths, packed or not, that are damaged or do not add up to height x width."""
    lengths_R = unpacked(counts) if isinstance(counts, str) else np.asarray(counts, dtype=np.int64)
    if (lengths_R < 0).any():
        raise ValueError("its counts hold negative lengths")
    if lengths_R.sum() != height * width:
        raise ValueError(f"its counts are of {lengths_R.sum()} pixels, its size of {height * width}")
