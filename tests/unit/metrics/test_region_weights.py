import numpy as np
import pytest
import torch
from torchvision.ops import roi_align

from sparc_bench.metrics.region_weights import box_weights, class_fractions, mask_weights

AREA = np.array([[0.0, 0.0, 8.0, 8.0]])


def test_overlaps_worked_by_hand():
    # 2 x 2 cells of 4 pixels; the box covers 3 of 4 columns right of the middle's left, 1 row above, 2 rows below
    weights = box_weights(np.array([[1.0, 3.0, 5.0, 6.0]]), AREA, (2, 2))
    assert weights[0] == pytest.approx(np.array([3 * 1, 1 * 1, 3 * 2, 1 * 2]) / 12)


def test_boxes_are_clipped_to_the_area():
    inside = box_weights(np.array([[0.0, 0.0, 2.0, 8.0]]), AREA, (2, 4))
    beyond = box_weights(np.array([[-9.0, -3.0, 2.0, 20.0]]), AREA, (2, 4))
    assert beyond == pytest.approx(inside)
    assert inside[0] == pytest.approx([0.5, 0, 0, 0, 0.5, 0, 0, 0])


@pytest.mark.parametrize(
    ("box", "cell"),
    [((9, 9, 12, 12), 8), ((-5, 1, -1, 2), 0), ((3, 3, 3, 3), 4), ((-4, 30, -2, 31), 6)],
    ids=["below right", "left", "no extent", "below left"],
)
def test_what_misses_the_grid_goes_to_the_nearest_cell(box, cell):
    weights = box_weights(np.array([box], dtype=float), AREA, (3, 3))
    assert weights[0].tolist() == np.eye(9)[cell].tolist()


def test_areas_of_other_images_and_crops():
    boxes = np.array([[10.0, 20.0, 30.0, 40.0]] * 2)
    areas = np.array([[0.0, 0.0, 40.0, 80.0], [10.0, 20.0, 50.0, 60.0]])
    weights = box_weights(boxes, areas, (2, 2))
    assert weights[0] == pytest.approx([0.5, 0.5, 0, 0])
    assert weights[1] == pytest.approx([1, 0, 0, 0])


def test_whole_image_is_the_plain_mean():
    assert box_weights(AREA, AREA, (3, 5))[0] == pytest.approx(np.full(15, 1 / 15))


def test_equals_roi_align_where_its_samples_are_dense():
    """Torchvision averages interpolated samples; on a grid that is constant in blocks both averages agree."""
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(3, 3))
    fine = np.kron(cells, np.ones((40, 40)))
    for box in ((10.3, 5.2, 90.7, 111.0), (40, 41, 79, 79), (0, 0, 120, 120)):
        theirs = roi_align(
            torch.tensor(fine)[None, None],
            [torch.tensor([box], dtype=torch.float64)],
            1,
            sampling_ratio=200,
            aligned=True,
        )
        weights = box_weights(np.array([box], dtype=float), np.array([[0.0, 0.0, 120.0, 120.0]]), (3, 3))
        assert weights[0] @ cells.ravel() == pytest.approx(float(theirs), abs=0.01)


def test_a_rectangular_mask_equals_its_box():
    mask = np.zeros((8, 8), dtype=bool)
    mask[3:6, 1:5] = True
    assert mask_weights(mask, AREA[0], (3, 3)) == pytest.approx(
        box_weights(np.array([[1.0, 3.0, 5.0, 6.0]]), AREA, (3, 3))[0]
    )


def test_mask_outside_the_area_goes_to_the_nearest_cell_and_empty_masks_are_refused():
    mask = np.zeros((8, 8), dtype=bool)
    mask[0, 0] = True
    assert mask_weights(mask, np.array([4.0, 4.0, 8.0, 8.0]), (2, 2)).tolist() == [1, 0, 0, 0]
    with pytest.raises(ValueError, match="without pixels"):
        mask_weights(np.zeros((8, 8), dtype=bool), AREA[0], (2, 2))


def test_class_fractions_are_of_labelled_pixels():
    truth = np.array([[0, -1, 1, 1], [0, 1, -2, -1]])
    shares = class_fractions(truth, 3, np.array([0, 0, 4, 2]), (1, 2))
    assert shares[:, 0].tolist() == [[2 / 3, 0], [1 / 3, 1], [0, 0]]


def test_class_fractions_of_cells_without_labels_are_zero():
    assert class_fractions(np.full((2, 2), -1), 2, np.array([0, 0, 2, 2]), (2, 2)).sum() == 0
