import pickle

import numpy as np
import pytest
from PIL import Image

from sparc_bench.datasets.voc_segmentation import CLASSES, Options, read, read_mask
from sparc_bench.errors import UnreadableImageError, UserError

HOME = "VOCdevkit/VOC2012"


def test_masks_become_classes_background_and_void(voc_root):
    split = pickle.loads(pickle.dumps(read(voc_root, "val", Options())))
    assert [example.id for example in split] == ["2007_000033", "2007_000001"]
    assert split.classes == CLASSES
    semantic_HW = split[0].semantic()
    assert semantic_HW.tolist() == [[-1, 0, 19, -2], [14, -1, -2, 1]]
    assert split[0].image.open().size == semantic_HW.shape[::-1]


def test_classes_are_the_twenty_in_alphabetical_order():
    assert len(set(CLASSES)) == 20
    assert list(CLASSES) == sorted(CLASSES)


@pytest.mark.parametrize("file", ["JPEGImages/2007_000001.jpg", "SegmentationClass/2007_000001.png"])
def test_absent_photo_or_mask(voc_root, file):
    whole = read(voc_root, "val", Options())
    (voc_root / HOME / file).unlink()
    with pytest.raises(UserError, match=r'^1 of 2 files \(1 annotations\).*2007_000001.*absent = "skip"'):
        read(voc_root, "val", Options())
    split = read(voc_root, "val", Options(absent="skip"))
    assert [example.id for example in split] == ["2007_000033"]
    assert len(split.notes) == 1
    assert split.fingerprint != whole.fingerprint


def test_another_mask_changes_the_fingerprint(voc_root):
    before = read(voc_root, "val", Options()).fingerprint
    Image.new("L", (4, 2), 3).save(voc_root / HOME / "SegmentationClass/2007_000001.png")
    assert read(voc_root, "val", Options()).fingerprint != before


def test_missing_list_and_folder(voc_root):
    with pytest.raises(UserError, match=r"train\.txt does not exist: the data set needs VOCdevkit/VOC2012/ with"):
        read(voc_root, "train", Options())
    with pytest.raises(UserError, match="has no split 'test': choose one of train, trainval, val"):
        read(voc_root, "test", Options())
    with pytest.raises(UserError, match="SegmentationClassAug is no folder"):
        read(voc_root, "val", Options(masks="SegmentationClassAug"))


def test_masks_that_are_no_class_numbers(tmp_path):
    Image.new("RGB", (4, 2)).save(tmp_path / "colours.png")
    with pytest.raises(UserError, match=r"holds colours \(RGB\), not class numbers: use the palette files"):
        read_mask(tmp_path / "colours.png")
    Image.new("L", (4, 2), 21).save(tmp_path / "odd.png")
    with pytest.raises(UserError, match="class number 21; VOC has 0 to 20 and 255"):
        read_mask(tmp_path / "odd.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(UnreadableImageError, match="copy the file again"):
        read_mask(tmp_path / "broken.png")


@pytest.mark.slow
def test_real_sample(test_data):
    split = read(test_data, "val", Options(folder="voc2012_mini"))
    assert len(split) == 60
    seen = set()
    for example in split:
        semantic_HW = example.semantic()
        assert example.image.open().size == semantic_HW.shape[::-1]
        seen |= set(np.unique(semantic_HW).tolist())
    assert {-2, -1} < seen <= set(range(-2, 20))


@pytest.mark.parametrize("size", [(2, 1), (2, 4)])
def test_photo_of_another_size_than_its_mask(voc_root, size):
    Image.new("RGB", size).save(voc_root / HOME / "JPEGImages/2007_000001.jpg")
    with pytest.raises(UserError, match=rf"2007_000001\.jpg has {size[0]} x {size[1]} pixels, its mask in .* 4 x 2 "):
        read(voc_root, "val", Options())
