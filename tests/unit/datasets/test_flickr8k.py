import pickle
import re
import sys

import pytest

from sparc_bench.datasets._swapped_words import negative_of
from sparc_bench.datasets.flickr8k import Options, read
from sparc_bench.errors import UserError
from sparc_bench.metrics import content_words


def test_splits_follow_the_lists_and_commas_stay(flickr8k_root):
    val = read(flickr8k_root, "val", Options())
    assert [example.id for example in val] == ["d.jpg", "e.jpg"]
    assert val[0].captions == ("A plain caption .", 'Two dogs , one "red" , run .')
    assert val.notes == ()
    assert len(read(flickr8k_root, "train", Options())) == 3
    assert pickle.loads(pickle.dumps(val))[1].image.open().size == (8, 6)


def test_all_photos_come_by_name_with_the_list_that_they_are_in(flickr8k_root):
    home = flickr8k_root / "flickr8k"
    rows = (home / "captions.txt").read_text().splitlines()
    (home / "captions.txt").write_text("\n".join([rows[0], "0.jpg,In no list .", *reversed(rows[1:])]) + "\n")
    (home / "images/0.jpg").write_bytes((home / "images/a.jpg").read_bytes())
    whole = read(flickr8k_root, "all", Options())
    assert [example.id for example in whole] == ["0.jpg", *(f"{name}.jpg" for name in "abcdef")]
    assert [example.tags.get("split") for example in whole] == [None, *["train"] * 3, *["val"] * 2, "test"]
    assert whole.notes == ()
    first = read(flickr8k_root, "all", Options(first=3))
    assert [example.id for example in first] == ["0.jpg", "a.jpg", "b.jpg"]
    assert first[1].captions == whole[1].captions
    assert first.fingerprint != whole.fingerprint
    assert [example.id for example in read(flickr8k_root, "test", Options(first=1))] == ["f.jpg"]


def test_an_option_that_is_not_set_is_in_no_hash():
    assert Options().model_dump() == {"folder": "flickr8k", "images": "images", "absent": "refuse"}
    assert Options(first=3).model_dump()["first"] == 3
    assert Options(negatives="swap").model_dump()["negatives"] == "swap"


def test_listed_name_without_captions_is_left_out_by_name(flickr8k_root):
    test = read(flickr8k_root, "test", Options())
    assert [example.id for example in test] == ["f.jpg"]
    assert test.notes == ("1 of 2 names of Flickr_8k.testImages.txt have no captions, left out: lost.jpg.",)


def test_captions_of_absent_photos(flickr8k_root):
    whole = read(flickr8k_root, "train", Options())
    (flickr8k_root / "flickr8k/images/b.jpg").unlink()
    with pytest.raises(UserError, match=r'1 of 3 files \(2 annotations\).*b\.jpg.*absent = "skip"'):
        read(flickr8k_root, "train", Options())
    part = read(flickr8k_root, "train", Options(absent="skip"))
    assert [example.id for example in part] == ["a.jpg", "c.jpg"]
    assert part.notes == ("1 of 3 files (2 annotations) are absent and left out: b.jpg.",)
    assert part.fingerprint != whole.fingerprint
    assert len(read(flickr8k_root, "val", Options())) == 2


def test_no_photo_at_all(flickr8k_root):
    for photo in (flickr8k_root / "flickr8k/images").iterdir():
        photo.unlink()
    with pytest.raises(UserError, match="has none of the photos"):
        read(flickr8k_root, "val", Options(absent="skip"))


def test_unknown_split(flickr8k_root):
    with pytest.raises(UserError, match="'flickr8k' has no split 'tets': did you mean 'test'"):
        read(flickr8k_root, "tets", Options())


@pytest.mark.parametrize("name", ["captions.txt", "Flickr_8k.devImages.txt"])
def test_missing_file_names_the_layout(flickr8k_root, name):
    (flickr8k_root / "flickr8k" / name).unlink()
    with pytest.raises(UserError, match=rf"{name} does not exist: the data set needs flickr8k/ with captions\.txt"):
        read(flickr8k_root, "val", Options())


def test_missing_photo_folder(flickr8k_root):
    with pytest.raises(UserError, match=r"Images is no folder: the data set needs flickr8k/"):
        read(flickr8k_root, "val", Options(images="Images"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("name,text\nd.jpg,A dog .\n", "begins with 'name,text': its first line must be image,caption"),
        ("", "begins with ''"),
        ("image,caption\nd.jpg,A dog , running .\n", "3 fields or an empty caption at line 2"),
        ("image,caption\nd.jpg,\n", "2 fields or an empty caption at line 2"),
        ('image,caption\nd.jpg,"A dog\n', "no valid CSV at line 2"),
    ],
)
def test_malformed_captions(flickr8k_root, content, sentence):
    (flickr8k_root / "flickr8k/captions.txt").write_text(content)
    with pytest.raises(UserError, match=sentence):
        read(flickr8k_root, "val", Options())


@pytest.mark.slow
def test_every_caption_has_a_negative_of_its_own(flickr8k_root):
    pytest.importorskip("HanTa")
    plain, data = (read(flickr8k_root, "train", Options(negatives=rule)) for rule in ("", "swap"))
    for bare, example in zip(plain, data, strict=True):
        assert (bare.negatives, bare.captions) == ((), example.captions)
        assert example.negatives == tuple(negative_of(caption).text for caption in example.captions)
        assert example.image.content == bare.image.content
    assert data.notes == (
        "Of 6 negatives, 0 exchange two words or phrases of one form, 3 of different forms, and 3 replace a noun.",
    )
    assert data.fingerprint != plain.fingerprint
    assert plain.notes == ()


def test_negatives_without_the_tagger_say_what_to_install(flickr8k_root, monkeypatch):
    monkeypatch.setitem(sys.modules, "HanTa", None)
    content_words._hanta.cache_clear()
    with pytest.raises(UserError, match=r"pip install 'sparc-bench\[faithfulness\]'\.$") as error:
        read(flickr8k_root, "val", Options(negatives="swap"))
    assert "\n" not in str(error.value)
    assert len(read(flickr8k_root, "val", Options())) == 2


@pytest.mark.slow
def test_real_negatives_by_rule(test_data):
    pytest.importorskip("HanTa")
    data = read(test_data, "val", Options(negatives="swap"))
    for example in data:
        assert len(example.negatives) == len(example.captions) == 5
        lower = {caption.lower() for caption in example.captions}
        assert not lower & {negative.lower() for negative in example.negatives}
    total, swap, unlike, replaced = (int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", data.notes[0]))
    assert total == swap + unlike + replaced == 5000
    assert swap > 4000
    assert 0 < replaced < 250


@pytest.mark.slow
def test_real_counts_tell_test_from_val(test_data):
    splits = {name: read(test_data, name, Options()) for name in ("train", "val", "test")}
    assert {name: (len(split), len(split.captions)) for name, split in splits.items()} == {
        "train": (6000, 30000),
        "val": (1000, 5000),
        "test": (1000, 5000),
    }
    assert splits["test"][0].photo == f"flickr:{splits['test'][0].id.partition('_')[0]}"
    assert len({example.photo for split in splits.values() for example in split}) == 8000
    ids = [{example.id for example in split} for split in splits.values()]
    assert len(set.union(*ids)) == 8000
    assert "9000268201_993b08cb0e.jpg" in splits["test"].notes[0]
    assert splits["val"].notes == ()
    assert len({split.fingerprint for split in splits.values()}) == 3
    with_commas = sum("," in caption for split in splits.values() for caption in split.captions)
    assert 2000 < with_commas <= 2447


def test_captions_of_another_split_to_choose_on(flickr8k_root):
    plain = read(flickr8k_root, "val", Options())
    tuned = read(flickr8k_root, "val", Options(tuning="train"))
    assert (tuned.captions, tuned.pool) == (plain.captions, plain.pool)
    assert (plain.tuning, tuned.counts()["tuning"]) == ((), 3)
    assert all(captions == ("A plain caption .", 'Two dogs , one "red" , run .') for captions in tuned.tuning)
    assert tuned.fingerprint != plain.fingerprint
    assert read(flickr8k_root, "val", Options(tuning="test")).counts()["tuning"] == 1
    assert "tuning" not in Options().model_dump()
    for split in ("val", "all"):
        with pytest.raises(UserError, match=f"would choose on the photos of '{split}'"):
            read(flickr8k_root, split, Options(tuning="val"))
