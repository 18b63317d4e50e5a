import pickle
from hashlib import sha256

import pytest
from PIL import Image

from sparc_bench.cards import prompts
from sparc_bench.datasets.image_folder import Options, read
from sparc_bench.errors import UserError


@pytest.fixture
def pets_root(tmp_path, photo):
    """Two splits of two classes; `train` has three photos of each class, one of them in a folder below."""
    for split, names in {"train": ["b.jpg", "a.JPEG", "deeper/c.png"], "test": ["d.webp"]}.items():
        for colour, animal in enumerate(("dog", "cat")):
            for name in names:
                photo(tmp_path / f"pets/{split}/{animal}/{name}", colour=(90 * colour, 10, 200))
    (tmp_path / "pets/train/dog/notes.txt").write_text("no photo")
    (tmp_path / "pets/train/dog/._a.jpg").write_text("no photo either")
    (tmp_path / "pets/train/.hidden").mkdir()
    return tmp_path


def test_photos_by_class_and_name(pets_root):
    data = read(pets_root, "train", Options(folder="pets/{split}", photo_names="pets"))
    assert data.classes == ("cat", "dog")
    assert [example.id for example in data] == [
        *("cat/a.JPEG", "cat/b.jpg", "cat/deeper/c.png"),
        *("dog/a.JPEG", "dog/b.jpg", "dog/deeper/c.png"),
    ]
    assert [example.label for example in data] == [0, 0, 0, 1, 1, 1]
    assert data[2].photo == "pets:c"
    assert not data[2].tags
    again = pickle.loads(pickle.dumps(data[3])).image.open()
    assert (again.mode, again.size) == ("RGB", (8, 6))
    assert data.counts()["images"] == 6


def test_files_with_other_endings_are_left_out_and_said(pets_root):
    for name in ("x.gif", "y.JFIF", "deeper/z.jfif", "w"):
        (pets_root / "pets/train/cat" / name).write_bytes(b"some bytes")
    (note,) = read(pets_root, "train", Options(folder="pets/{split}")).notes
    assert note == "Files whose endings are no photo's are left out: .jfif (2), .gif (1), no ending (1), .txt (1)."
    assert read(pets_root, "test", Options(folder="pets/{split}")).notes == ()


def test_two_splits_are_tagged_whatever_the_second_is_called(pets_root):
    data = read(pets_root, "train+test", Options(folder="pets/{split}"))
    assert [example.tags["split"] for example in data] == ["train"] * 6 + ["test"] * 2
    assert data[0].id == "train/cat/a.JPEG"
    assert (data.counts()["train"], data.counts()["test"]) == (6, 2)
    (pets_root / "pets/test").rename(pets_root / "pets/val")
    assert read(pets_root, "train+val", Options(folder="pets/{split}"))[-1].tags == {"split": "test"}


def test_a_folder_without_train_part_gives_photos_drawn_by_their_paths(pets_root):
    data = read(pets_root, "train", Options(folder="pets/{split}", train_per_class=2))
    assert data.sizes == {"train": 4, "test": 2}
    for name in data.classes:
        paths = [example.id for example in data if data.classes[example.label] == name]
        last = max(paths, key=lambda path: sha256(path.encode()).digest())
        assert [example.id for example in data if example.id in paths and example.tags["split"] == "test"] == [last]


def test_a_class_list_decides_classes_and_order(pets_root, monkeypatch):
    lists = {"animals": {"dog": "a dog", "cat": "a cat"}, "more": {"dog": "", "cat": "", "emu": ""}, "few": {"dog": ""}}
    monkeypatch.setattr("sparc_bench.datasets.image_folder.class_list", lists.__getitem__)
    data = read(pets_root, "test", Options(folder="pets/{split}", classes="animals"))
    assert data.classes == ("dog", "cat")
    assert [(example.id, example.label) for example in data] == [("dog/d.webp", 0), ("cat/d.webp", 1)]
    with pytest.raises(UserError, match=r"lacks 1 of the 3 class folders of 'more' \(emu\): complete it"):
        read(pets_root, "test", Options(folder="pets/{split}", classes="more"))
    with pytest.raises(UserError, match=r"1 folders of no class of 'few' \(cat\): move them away"):
        read(pets_root, "test", Options(folder="pets/{split}", classes="few"))


def test_numbered_folders_are_read_as_numbers(tmp_path, photo, monkeypatch):
    for number in range(12):
        photo(tmp_path / f"v2/{number}/x{number}.jpeg")
    data = read(tmp_path, "test", Options(folder="v2", named="by number"))
    assert data.classes == tuple(map(str, range(12)))
    assert [example.id for example in data][1:3] == ["1/x1.jpeg", "2/x2.jpeg"]
    names = {f"class {letter}": "" for letter in "lkjihgfedcba"}
    monkeypatch.setattr("sparc_bench.datasets.image_folder.class_list", lambda _: names)
    named = read(tmp_path, "test", Options(folder="v2", named="by number", classes="letters"))
    assert named.classes == tuple(names)
    assert (named[10].id, named[10].label) == ("10/x10.jpeg", 10)
    (tmp_path / "v2/other").mkdir()
    with pytest.raises(UserError, match=r"folders that are no numbers \(other\): move them away"):
        read(tmp_path, "test", Options(folder="v2", named="by number"))


def test_mistakes_on_disk_are_one_sentence(pets_root):
    (pets_root / "pets/test/cat/d.webp").unlink()
    with pytest.raises(UserError, match=r"cat has no photo of the class 'cat': it needs FOLDER/CLASS"):
        read(pets_root, "test", Options(folder="pets/{split}"))
    with pytest.raises(UserError, match=r"names one: put \{split\} where their names differ, or set train_per_class"):
        read(pets_root, "train+test", Options(folder="pets/train"))
    (pets_root / "pets/test/emu").mkdir()
    Image.new("RGB", (2, 2)).save(pets_root / "pets/test/cat/d.png")
    with pytest.raises(UserError, match=r"has other classes than its 'train' \(emu\): complete both"):
        read(pets_root, "train+test", Options(folder="pets/{split}"))
    with pytest.raises(UserError, match="has no folders: put"):
        read(pets_root, "train", Options(folder="pets/{split}/cat/deeper"))


def test_the_fingerprint_knows_names_and_contents_not_tags(pets_root):
    options = Options(folder="pets/{split}")
    before = read(pets_root, "train", options).fingerprint
    assert read(pets_root, "train", options.model_copy(update={"train_per_class": 1})).fingerprint == before
    Image.new("RGB", (9, 9)).save(pets_root / "pets/train/cat/b.jpg")
    assert read(pets_root, "train", options).fingerprint != before


def test_imagenet_lists_are_sorted_wordnet_ids_with_the_names_of_clip():
    whole = prompts.class_list("imagenet")
    assert list(whole) == sorted(whole)
    assert len(whole) == 1000
    assert (whole["n01440764"], whole["n03126707"], whole["n02012849"]) == ("tench", "construction crane", "crane bird")
    for name in ("imagenet_a", "imagenet_r"):
        part = prompts.class_list(name)
        assert len(part) == 200
        assert list(part) == sorted(part)
        assert part.items() <= whole.items()
    assert prompts.class_list("imagenet_a") != prompts.class_list("imagenet_r")


def test_the_sample_of_imagenet(test_data):
    data = read(test_data, "all", Options(folder="imagenet1k_sample", classes="imagenet"))
    assert len(data) == len(data.classes) == 1000
    assert [example.label for example in data] == list(range(1000))
    words = prompts.class_words("imagenet", data.classes)
    assert (data[0].id, words[0]) == ("n01440764/n01440764_tench.jpg", "tench")
    assert sorted(words[i] for i in range(1000) if words.count(words[i]) > 1) == ["missile"] * 2 + ["sunglasses"] * 2
