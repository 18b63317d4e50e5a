import json

import pytest

from sparc_bench.datasets import coco_captions
from sparc_bench.datasets.coco_objects import Options, read
from sparc_bench.errors import UserError
from sparc_bench.facets import Objects

SYNONYMS = "person, man,  woman, \ndog, puppy\n"


@pytest.fixture
def objects_root(coco_root):
    (coco_root / "chair").mkdir()
    (coco_root / "chair/synonyms.txt").write_text(SYNONYMS)
    return coco_root


def test_captions_and_objects(objects_root):
    split = read(objects_root, "val2017", Options())
    assert [example.id for example in split] == ["7", "3"]
    assert [example.captions for example in split] == [
        ("seven, first", "seven, second"),
        ("three, first", "three, second "),
    ]
    # crowds count
    assert [example.facet(Objects).present for example in split] == [
        {"person": False, "dog": False},
        {"person": True, "dog": True},
    ]
    assert split.classes == ("person", "dog")
    assert split.synonyms == {"person": "person", "man": "person", "woman": "person", "dog": "dog", "puppy": "dog"}
    assert split.counts()["objects"] == 2
    assert split.pool == ()


def test_the_pool_holds_the_captions_of_other_images(objects_root, edit_json):
    edit_json(
        objects_root / "coco/annotations/instances_val2017.json",
        lambda content: content.update(
            images=content["images"][:1], annotations=[{**row, "image_id": 7} for row in content["annotations"]]
        ),
    )
    split = read(objects_root, "val2017", Options(pool="annotations/all.json"))
    assert [example.id for example in split] == ["7"]
    assert split.pool == ("three, first", "three, second ", "nine, first", "nine, second")


def test_karpathys_test_images_alone(objects_root):
    rows = [{"cocoid": 3, "split": "test"}, {"cocoid": 7, "split": "restval"}]
    (objects_root / "coco/dataset_coco.json").write_text(json.dumps({"images": rows}))
    (objects_root / "coco/val2017/seven.jpg").unlink()
    split = read(objects_root, "val2017", Options(karpathy="dataset_coco.json"))
    assert [example.id for example in split] == ["3"]


def test_absent_photos(objects_root):
    (objects_root / "coco/val2017/seven.jpg").unlink()
    with pytest.raises(UserError, match=r'1 of 2 files .* absent = "skip"'):
        read(objects_root, "val2017", Options())
    split = read(objects_root, "val2017", Options(absent="skip"))
    assert [example.id for example in split] == ["3"]
    (objects_root / "coco/val2017/three.jpg").unlink()
    with pytest.raises(UserError, match="none of the photos"):
        read(objects_root, "val2017", Options(absent="skip"))


@pytest.mark.parametrize(
    ("synonyms", "sentence"),
    [
        ("person, man\n", "no row for dog"),
        ("person, man, puppy\ndog, puppy\n", "has 'puppy' for person and, in line 2, dog"),
    ],
)
def test_a_list_that_does_not_fit(objects_root, synonyms, sentence):
    (objects_root / "chair/synonyms.txt").write_text(synonyms)
    with pytest.raises(UserError, match=sentence):
        read(objects_root, "val2017", Options())


def test_no_list(objects_root):
    (objects_root / "chair/synonyms.txt").unlink()
    with pytest.raises(UserError, match=r"synonyms.txt does not exist: the data set needs"):
        read(objects_root, "val2017", Options())


def test_the_fingerprint_knows_every_file(objects_root):
    found = {read(objects_root, "val2017", Options()).fingerprint}
    (objects_root / "chair/synonyms.txt").write_text(SYNONYMS + "cat\n")
    found.add(read(objects_root, "val2017", Options()).fingerprint)
    found.add(read(objects_root, "val2017", Options(pool="annotations/all.json")).fingerprint)
    assert len(found) == 3


def test_real_photos_stand_before_the_same_pool_as_k_precisions(test_data):
    mini = {"folder": "coco_val2017_mini", "images": "images", "pool": "captions_val2017_all.json"}
    options = Options(captions="captions.json", instances="instances.json", **mini)
    split = read(test_data, "val2017", options)
    counts = split.counts()
    assert (counts["images"], counts["captions"], counts["classes"]) == (206, 1030, 80)
    theirs = coco_captions.read(test_data, "val2017", coco_captions.Options(annotations="captions.json", **mini))
    assert sorted((*split.captions, *split.pool)) == sorted((*theirs.captions, *theirs.pool))
    assert len(split.captions) + len(split.pool) == 25014


def test_a_word_with_a_capital_is_never_found_as_in_the_official_code(objects_root):
    (objects_root / "chair/synonyms.txt").write_text(SYNONYMS + "cell phone, phone, iPhone\n")
    words = read(objects_root, "val2017", Options()).synonyms
    assert {"phone", "cell phone"} <= words.keys()
    assert "iphone" not in {word.lower() for word in words}
