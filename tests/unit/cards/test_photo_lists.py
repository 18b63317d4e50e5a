import pytest

from sparc_bench.cards import photo_lists
from sparc_bench.cards.card import parse
from sparc_bench.cards.photo_lists import PhotoList, PhotoSet
from sparc_bench.errors import UserError
from sparc_bench.evaluation.exposure import exposure

FOLDER = photo_lists.folder()
NAMES = sorted(f"{path.parent.name}:{path.stem}" for path in FOLDER.glob("*/*.toml"))

SIZES = {
    "coco:val2017": 5000,
    "coco:karpathy_test": 5000,
    "coco:karpathy_val": 5000,
    "flickr30k:test": 1000,
    "flickr30k:val": 1014,
    "flickr30k:in_no_split": 769,
    "flickr30k:entities_test": 1000,
    "flickr30k:entities_val": 1000,
    "flickr8k:train": 6000,
    "flickr8k:val": 1000,
    "flickr8k:test": 1000,
    "flickr8k:in_no_split": 91,
}


def known(**values):
    return PhotoSet(PhotoList(**{"photos": "coco", "source": "a test", **values}))


@pytest.mark.parametrize("name", NAMES)
def test_every_list_is_one(name):
    found = photo_lists.by_name(name)
    assert len(found.ids) == SIZES.get(name, 0)
    assert all(photo.partition(":")[2].isdigit() for photo in found.ids)
    assert found.has("other:139") is False


def test_a_split_lies_apart_from_its_siblings():
    for siblings in (
        ("coco:karpathy_test", "coco:karpathy_val"),
        ("flickr30k:test", "flickr30k:val", "flickr30k:in_no_split"),
        ("flickr30k:entities_test", "flickr30k:entities_val"),
        ("flickr8k:train", "flickr8k:val", "flickr8k:test", "flickr8k:in_no_split"),
    ):
        lists = [photo_lists.by_name(name).ids for name in siblings]
        assert len(frozenset().union(*lists)) == sum(map(len, lists))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trained_on", "tested_on", "expected"),
    [
        # what the field does not mark: most of val2017 is Karpathy's train, most of his test is train2017
        ("coco:karpathy_train", "coco:val2017", "3799 images seen"),
        ("coco:train2017", "coco:karpathy_test", "4407 images seen"),
        ("coco:train2017", "coco:val2017", "domain"),
        ("coco:train2014", "coco:val2017", "domain"),
        ("coco:val2014", "coco:val2017", "5000 images seen"),
        ("coco_captions:train2017", "coco:karpathy_test", "4407 images seen"),
        ("lvis:train", "coco:val2017", "domain"),
        ("lvis:train", "coco:karpathy_test", "unknown"),
        ("flickr8k:train", "flickr30k:entities_test", "213 images seen"),
        ("flickr8k:train", "flickr30k:test", "173 images seen"),
        ("flickr8k:train", "flickr8k:test", "domain"),
        ("flickr30k:train", "flickr30k:test", "domain"),
        ("flickr30k:train", "flickr8k:test", "871 images seen"),
        ("flickr30k:all", "flickr8k:test", "1000 images seen"),
        ("flickr8k:train", "coco:val2017", "none"),
        ("scenes1:train", "coco:val2017", "none"),
        ("laion2b_en:all", "coco:val2017", "unknown"),
        ("coco_captions:train", "coco:val2017", "unknown"),
    ],
)
def test_photos_are_intersected(trained_on, tested_on, expected):
    photos = sorted(photo_lists.by_name(tested_on).ids)
    found = exposure([trained_on], "some_reader", "some_split", len(photos), photos=photos)
    assert str(found) == expected


def test_photos_of_a_web_collection_stay_unknown_beside_those_that_are_known():
    photos = sorted(photo_lists.by_name("coco:karpathy_test").ids)
    of = lambda *trained_on: str(exposure(trained_on, "karpathy", "test", 5000, photos=photos))  # noqa: E731
    assert of("laion2b_en:all", "coco:train2017") == "4407 images seen"
    assert of("laion2b_en:all", "coco:val2017") == "593 images seen"
    assert of("laion2b_en:all", "scenes1:train") == "unknown"


def test_what_a_list_says_of_a_photo():
    assert known(ids="1 2\n3").has("coco:3") is True
    assert known(ids="1 2\n3").has("coco:4") is False
    assert known(ids="1", rest="unknown").has("coco:4") is None
    assert known(lacks=["coco:val2017"], rest="in").has("coco:139") is False
    assert known(lacks=["coco:val2017"], rest="in").has("coco:9") is True
    assert known(holds=["coco:val2017"]).has("coco:139") is True
    assert known(holds=["coco:val2014"]).has("coco:9") is None
    assert known(names="val_[0-9]+").has("coco:val_12") is True
    assert known(names="val_[0-9]+").has("coco:val_12a") is False


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"photos": "COCO!"}, "is no source"),
        ({"ids": "coco:1 coco:2"}, "take every 'coco:' out"),
        ({"names": "("}, "is no pattern"),
        ({"id": "1"}, "unknown key 'id'"),
    ],
)
def test_malformed_lists_are_refused(values, sentence):
    with pytest.raises(UserError, match=sentence):
        parse(PhotoList, {"photos": "coco", "source": "a test", **values}, "my.toml")


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'coco:val2017'"):
        photo_lists.by_name("coco:val2071")
    assert photo_lists.find("../secrets:x") is None
