"""Checks of patches: that a vector stands where its part of the image is, and that patches agree with the whole.

Shapes: N images, M texts, P patches, D joint width, H W rows and columns of pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy import ndarray
from PIL import Image
from torch import Tensor

from sparc_bench.images.item import Box, ImageItem
from sparc_bench.verify import probe
from sparc_bench.verify.finding import Finding, left_out
from sparc_bench.verify.subject import Subject

_CELLS = ((0.15, 0.65), (0.75, 0.2), (0.4, 0.9), (0.9, 0.55), (0.05, 0.35))
"""Places of the changed blocks as shares of rows and columns; no two are mirror images."""

_MENDED_BY = {
    "column by column": "transpose the grid, so that patches come row by row",
    "mirrored": "take the mirroring out, so that patches come from left to right",
    "upside down": "turn the rows round, so that patches come from top to bottom",
    "backwards": "turn the patches round, so that they start at the top left",
    "one place late": "drop the class token in front of the patches",
    "one place early": "drop nothing in front of the patches: the first one is missing",
}


def order(subject: Subject) -> Finding:
    """Changes one block of an image after the other, and looks which patch changes most."""
    base, cells = _base(subject), _cells(subject)
    if len(cells) < 2:
        return left_out("the grid is too small")
    grid, area = _grid_and_area(subject, base)
    items = [ImageItem("base", partial(_same, base))]
    items += [ImageItem(f"block {n}", partial(_same, _changed(base, area, grid, cell))) for n, cell in enumerate(cells)]
    patches = subject.encoder.images(items, frozenset({"patches"})).patches
    found: dict[str, str] = {}
    wrong: dict[str, str] = {}
    lost: list[str] = []
    for path, patches_NPD in patches.items():
        hits = _hits(patches_NPD, grid, cells)
        here = hits.pop("row by row")
        elsewhere = max(hits, key=lambda name: hits[name])
        found[path] = f"{path} {here} of {len(cells)}"
        if hits[elsewhere] > max(here, len(cells) / 2):
            wrong[path] = elsewhere
        elif here <= len(cells) / 2:
            lost.append(path)
    measured, expected = ", ".join(found.values()), "a changed block changes its own patch most"
    if wrong:
        path, how = next(iter(wrong.items()))
        advice = f"The patches of path '{path}' come {how}: {_MENDED_BY[how]}."
        return Finding("fail", f"{how} ({', '.join(wrong)})", expected, advice)
    if lost:
        advice = (
            f"Changing a part of the image does not change the patches of path '{lost[0]}' there most: look at the "
            "order of its patches; dense scores of it may say little about places."
        )
        return Finding("warning", measured, expected, advice)
    return Finding("ok", measured, expected)


def _same(image: Image.Image) -> Image.Image:
    return image


def _base(subject: Subject) -> Image.Image:
    """Scenes at about the model's own size, a little wider than high."""
    rows, columns = subject.input_size
    return probe.scenes(3, 4, 1).resize((round(1.3 * columns), rows), Image.Resampling.BICUBIC)


def _grid_and_area(subject: Subject, base: Image.Image) -> tuple[tuple[int, int], Box]:
    grid = subject.images.grid
    assert grid is not None  # its presence has been checked
    _, area = subject.pixels(base)
    return grid, area


def _cells(subject: Subject) -> list[tuple[int, int]]:
    grid = subject.images.grid
    assert grid is not None  # its presence has been checked
    return list(dict.fromkeys((int(down * grid[0]), int(right * grid[1])) for down, right in _CELLS))


def _changed(base: Image.Image, area: Box, grid: tuple[int, int], cell: tuple[int, int]) -> Image.Image:
    """The image with a checkerboard of magenta and black over one cell of the grid."""
    pixels_HW3 = np.array(base)
    height, width = (area[3] - area[1]) / grid[0], (area[2] - area[0]) / grid[1]
    top, left = area[1] + cell[0] * height, area[0] + cell[1] * width
    rows = slice(max(0, round(top)), max(1, round(top + height)))
    columns = slice(max(0, round(left)), max(1, round(left + width)))
    row_HW, column_HW = np.mgrid[rows, columns]
    checks_HW: ndarray = (row_HW // 4 + column_HW // 4) % 2
    block_HW3 = checks_HW[..., None] * np.array([255, 0, 255])
    seen_HW3 = pixels_HW3[rows, columns]
    seen_HW3[:] = block_HW3[: seen_HW3.shape[0], : seen_HW3.shape[1]]
    return Image.fromarray(pixels_HW3)


def _hits(patches_NPD: Tensor, grid: tuple[int, int], cells: list[tuple[int, int]]) -> dict[str, int]:
    """For every order of patches, how many changed blocks lie where the most changed patch would be in that order."""
    base_PD = patches_NPD[:1].double()
    change_NP = (patches_NPD[1:].double() - base_PD).norm(dim=-1) / base_PD.norm(dim=-1).clamp_min(1e-12)
    peaks = change_NP.argmax(dim=1).tolist()
    rows, columns = grid
    where: dict[str, Callable[[int, int], int]] = {
        "row by row": lambda r, c: r * columns + c,
        "column by column": lambda r, c: c * rows + r,
        "mirrored": lambda r, c: r * columns + columns - 1 - c,
        "upside down": lambda r, c: (rows - 1 - r) * columns + c,
        "backwards": lambda r, c: rows * columns - 1 - (r * columns + c),
        "one place late": lambda r, c: r * columns + c + 1,
        "one place early": lambda r, c: r * columns + c - 1,
    }
    return {
        name: sum(peak == place(*cell) for peak, cell in zip(peaks, cells, strict=True))
        for name, place in where.items()
    }


def agreement(subject: Subject) -> Finding:
    """Correlation of the mean of all patch scores with the score of the image, over images and texts."""
    images, texts, encoder = subject.images, subject.texts, subject.encoder
    whole_NM = encoder.similarity(images, texts)[0].double().cpu()
    found: dict[str, float] = {}
    for path in images.patches:
        dense_NM = encoder.dense_scores(images, texts, path).double().cpu().mean(dim=(2, 3))
        both = torch.stack([whole_NM.flatten(), dense_NM.flatten()])
        found[path] = float(torch.corrcoef(both)[0, 1])
    measured = ", ".join(f"{path} {value:.2f}" for path, value in found.items())
    expected = "near 1 where the image is the mean of its patches"
    apart = [path for path, value in found.items() if not value > 0.1]
    if apart:
        advice = (
            f"The patches of path '{apart[0]}' do not say on the whole what the image says: right for a path that no "
            "loss trained, or one of its own; else look whether they pass the projection into the joint space."
        )
        return Finding("note", measured, expected, advice)
    return Finding("ok", measured, expected)
