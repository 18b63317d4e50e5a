"""Checks of patches: their order over the grid, and their agreement with the score of the whole image.

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
from sparc_bench.images.view import View
from sparc_bench.verify import probe
from sparc_bench.verify.finding import Finding, left_out
from sparc_bench.verify.probed_model import ProbedModel

_CELLS = ((0.15, 0.65), (0.75, 0.2), (0.4, 0.9), (0.9, 0.55), (0.05, 0.35))
"""Positions of the changed blocks as shares of rows and columns; no two are mirror images."""

_MENDED_BY = {
    "column by column": "transpose the grid, so that patches come row by row",
    "mirrored": "take the mirroring out, so that patches come from left to right",
    "upside down": "turn the rows round, so that patches come from top to bottom",
    "backwards": "turn the patches round, so that they start at the top left",
    "one place late": "drop the class token in front of the patches",
    "one place early": "drop nothing in front of the patches: the first one is missing",
}


def order(model: ProbedModel) -> Finding:
    """Finding on the patch that changes most when one block of the image changes, for several blocks."""
    base, cells = _base(model), _cells(model)
    if len(cells) < 2:
        return left_out("the grid is too small")
    grid, area = _grid_and_area(model, base)
    pictures = {"base": base}
    pictures |= {f"block {n}": _changed(base, area, grid, cell) for n, cell in enumerate(cells)}
    views = [View(ImageItem(name, partial(_same, picture))) for name, picture in pictures.items()]
    patches = model.encoder.images(views, frozenset({"patches"})).patches
    found: dict[str, str] = {}
    wrong: dict[str, str] = {}
    lost: list[str] = []
    wide: list[str] = []
    for path, patches_NPD in patches.items():
        peaks = _peaks(patches_NPD)
        hits = _hits(peaks, grid, cells)
        here = hits.pop("row by row")
        elsewhere = max(hits, key=lambda name: hits[name])
        found[path] = f"{path} {here} of {len(cells)}"
        if hits[elsewhere] > max(here, len(cells) / 2):
            wrong[path] = elsewhere
        elif here <= len(cells) / 2:
            (wide if _all_beside(peaks, grid, cells) else lost).append(path)
    measured, expected = ", ".join(found.values()), "a changed block changes its own patch most"
    if wrong:
        path, how = next(iter(wrong.items()))
        advice = f"The patches of path '{path}' come {how}: {_MENDED_BY[how]}."
        return Finding("fail", f"{how} ({', '.join(wrong)})", expected, advice)
    if lost:
        advice = (
            f"Changing a part of the image does not change the patches of path '{lost[0]}' there most: look at the "
            "order of its patches; its dense scores may say little about places."
        )
        return Finding("warning", measured, expected, advice)
    if wide:
        advice = (
            f"A changed part of the image changes a patch of path '{wide[0]}' beside it as much: the patches see far "
            "beyond their cells, as the last features of a ConvNet do, and say little about exact places."
        )
        return Finding("note", measured, expected, advice)
    return Finding("ok", measured, expected)


def _same(image: Image.Image) -> Image.Image:
    return image


def _base(model: ProbedModel) -> Image.Image:
    """Rendered scenes at about the model's input size, a little wider than high."""
    rows, columns = model.input_size
    return probe.scenes(3, 4, 1).resize((round(1.3 * columns), rows), Image.Resampling.BICUBIC)


def _grid_and_area(model: ProbedModel, base: Image.Image) -> tuple[tuple[int, int], Box]:
    grid = model.images.grid
    assert grid is not None  # its presence has been checked
    _, area = model.pixels(base)
    return grid, area


def _cells(model: ProbedModel) -> list[tuple[int, int]]:
    grid = model.images.grid
    assert grid is not None  # its presence has been checked
    return list(dict.fromkeys((int(down * grid[0]), int(right * grid[1])) for down, right in _CELLS))


def _changed(base: Image.Image, area: Box, grid: tuple[int, int], cell: tuple[int, int]) -> Image.Image:
    """A copy of the image with a checkerboard of magenta and black over one cell of the grid."""
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


def _peaks(patches_NPD: Tensor) -> list[int]:
    """The patch that changed most in each image, from the first image."""
    base_PD = patches_NPD[:1].double()
    change_NP = (patches_NPD[1:].double() - base_PD).norm(dim=-1) / base_PD.norm(dim=-1).clamp_min(1e-12)
    peaks: list[int] = change_NP.argmax(dim=1).tolist()
    return peaks


def _all_beside(peaks: list[int], grid: tuple[int, int], cells: list[tuple[int, int]]) -> bool:
    """Whether every most changed patch is the changed block's own or one of its neighbours."""
    places = [divmod(peak, grid[1]) for peak in peaks]
    return all(max(abs(r - row), abs(c - column)) <= 1 for (r, c), (row, column) in zip(places, cells, strict=True))


def _hits(peaks: list[int], grid: tuple[int, int], cells: list[tuple[int, int]]) -> dict[str, int]:
    """Order of patches -> number of changed blocks found in the most changed patch under that order."""
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


def agreement(model: ProbedModel) -> Finding:
    """Finding on the correlation of the mean patch score with the image score, over images and texts."""
    images, texts, encoder = model.images, model.texts, model.encoder
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
            f"The mean score of the patches of path '{apart[0]}' does not follow the score of the image: right for a "
            "path that no loss trained or that a loss trained on its own; else look whether the patches pass the "
            "projection into the joint space."
        )
        return Finding("note", measured, expected, advice)
    return Finding("ok", measured, expected)
