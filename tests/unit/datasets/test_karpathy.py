import pickle
import re

import pytest

from sparc_bench.cards import discovery
from sparc_bench.cards.binding import bind
from sparc_bench.catalogue.expected_counts import check_counts
from sparc_bench.datasets.karpathy import Options, read
from sparc_bench.errors import UserError
from tests.unit.datasets.conftest import save_photo, write_json

FLICKR = Options(folder="flickr30k", annotations="dataset_flickr30k.json", images="images")


def image(filename, split, sentences, **about):
    rows = [{"raw": text, "tokens": text.lower().split(), "imgid": 0, "sentid": 1} for text in sentences]
    return {"filename": filename, "imgid": 0, "sentids": [1], "split": split, "sentences": rows, **about}


@pytest.fixture
def karpathy_root(tmp_path):
    coco = [
        image("COCO_val2014_000000000042.jpg", "test", ["two. ", "b"], filepath="val2014", cocoid=42),
        image("COCO_train2014_000000000009.jpg", "train", ["nine"], filepath="train2014", cocoid=9),
        image("COCO_val2014_000000000073.jpg", "restval", ["a"], filepath="val2014", cocoid=73),
        image("COCO_val2014_000000000007.jpg", "test", list("abcdef"), filepath="val2014", cocoid=7),
        image("COCO_val2014_000000000008.jpg", "val", ["v"], filepath="val2014", cocoid=8),
    ]
    for row in coco:
        save_photo(tmp_path / "coco" / row["filepath"] / row["filename"])
    write_json(tmp_path / "coco/dataset_coco.json", images=coco, dataset="coco")
    flickr = [image("1000092795.jpg", "train", ["x", "y"]), image("36979.jpg", "test", ["z", "w"])]
    for row in flickr:
        save_photo(tmp_path / "flickr30k/images" / row["filename"])
    write_json(tmp_path / "flickr30k/dataset_flickr30k.json", images=flickr, dataset="flickr30k")
    return tmp_path


def test_a_split_of_coco_keeps_the_files_order_and_every_sentence(karpathy_root):
    split = read(karpathy_root, "test", Options())
    assert [example.id for example in split] == ["42", "7"]
    assert split.captions == ("two. ", "b", *"abcdef")
    assert split.caption_image_M.tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    assert [example.photo for example in split] == ["coco:42", "coco:7"]
    assert (split.pool, split.notes) == ((), ())
    assert pickle.loads(pickle.dumps(split))[1].image.open().size == (8, 6)
    assert read(karpathy_root, "test", Options(captions_per_image=5)).captions == ("two. ", "b", *"abcde")


def test_restval_is_no_part_of_train_unless_named(karpathy_root):
    ids = {
        name: [example.id for example in read(karpathy_root, name, Options())]
        for name in ("train", "restval", "train+restval", "val", "all")
    }
    assert ids["train"] == ["9"]
    assert ids["restval"] == ["73"]
    assert ids["train+restval"] == ["9", "73"]
    assert ids["val"] == ["8"]
    assert ids["all"] == ["42", "9", "73", "7", "8"]
    tags = [example.tags["split"] for example in read(karpathy_root, "all", Options())]
    assert tags == ["test", "train", "restval", "test", "val"]
    prints = {read(karpathy_root, name, Options()).fingerprint for name in ids}
    assert len(prints) == len(ids)


def test_flickr_names_its_photos_by_file(karpathy_root):
    (example,) = read(karpathy_root, "test", FLICKR)
    assert (example.id, example.photo, example.captions) == ("36979.jpg", "flickr:36979", ("z", "w"))
    with pytest.raises(UserError, match=r"has no image of the split 'restval': choose one that it has \(train, test\)"):
        read(karpathy_root, "restval", FLICKR)


def test_absent_photos_are_refused_or_counted(karpathy_root):
    whole = read(karpathy_root, "test", Options())
    (karpathy_root / "coco/val2014/COCO_val2014_000000000007.jpg").unlink()
    with pytest.raises(UserError, match=r'^1 of 2 files \(6 annotations\) are not in .*000007\.jpg.*absent = "skip"'):
        read(karpathy_root, "test", Options())
    part = read(karpathy_root, "test", Options(absent="skip"))
    assert [example.id for example in part] == ["42"]
    assert part.fingerprint != whole.fingerprint
    assert "absent and left out" in part.notes[0]
    (karpathy_root / "coco/val2014/COCO_val2014_000000000042.jpg").unlink()
    with pytest.raises(UserError, match="has none of the photos"):
        read(karpathy_root, "test", Options(absent="skip"))


def test_blank_sentences_and_bare_images_are_counted(karpathy_root, edit_json):
    path = karpathy_root / "coco/dataset_coco.json"
    edit_json(path, lambda content: content["images"][0]["sentences"][1].update(raw=" \n"))
    split = read(karpathy_root, "test", Options())
    assert split.captions == ("two. ", *"abcdef")
    assert split.notes == ("1 sentences of dataset_coco.json hold no word and are left out.",)
    edit_json(path, lambda content: content["images"][0].update(sentences=[]))
    split = read(karpathy_root, "test", Options())
    assert [example.id for example in split] == ["7"]
    assert split.notes == ("1 of 2 images of 'test' have no sentences, left out: COCO_val2014_000000000042.jpg.",)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.pop("images"), r"not the expected JSON at images \(Field required\): mend"),
        (lambda c: c["images"][0]["sentences"][0].pop("raw"), r"at images\.0\.sentences\.0\.raw"),
        (lambda c: c["images"][0].update(split="testing"), r"the split 'testing', which no file of Karpathy's has"),
        (lambda c: c["images"].append(c["images"][0]), "lists image 42 more than once"),
    ],
)
def test_malformed_file_is_one_sentence(karpathy_root, edit_json, change, sentence):
    edit_json(karpathy_root / "coco/dataset_coco.json", change)
    with pytest.raises(UserError, match=sentence) as error:
        read(karpathy_root, "test", Options())
    assert "\n" not in str(error.value)


def test_missing_file_folder_and_split(karpathy_root):
    with pytest.raises(UserError, match=r"dataset_flickr8k\.json does not exist: the data set needs a folder with"):
        read(karpathy_root, "test", Options(annotations="dataset_flickr8k.json"))
    with pytest.raises(UserError, match="images is no folder"):
        read(karpathy_root, "test", Options(images="images"))
    with pytest.raises(UserError, match="'karpathy' has no split 'tets': did you mean 'test'"):
        read(karpathy_root, "tets", Options())


@pytest.mark.parametrize(
    ("name", "images", "captions"), [("coco_karpathy_retrieval", 5000, 25010), ("flickr30k_retrieval", 1000, 5000)]
)
def test_other_counts_than_the_published_ones_stop_the_run_with_both(karpathy_root, name, images, captions):
    task = bind(discovery.task(name))
    assert task.card.expect == {"images": images, "captions": captions}
    data = task.dataset.read(karpathy_root, task.card.split, task.data_options)
    with pytest.raises(UserError) as error:
        check_counts(task.card, data.counts())
    numbers = {int(found.replace(",", "")) for found in re.findall(r"\d[\d,]*\b", str(error.value))}
    assert {images, len(data)} <= numbers
    assert "\n" not in str(error.value)
