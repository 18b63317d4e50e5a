"""A view's area is the part of the original image that its pixels show, however it was cut, cropped and resized."""

import numpy as np
import pytest
import torch
from PIL import Image

from sparc_bench.images.item import ImageItem
from sparc_bench.images.view import View
from sparc_bench.two_towers.open_clip_preprocess import OpenClipPreprocess


def ramp():
    """Red is half of the column's place in pixels, green half of the row's."""
    rows_HW, columns_HW = np.mgrid[:300, :400]
    return Image.fromarray(np.stack([columns_HW / 2, rows_HW / 2, 0 * rows_HW], axis=-1).round().astype(np.uint8))


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize(
    "window", [None, (0.0, 0.0, 200.0, 150.0), (150.0, 60.0, 390.0, 120.0), (31.0, 7.0, 90.0, 290.0)]
)
@pytest.mark.parametrize("size", [None, (64, 64), (48, 96), (96, 32)])
def test_area_of_windows_and_sizes(mode, window, size):
    rows, columns = size or (None, None)
    view = View(ImageItem("0", ramp), window, rows, columns)
    pixels_3HW, (left, top, right, bottom) = OpenClipPreprocess("m", (64, 64), mode, fill=255)(view)
    assert pixels_3HW.shape[-2:] == (size or (64, 64))
    height, width = pixels_3HW.shape[-2:]
    shown_HW = pixels_3HW[2] < 128  # the padding is white
    column_W = left + (torch.arange(width) + 0.5) * (right - left) / width
    row_H = top + (torch.arange(height) + 0.5) * (bottom - top) / height
    middle_HW = shown_HW.clone()
    middle_HW[:3], middle_HW[-3:], middle_HW[:, :3], middle_HW[:, -3:] = False, False, False, False
    assert middle_HW.any()
    off = (pixels_3HW[0].float() * 2 - column_W)[middle_HW], (pixels_3HW[1].float() * 2 - row_H[:, None])[middle_HW]
    across, down = (right - left) / width, (bottom - top) / height
    assert off[0].abs().mean() < 1 + across / 2
    assert off[1].abs().mean() < 1 + down / 2
    seen = window or (0.0, 0.0, 400.0, 300.0)
    if mode == "squash":
        assert (left, top, right, bottom) == seen
    elif mode == "shortest":
        assert seen[0] - 1e-6 <= left < right <= seen[2] + 1e-6
        assert seen[1] - 1e-6 <= top < bottom <= seen[3] + 1e-6
    else:
        assert left <= seen[0] + 1e-6
        assert top <= seen[1] + 1e-6
        assert right >= seen[2] - across
        assert bottom >= seen[3] - down


def test_area_of_a_grid_that_is_no_square():
    """Patches of 8 x 16 pixels: 30 rows hold three of them and 40 columns two."""
    opens = OpenClipPreprocess("m", (30, 40), "squash", cell=(8, 16))
    _, area = opens(View(ImageItem("0", ramp), (100.0, 50.0, 140.0, 80.0)))
    assert area == (100, 50, 132, 74)
