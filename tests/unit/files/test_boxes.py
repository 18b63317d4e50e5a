"""Boxes that do not fit their images are named, or refused where they are plainly in another format."""

import numpy as np
import pytest

from sparc_bench.errors import UserError
from sparc_bench.files.boxes import outside_notes

SIZE = (200.0, 150.0)
COLUMNS = [[10.0 + 50 * k, 20.0 + 10 * i, 40.0, 60.0] for i in range(4) for k in range(3)]


def notes(boxes, size=SIZE):
    boxes = np.array(boxes, dtype=float).reshape(-1, 4)
    return outside_notes(boxes, np.tile(size, (len(boxes), 1)), "x.json", lambda index: f"image {index}")


def test_boxes_inside_and_those_that_leave_by_rounding_are_fine():
    assert notes(COLUMNS) == notes([]) == ()
    assert notes([[-0.6, 0, 200.9, 150.5], [199.5, 149.5, 0.8, 0.0], [0, 0, 0, 0]]) == ()


def test_a_share_outside_is_named():
    (said,) = notes([*COLUMNS, [180.0, 20.0, 40.0, 60.0], [-5.0, 0.0, 20.0, 20.0]])
    assert said.startswith("2 of 14 boxes of x.json leave their image by more than a pixel, such as [180.0, 20.0, 40.0")
    assert "of image 12 in 200 x 150 pixels" in said


def test_corners_given_as_extents_are_refused():
    corners = [[left, top, left + width, top + height] for left, top, width, height in COLUMNS]
    with pytest.raises(UserError, match=r"6 of 12 boxes .* while all are inside as left, top, right, bottom: write"):
        notes(corners)
    assert "3 of 3 boxes" in notes(corners[-3:])[0]  # three could fit by chance


def test_fractions_of_the_image_are_refused():
    with pytest.raises(UserError, match=r"12 of 12 boxes of x\.json lie within one pixel, .* fractions of the image"):
        notes([np.array(box) / (*SIZE, *SIZE) for box in COLUMNS])
    detected = [[0.1, 0.1, 0.3, 0.3]] * 50 + [[0.72, 0.5, 0.3, 0.3], [-0.02, 0.0, 1.05, 1.0]]
    with pytest.raises(UserError, match=r"52 of 52 boxes .* fractions of the image"):
        notes(detected)
    with pytest.raises(UserError, match=r"50 of 52 boxes .* fractions of the image"):
        notes(detected[:50] + COLUMNS[:2])
    assert notes(detected[:5] + COLUMNS) == ()
    assert notes([[0.0, 0.0, 1.0, 1.0]], size=(1.0, 1.0)) == ()
