import json
import pickle

import pytest

from sparc_bench.datasets.lvis import Options, read
from sparc_bench.errors import UserError
from sparc_bench.facets import Federated, PixelSize
from tests.unit.datasets.conftest import save_photo

SQUARE = [1.0, 1.0, 5.0, 1.0, 5.0, 4.0, 1.0, 4.0]


def content():
    """Version 1's layout: no file names, photos of two of COCO's folders."""
    url = "http://images.cocodataset.org"
    images = [
        ("val2017", 7, [2], []),
        ("train2017", 3, [4], [9]),
    ]
    return {
        "images": [
            {
                "id": number,
                "width": 8,
                "height": 6,
                "coco_url": f"{url}/{folder}/{number:012d}.jpg",
                "neg_category_ids": absent,
                "not_exhaustive_category_ids": some,
            }
            for folder, number, absent, some in images
        ],
        "categories": [
            {"id": 9, "name": "bun", "frequency": "c"},
            {"id": 2, "name": "acorn", "frequency": "r"},
            {"id": 4, "name": "dog", "frequency": "f"},
        ],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 9, "bbox": [1, 1, 4, 3], "area": 12.0, "segmentation": [SQUARE]},
            {"id": 2, "image_id": 7, "category_id": 4, "bbox": [1, 1, 4, 0], "area": 0.0, "segmentation": [SQUARE]},
        ],
    }


@pytest.fixture
def root(tmp_path):
    (tmp_path / "lvis").mkdir()
    (tmp_path / "lvis/lvis_v1_val.json").write_text(json.dumps(content()))
    save_photo(tmp_path / "coco/val2017/000000000007.jpg")
    save_photo(tmp_path / "coco/train2017/000000000003.jpg")
    return tmp_path


def test_labels_frequencies_and_what_an_image_was_checked_for(root):
    split = pickle.loads(pickle.dumps(read(root, "val", Options())))
    assert split.classes == ("acorn", "dog", "bun")
    assert (split.category_ids, split.frequencies) == ((2, 4, 9), ("r", "f", "c"))
    assert [example.id for example in split] == ["7", "3"]
    assert split[0].facets == (PixelSize(8, 6), Federated(absent={0}, not_exhaustive=set()))
    assert split[1].facets == (PixelSize(8, 6), Federated(absent={1}, not_exhaustive={2}))
    (bun,) = split[1].regions
    assert (bun.box, bun.label, bun.area, bun.crowd, bun.mask().sum()) == ((1.0, 1.0, 5.0, 4.0), 2, 12.0, False, 12)
    assert split[1].image.open().size == (8, 6)
    assert split.notes == (
        "1 objects of lvis_v1_val.json have a box without width or height: they count, and are never found.",
    )


def test_annotations_without_photos(root):
    split = read(root, "val", Options(photos=""))
    assert [example.id for example in split] == ["7", "3"]
    with pytest.raises(UserError, match=r"The photo of 7 is not on disk, .* score outputs with sparc-bench score"):
        split[0].image.open()
    assert split.fingerprint != read(root, "val", Options()).fingerprint


def test_absent_photos(root):
    (root / "coco/train2017/000000000003.jpg").unlink()
    with pytest.raises(UserError, match=r'1 of 2 files \(1 annotations\) are not in .*absent = "skip"'):
        read(root, "val", Options())
    split = read(root, "val", Options(absent="skip"))
    assert [example.id for example in split] == ["7"]
    (root / "coco/val2017/000000000007.jpg").unlink()
    with pytest.raises(UserError, match="has none of the photos"):
        read(root, "val", Options(absent="skip"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c["categories"][0].update(frequency="x"), r"not the expected JSON at categories\.0\.frequency"),
        (lambda c: c["images"][0].pop("neg_category_ids"), r"at images\.0\.neg_category_ids"),
        (lambda c: c["images"][0].update(neg_category_ids=[5, 2]), 'checked for category 5, which its "categories"'),
        (lambda c: c["annotations"][0].update(category_id=5), 'objects of category 5, which its "categories" lack'),
        (lambda c: c["annotations"][0].update(image_id=5), 'annotations of image 5, which its "images" lack'),
    ],
)
def test_malformed_file(root, edit_json, change, sentence):
    edit_json(root / "lvis/lvis_v1_val.json", change)
    with pytest.raises(UserError, match=sentence):
        read(root, "val", Options())


def test_real_sample(test_data):
    options = Options(folder="lvis_val_100", annotations="lvis_val_100.json", photos="")
    split = read(test_data, "val", options)
    assert (len(split), split.counts()["regions"], len(split.classes)) == (100, 977, 1230)
    assert {letter: split.frequencies.count(letter) for letter in "rcf"} == {"r": 454, "c": 461, "f": 315}
    assert sum(len(example.facet(Federated).absent) for example in split) == 942
    assert sum(len(example.facet(Federated).not_exhaustive) for example in split) == 16
    # what is marked as absent is not there, what is there but not all marked has at least one object
    for example in split:
        labels = {region.label for region in example.regions}
        assert not labels & example.facet(Federated).absent
        assert example.facet(Federated).not_exhaustive <= labels


def test_photos_of_another_size_than_the_file_states(root):
    save_photo(root / "coco/val2017/000000000007.jpg", size=(4, 3))
    with pytest.raises(UserError, match=r"000000000007\.jpg has 4 x 3 pixels, .*lvis_v1_val\.json states 8 x 6"):
        read(root, "val", Options())
    assert len(read(root, "val", Options(photos=""))) == 2
