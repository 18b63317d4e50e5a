import json
import pickle

import pytest

from sparc_bench.cards.card import parse
from sparc_bench.datasets import sugar_crepe_captions as sugar_crepe
from sparc_bench.datasets import sugar_crepe_pp_captions as sugar_crepe_pp
from sparc_bench.errors import UserError
from tests.unit.datasets.conftest import save_photo

CAT, DOG = "000000000139.jpg", "000000222235.jpg"


@pytest.fixture
def root(tmp_path):
    for name in (CAT, DOG):
        save_photo(tmp_path / "coco/val2017" / name)
    for group in sugar_crepe.GROUPS:
        rows = {"0": (CAT, f"A cat, {group}. ", f"A dog, {group}."), "7": (DOG, f"A dog, {group}.", f"A cat, {group}.")}
        keys = ("filename", "caption", "negative_caption")
        write(tmp_path, "sugar_crepe", group, {key: dict(zip(keys, row, strict=True)) for key, row in rows.items()})
    for group in sugar_crepe_pp.GROUPS:
        row = {"id": 3, "filename": CAT, "caption": "A cat.", "caption2": "One cat.", "negative_caption": "A dog."}
        write(tmp_path, "sugar_crepe_pp", group, [row])
    return tmp_path


def write(root, dataset, group, content):
    path = root / dataset / "data" / f"{group}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_items_are_examples_and_photos_are_shared(root):
    data = sugar_crepe.read(root, "test", sugar_crepe.Options())
    assert [example.id for example in data][:3] == ["add_att/0", "add_att/7", "add_obj/0"]
    first = data[0]
    assert (first.captions, first.negatives) == (("A cat, add_att. ",), ("A dog, add_att.",))
    assert (first.image.id, first.photo, first.tags) == ("139", "coco:139", {"group": "add_att"})
    assert data[2].image.id == first.image.id
    counts = data.counts()
    assert (counts["items"], counts["photos"], counts["negatives"], counts["swap_obj"]) == (14, 2, 14, 2)
    assert pickle.loads(pickle.dumps(data[13])).image.open().size == (8, 6)
    assert data.notes == ()


def test_the_plus_plus_has_two_captions(root):
    data = sugar_crepe_pp.read(root, "test", sugar_crepe_pp.Options())
    assert data[4].id == "swap_obj/3"
    assert (data[4].captions, data[4].negatives) == (("A cat.", "One cat."), ("A dog.",))
    counts = data.counts()
    assert (counts["items"], counts["photos"], counts["captions"], counts["replace_rel"]) == (5, 1, 10, 1)


def test_absent_photos(root):
    (root / "coco/val2017" / DOG).unlink()
    with pytest.raises(
        UserError, match=r"^1 of the 2 photos of sugar_crepe_captions, of 7 of its 14 items.* as a sample"
    ):
        sugar_crepe.read(root, "test", sugar_crepe.Options())
    data = sugar_crepe.read(root, "test", sugar_crepe.Options(absent="skip"))
    assert (len(data), data.sizes["photos"], data.sizes["swap_obj"]) == (7, 1, 1)
    assert data.notes == (f"1 of 2 files (7 annotations) are absent and left out: coco/val2017/{DOG}.",)
    (root / "coco/val2017" / CAT).unlink()
    with pytest.raises(UserError, match=r"^2 of the 2 photos .* where photos lie\.$"):
        sugar_crepe.read(root, "test", sugar_crepe.Options(absent="skip"))


def test_the_fingerprint_is_of_content_and_not_of_places(root):
    there = sugar_crepe.read(root, "test", sugar_crepe.Options())
    (root / "coco").rename(root / "mscoco")
    elsewhere = sugar_crepe.read(root, "test", sugar_crepe.Options(photos="mscoco/val2017"))
    assert there.fingerprint == elsewhere.fingerprint
    assert [view.item.content for view in there.views] == [view.item.content for view in elsewhere.views]
    path = root / "sugar_crepe/data/swap_obj.json"
    path.write_text(path.read_text().replace("A dog", "Two dogs"))
    changed = sugar_crepe.read(root, "test", sugar_crepe.Options(photos="mscoco/val2017"))
    assert changed.fingerprint != there.fingerprint
    assert [view.item.content for view in changed.views] == [view.item.content for view in there.views]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"swap_obj\.json does not exist: the data set needs sugar_crepe/data/"),
        ([], r"swap_obj\.json is not the expected JSON"),
        ({"0": {"filename": CAT, "caption": "A cat."}}, r"at 0\.negative_caption \(Field required\)"),
        ({"0": {"filename": CAT, "caption": "A cat.", "negative_caption": " "}}, r"without a word in swap_obj/0"),
    ],
)
def test_malformed_files(root, content, sentence):
    path = root / "sugar_crepe/data/swap_obj.json"
    path.unlink() if content is None else path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=sentence):
        sugar_crepe.read(root, "test", sugar_crepe.Options())


def test_an_item_twice_is_refused(root):
    path = root / "sugar_crepe_pp/data/swap_obj.json"
    path.write_text(json.dumps(json.loads(path.read_text()) * 2))
    with pytest.raises(UserError, match="sugar_crepe_pp_captions holds the item swap_obj/3 more than once"):
        sugar_crepe_pp.read(root, "test", sugar_crepe_pp.Options())


@pytest.mark.slow
def test_the_official_files(test_data):
    options = parse(sugar_crepe.Options, {"photos": "coco_val2017_mini/images", "absent": "skip"}, "here")
    data = sugar_crepe.read(test_data, "test", options)
    assert (data.sizes["items"], data.sizes["photos"]) == (825, 156)
    assert [data.sizes[group] for group in sugar_crepe.GROUPS] == [72, 241, 92, 192, 147, 55, 26]
    with pytest.raises(UserError, match=r"^1404 of the 1560 photos of sugar_crepe_captions, of 6686 of its 7511 items"):
        sugar_crepe.read(test_data, "test", options.model_copy(update={"absent": "refuse"}))
