import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sparc_bench.files.run_lengths import refuse_damaged, unpacked


def test_equals_what_pycocotools_packed():
    rng = np.random.default_rng(0)
    for number in range(200):
        height, width = rng.integers(1, 90, size=2)
        share = rng.random()
        mask_HW = rng.random((height, width)) < share
        if number % 3 == 0:  # long runs, whose lengths take several characters
            mask_HW = np.repeat(np.repeat(mask_HW, 30, axis=0), 7, axis=1)
        counts = coco_mask.encode(np.asfortranarray(mask_HW, dtype=np.uint8))["counts"].decode()
        padded = np.concatenate([[False], mask_HW.T.ravel()])
        changes = np.flatnonzero(np.diff(padded))
        assert unpacked(counts).tolist() == np.diff([0, *changes, mask_HW.size]).tolist()
        refuse_damaged(counts, *mask_HW.shape)


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ("", "break off"),
        ("zz", "no packed run lengths"),
        ("Pa", "break off"),
        ("été", "no packed run lengths"),
        ("P" + "Q" * 40 + "0", "no packed run lengths"),
        ("N", "negative lengths"),
        ("31", "of 4 pixels, its size of 6"),
        ([1, 2], "of 3 pixels, its size of 6"),
        ([8, -2], "negative lengths"),
    ],
)
def test_damaged_run_lengths(counts, sentence):
    with pytest.raises(ValueError, match=sentence):
        refuse_damaged(counts, 2, 3)
