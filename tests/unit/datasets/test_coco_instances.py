import pickle
from dataclasses import astuple

import numpy as np
import pytest
from PIL import ExifTags, Image
from pycocotools.coco import COCO

from sparc_bench.datasets._coco_json import decode_mask
from sparc_bench.datasets.coco_instances import Options, read
from sparc_bench.errors import UserError
from sparc_bench.facets import PixelSize
from sparc_bench.files.run_lengths import RunLengths

FILE = "coco/annotations/instances_val2017.json"
NAN, INF = float("nan"), float("inf")


def test_boxes_labels_and_masks(coco_root):
    split = pickle.loads(pickle.dumps(read(coco_root, "val2017", Options())))
    assert split.classes == ("person", "dog")
    assert [len(example.regions) for example in split] == [0, 2]
    assert split[1].facets == (PixelSize(8, 6),)
    dog, person = split[1].regions
    assert (dog.box, dog.label, dog.area, dog.crowd) == ((1.0, 1.0, 5.0, 4.0), 1, 12.0, False)
    assert (person.box, person.label, person.crowd) == ((0.0, 0.0, 2.0, 6.0), 0, True)
    by_hand_HW = np.zeros((6, 8), dtype=bool)
    by_hand_HW[1:4, 1:5] = True
    assert np.array_equal(dog.mask(), by_hand_HW)
    by_hand_HW = np.zeros((6, 8), dtype=bool)
    by_hand_HW[:, :2] = True
    assert np.array_equal(person.mask(), by_hand_HW)


def test_packed_run_lengths_and_several_polygons():
    from pycocotools import mask as coco_mask

    pixels_HW = np.random.default_rng(0).random((6, 8)) > 0.5
    packed = coco_mask.encode(np.asfortranarray(pixels_HW.astype(np.uint8)))
    lengths = RunLengths(counts=packed["counts"].decode(), size=(6, 8))
    assert np.array_equal(decode_mask(lengths, 6, 8), pixels_HW)
    two = [[0.0, 0.0, 2.0, 0.0, 2.0, 2.0, 0.0, 2.0], [4.0, 3.0, 8.0, 3.0, 8.0, 6.0, 4.0, 6.0]]
    assert decode_mask(two, 6, 8).sum() == 4 + 12


def test_masks_that_do_not_fit():
    with pytest.raises(UserError, match="A mask of 6 x 8 pixels belongs to an image of 8 x 6: mend its size"):
        decode_mask(RunLengths(counts=[0, 12, 36], size=(6, 8)), 8, 6)
    with pytest.raises(UserError, match="cannot be decoded"):
        decode_mask([[1.0, 2.0]], 6, 8)


def test_flat_boxes_and_missing_masks(coco_root, edit_json):
    edit_json(coco_root / FILE, lambda content: content["annotations"][0].update(bbox=[1, 1, 4, 0]))
    edit_json(coco_root / FILE, lambda content: content["annotations"][1].pop("segmentation"))
    split = read(coco_root, "val2017", Options())
    assert [region.box[3] - region.box[1] for region in split[1].regions if region.mask is not None] == [0]
    assert [region.mask for region in split[1].regions].count(None) == 1
    (note,) = split.notes
    assert note.startswith(
        "1 objects of annotations/instances_val2017.json have a box without width or height: they count"
    )


def test_rows_of_absent_photos(coco_root):
    (coco_root / "coco/val2017/three.jpg").unlink()
    with pytest.raises(UserError, match=r'^1 of 2 files \(2 annotations\).*three\.jpg.*absent = "skip"'):
        read(coco_root, "val2017", Options())
    split = read(coco_root, "val2017", Options(absent="skip"))
    assert [example.id for example in split] == ["7"]
    assert len(split.notes) == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c["annotations"][0].update(category_id=5), 'objects of category 5, which its "categories" lack'),
        (lambda c: c["categories"].append({"id": 2, "name": "dog"}), "has category dog more than once"),
        (lambda c: c["categories"].append({"id": 1, "name": "cat"}), "has category 1 more than once"),
        (lambda c: c["images"][0].pop("height"), r"not the expected JSON at images\.0\.height"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), r"not the expected JSON at annotations\.0\.bbox"),
        (lambda c: c["annotations"][0].update(image_id=99), r'annotations of image 99, which its "images" lack'),
    ],
)
def test_malformed_file(coco_root, edit_json, change, sentence):
    edit_json(coco_root / FILE, change)
    with pytest.raises(UserError, match=sentence):
        read(coco_root, "val2017", Options())


@pytest.mark.slow
def test_real_sample_equals_pycocotools(test_data, capsys):
    options = Options(folder="coco_val2017_mini", annotations="instances.json", images="images")
    split = read(test_data, "val2017", options)
    assert (len(split), split.counts()["regions"], len(split.classes)) == (206, 1786, 80)
    assert (split.classes[0], split.classes[-1]) == ("person", "toothbrush")
    coco = COCO(test_data / "coco_val2017_mini/instances.json")
    capsys.readouterr()
    names = {category["id"]: category["name"] for category in coco.dataset["categories"]}
    crowds = 0
    for example in (*split.examples[:60], *(e for e in split if any(region.crowd for region in e.regions))):
        size = astuple(example.facet(PixelSize))
        assert example.image.open().size == size
        for region, row in zip(example.regions, coco.imgToAnns[int(example.id)], strict=True):
            left, top, width, height = row["bbox"]
            assert region.box == (left, top, left + width, top + height)
            assert split.classes[region.label] == names[row["category_id"]]
            assert np.array_equal(region.mask(), coco.annToMask(row).astype(bool))
            crowds += region.crowd
    assert crowds >= 21


def test_photos_of_another_size_than_the_file_states(coco_root, photo):
    folder = coco_root / "coco/val2017"
    photo(folder / "three.jpg", size=(4, 3))
    with pytest.raises(UserError, match=r"three\.jpg has 4 x 3 pixels, .*instances_val2017\.json states 8 x 6 .* own"):
        read(coco_root, "val2017", Options())
    photo(folder / "seven.jpg", size=(6, 8))
    with pytest.raises(UserError, match=r"2 of 2 photos are of another size, such as .*seven\.jpg has 6 x 8 pixels"):
        read(coco_root, "val2017", Options())


def test_photos_are_measured_as_stored(coco_root):
    """COCO's sizes and tools ignore EXIF orientations; a tool that heeds them annotates turned photos."""
    for size, fits in (((8, 6), True), ((6, 8), False)):
        picture, tags = Image.new("RGB", size), Image.Exif()
        tags[ExifTags.Base.Orientation] = 6
        picture.save(coco_root / "coco/val2017/three.jpg", exif=tags)
        if fits:
            assert read(coco_root, "val2017", Options())[1].image.open().size == (8, 6)
        else:
            with pytest.raises(UserError, match="its EXIF orientation would turn it, which is not applied"):
                read(coco_root, "val2017", Options())


def polygon(points):
    return lambda c: c["annotations"][0].update(segmentation=[points])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c["annotations"][1].update(bbox=[NAN, 0, 2, 6]), r"image 3, annotation 2: the box .* is not finite"),
        (lambda c: c["annotations"][1].update(bbox=[0, 0, 2, INF]), r"image 3, annotation 2: the box .* is not finite"),
        (lambda c: c["annotations"][0].update(bbox=[1, 1, -4, 3]), r"image 3, annotation 1: the box .* negative width"),
        (lambda c: c["annotations"][0].update(area=NAN), r"annotations\.0\.area \(image 3, annotation 1: "),
        (lambda c: c["annotations"][0].update(area=-1), r"annotations\.0\.area \(image 3, annotation 1: "),
        (polygon([NAN] * 8), r"annotations\.0\.segmentation\.0\.0 \(image 3, annotation 1: Input should be a finite"),
        (lambda c: c["images"].append({**c["images"][1], "id": "3"}), "lists image 3 more than once"),
        (lambda c: c["images"][0].update(width=0), r"images\.0\.width \(image 7: "),
    ],
)
def test_numbers_that_no_annotation_has_are_refused_by_name(coco_root, edit_json, change, sentence):
    edit_json(coco_root / FILE, change)
    with pytest.raises(UserError, match=sentence):
        read(coco_root, "val2017", Options())


@pytest.mark.parametrize("points", [[1.0, 1.0, 4.0, 3.0], [1.0, 1.0, 4.0], [1.0, 1.0, 5.0, 1.0, 5.0, 4.0, 1.0], []])
def test_polygons_of_less_than_three_points(coco_root, edit_json, points):
    edit_json(coco_root / FILE, polygon(points))
    dog = read(coco_root, "val2017", Options())[1].regions[0]
    has = f"a polygon has {len(points)} numbers"
    with pytest.raises(UserError, match=rf"mask of image 3 \(annotation 1\) cannot be decoded \({has}"):
        dog.mask()


def test_ids_of_two_types_are_joined(coco_root, edit_json):
    whole = read(coco_root, "val2017", Options())
    for kind in (str, float):
        edit_json(
            coco_root / FILE, lambda c, kind=kind: [a.update(image_id=kind(a["image_id"])) for a in c["annotations"]]
        )
        split = read(coco_root, "val2017", Options())
        assert [e.id for e in split] == [e.id for e in whole] == ["7", "3"]
        assert [len(e.regions) for e in split] == [0, 2]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_marked_encodings(coco_root, encoding):
    path = coco_root / FILE
    path.write_text(path.read_text(encoding="utf-8"), encoding=encoding)
    assert len(read(coco_root, "val2017", Options())[1].regions) == 2


def test_corners_given_as_extents(coco_root, edit_json):
    def add(content):
        first = {"image_id": 3, "category_id": 1, "area": 4.0}
        boxes = [[left, top, left + 2, top + 2] for left in (0, 2, 4, 6) for top in (0, 2, 4)]
        content["annotations"] = [{**first, "id": k, "bbox": box} for k, box in enumerate(boxes)]

    edit_json(coco_root / FILE, add)
    with pytest.raises(
        UserError, match=r"boxes of annotations/instances_val2017\.json leave .*of image 3 \(annotation"
    ):
        read(coco_root, "val2017", Options())


def test_boxes_as_coco_rounds_them(coco_root, edit_json):
    edit_json(coco_root / FILE, lambda content: content["annotations"][0].update(bbox=[3.99, 0.0, 4.02, 6.01], area=0))
    split = read(coco_root, "val2017", Options())
    assert (split.notes, len(split[1].regions)) == ((), 2)
