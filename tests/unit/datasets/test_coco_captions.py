import pickle
import shutil

import pytest
from pydantic import ValidationError

from sparc_bench.datasets.coco_captions import Options, read
from sparc_bench.errors import UserError

FILE = "coco/annotations/captions_val2017.json"


def test_images_and_captions_keep_the_files_order(coco_root):
    split = read(coco_root, "val2017", Options())
    assert [example.id for example in split] == ["7", "3"]
    assert split.captions == ("seven, first", "seven, second", "three, first", "three, second ")
    assert split.caption_image_M.tolist() == [0, 0, 1, 1]
    assert (split.pool, split.notes) == ((), ())
    assert pickle.loads(pickle.dumps(split))[0].image.open().size == (8, 6)


def test_pool_and_examples_hold_each_caption_once(coco_root):
    split = read(coco_root, "val2017", Options(pool="annotations/all.json"))
    assert split.pool == ("nine, first", "nine, second")
    assert split.fingerprint != read(coco_root, "val2017", Options()).fingerprint


def test_captions_per_image(coco_root):
    split = read(coco_root, "val2017", Options(captions_per_image=1, pool="annotations/all.json"))
    assert split.captions == ("seven, first", "three, first")
    assert split.pool == ("nine, first", "nine, second")
    with pytest.raises(ValidationError):
        Options(captions_per_image=-1)


def test_rows_of_absent_photos(coco_root):
    (coco_root / "coco/val2017/three.jpg").unlink()
    with pytest.raises(UserError, match=r'^1 of 2 files \(2 annotations\) are not in .*three\.jpg.*absent = "skip"'):
        read(coco_root, "val2017", Options())
    split = read(coco_root, "val2017", Options(absent="skip", pool="annotations/all.json"))
    assert [example.id for example in split] == ["7"]
    assert split.notes == ("1 of 2 files (2 annotations) are absent and left out: three.jpg.",)
    assert split.pool == ("three, first", "three, second ", "nine, first", "nine, second")
    (coco_root / "coco/val2017/seven.jpg").unlink()
    with pytest.raises(UserError, match="has none of the captioned photos"):
        read(coco_root, "val2017", Options(absent="skip"))


def test_blank_captions_and_bare_images_are_counted(coco_root, edit_json):
    edit_json(coco_root / FILE, lambda content: content["annotations"][0].update(caption=" \n"))
    split = read(coco_root, "val2017", Options())
    assert split.notes == ("1 captions of annotations/captions_val2017.json hold no word and are left out.",)
    edit_json(coco_root / FILE, lambda content: content["annotations"][2].update(caption=""))
    split = read(coco_root, "val2017", Options())
    assert [example.id for example in split] == ["7"]
    assert "1 of 2 images of annotations/captions_val2017.json have no captions, left out: three.jpg." in split.notes


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.pop("annotations"), r"not the expected JSON at annotations \(Field required\): mend"),
        (lambda c: c["annotations"][1].update(caption=5), r"not the expected JSON at annotations\.1\.caption"),
        (lambda c: c["annotations"][1].update(image_id=99), r'annotations of image 99, which its "images" lack'),
        (lambda c: c["images"].append(c["images"][0]), "lists image 7 more than once"),
    ],
)
def test_malformed_file(coco_root, edit_json, change, sentence):
    edit_json(coco_root / FILE, change)
    with pytest.raises(UserError, match=sentence):
        read(coco_root, "val2017", Options())


def test_truncated_json(coco_root):
    path = coco_root / FILE
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"captions_val2017\.json is not the expected JSON \(Invalid JSON: .*line 1"):
        read(coco_root, "val2017", Options())


def test_missing_files_and_unknown_split(coco_root):
    with pytest.raises(UserError, match=r"captions_train2017\.json does not exist: the data set needs coco/ with"):
        read(coco_root, "train2017", Options())
    with pytest.raises(UserError, match="has no split 'val17': did you mean 'val2017'"):
        read(coco_root, "val17", Options())
    with pytest.raises(UserError, match=r"none\.json does not exist"):
        read(coco_root, "val2017", Options(pool="none.json"))


@pytest.mark.parametrize(
    ("file_name", "photo"),
    [
        ("000000000139.jpg", "coco:139"),
        ("COCO_val2014_000000000139.jpg", "coco:139"),
        ("seven.jpg", ""),
        ("139.jpg", ""),
    ],
)
def test_a_photo_is_cocos_where_its_file_name_says_so(coco_root, edit_json, photo, file_name):
    (coco_root / "coco/val2017/seven.jpg").rename(coco_root / "coco/val2017" / file_name)
    edit_json(coco_root / FILE, lambda content: content["images"][0].update(file_name=file_name))
    assert [example.photo for example in read(coco_root, "val2017", Options())] == [photo, ""]


@pytest.mark.slow
def test_real_sample_and_its_pool(test_data):
    options = Options(
        folder="coco_val2017_mini",
        annotations="captions.json",
        images="images",
        pool="captions_val2017_all.json",
    )
    split = read(test_data, "val2017", options)
    assert split.counts()["images"] == 404
    assert split.counts()["captions"] == 2021
    assert all(example.photo == f"coco:{example.id}" for example in split)
    assert len(split.captions) + len(split.pool) == 25014
    with pytest.raises(UserError, match=r'^4596 of 5000 files \(22993 annotations\) are not in .*absent = "skip"'):
        read(test_data, "val2017", options.model_copy(update={"annotations": "captions_val2017_all.json"}))


def test_captions_of_other_images_to_choose_on(coco_root):
    plain = read(coco_root, "val2017", Options())
    tuned = read(coco_root, "val2017", Options(tuning="annotations/all.json"))
    assert (tuned.captions, tuned.pool) == (plain.captions, plain.pool)
    assert tuned.tuning == (("nine, first", "nine, second"),)
    assert tuned.fingerprint != plain.fingerprint
    assert "tuning" not in Options().model_dump()


def test_photos_that_nobody_opens_may_be_absent(coco_root):
    whole = read(coco_root, "val2017", Options())
    kept = Options().model_copy(update={"absent": "keep"})
    assert read(coco_root, "val2017", kept).fingerprint == whole.fingerprint
    (coco_root / "coco/val2017/three.jpg").unlink()
    hashes = set()
    for _ in range(2):
        split = read(coco_root, "val2017", kept)
        assert [example.id for example in split] == [example.id for example in whole]
        assert "their annotations are kept, for no image is opened" in split.notes[0]
        hashes.add(split.fingerprint)
        shutil.rmtree(coco_root / "coco/val2017", ignore_errors=True)
    assert len(hashes - {whole.fingerprint}) == 1
