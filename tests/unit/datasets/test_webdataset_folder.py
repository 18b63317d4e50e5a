import io
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from sparc_bench.datasets.webdataset_folder import Options, read
from sparc_bench.errors import UnreadableImageError, UserError

FOLDER = Options(folder="wds_toys")


def photo_bytes(value, kind):
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 6, 3), value, np.uint8)).save(buffer, format=kind)
    return buffer.getvalue()


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))


@pytest.fixture
def toys_root(tmp_path):
    home = tmp_path / "wds_toys"
    write_tar(
        home / "test/0.tar",
        {
            "s0.cls": b"1",
            "s0.webp": photo_bytes(10, "png"),
            "s1.jpg": photo_bytes(20, "jpeg"),
            "s1.cls": b"0\n",
            "s1.json": b"{}",
        },
    )
    write_tar(home / "test/1.tar", {"s0.png": photo_bytes(30, "png"), "s0.cls": b"2"})
    write_tar(home / "train/0.tar", {"t0.png": photo_bytes(40, "png"), "t0.cls": b"0"})
    (home / "test/nshards.txt").write_text("2\n")
    (home / "train/nshards.txt").write_text("1")
    (home / "classnames.txt").write_text("toy ball\ntoy car\ntoy duck\n")
    return tmp_path


def test_photos_open_from_the_tar_by_their_place(toys_root):
    data = read(toys_root, "test", FOLDER)
    assert data.classes == ("toy ball", "toy car", "toy duck")
    assert [(example.id, example.label) for example in data] == [("0/s0", 1), ("0/s1", 0), ("1/s0", 2)]
    values = [np.asarray(pickle.loads(pickle.dumps(item)).open())[0, 0, 0] for item in data.views]
    assert values == [10, 20, 30]
    assert len(pickle.dumps(data[0].image)) < 1000, "an item holds its place, not its photo"


def test_two_splits_are_tagged(toys_root):
    data = read(toys_root, "train+test", FOLDER)
    assert [(example.id, example.tags["split"]) for example in data][:2] == [
        ("train/0/t0", "train"),
        ("test/0/s0", "test"),
    ]
    assert data.sizes == {"train": 1, "test": 3}


def test_a_class_list_stands_for_names_that_repeat(toys_root, monkeypatch):
    (toys_root / "wds_toys/classnames.txt").write_text("missile\ncar\nmissile\n")
    with pytest.raises(UserError, match="has missile more than once: set the reader's option classes"):
        read(toys_root, "test", FOLDER)
    names = {"n1": "missile", "n2": "car", "n3": "missile"}
    monkeypatch.setattr("sparc_bench.datasets.webdataset_folder.class_list", lambda _: names)
    assert read(toys_root, "test", Options(folder="wds_toys", classes="toys")).classes == ("n1", "n2", "n3")


def test_labels_names_and_contents_are_in_the_fingerprint(toys_root):
    home = toys_root / "wds_toys"
    found = {read(toys_root, "test", FOLDER).fingerprint}
    write_tar(home / "test/1.tar", {"s0.png": photo_bytes(30, "png"), "s0.cls": b"1"})
    found.add(read(toys_root, "test", FOLDER).fingerprint)
    write_tar(home / "test/1.tar", {"s0.jpg": photo_bytes(30, "jpeg"), "s0.cls": b"1"})
    found.add(read(toys_root, "test", FOLDER).fingerprint)
    (home / "classnames.txt").write_text("toy ball\ntoy car\ntoy goose\n")
    found.add(read(toys_root, "test", FOLDER).fingerprint)
    assert len(found) == 4


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"test/nshards.txt": "two"}, r"nshards\.txt holds 'two': write the number of tar files in it\.$"),
        ({"test/nshards.txt": "9" * 5000}, r"nshards\.txt holds '9999.*: write the number of tar files in it\.$"),
        ({"test/1.tar": {"s0.png": b"x", "s0.cls": b"9" * 5000}}, r"holds '9999.*: it needs the number"),
        ({"test/nshards.txt": "3"}, r"2\.tar does not exist: the data set needs wds_NAME/"),
        ({"test/1.tar": "no tar"}, r"1\.tar is no tar file that can be read .*: copy it again\.$"),
        ({"test/1.tar": {"s0.cls": b"1"}}, r"1\.tar has 1 keys without a photo or a label \(s0\): each needs"),
        ({"test/1.tar": {"s0.png": b"x"}}, r"1\.tar has 1 keys without a photo or a label \(s0\)"),
        ({"test/1.tar": {"read.me": b"1"}}, r"1\.tar holds no photos: the data set needs"),
        ({"test/1.tar": {"s0.png": b"x", "s0.cls": b"3"}}, r"s0\.cls in .* holds '3': it needs .* one of 3 classes"),
        ({"test/1.tar": {"s0.png": b"x", "s0.cls": b"cat"}}, r"holds 'cat': it needs the number"),
        ({"test/1.tar": {"s0.png": b"x", "s0.jpg": b"x", "s0.cls": b"1"}}, r"has two photos named s0: write it again"),
    ],
)
def test_another_layout_is_one_sentence(toys_root, change, sentence):
    for name, content in change.items():
        path = toys_root / "wds_toys" / name
        if isinstance(content, dict):
            write_tar(path, content)
        else:
            path.write_text(content)
    with pytest.raises(UserError, match=sentence) as error:
        read(toys_root, "test", FOLDER)
    assert "\n" not in str(error.value)


def test_a_damaged_photo_is_named_by_tar_and_byte(toys_root):
    write_tar(toys_root / "wds_toys/test/1.tar", {"s0.png": b"no photo", "s0.cls": b"1"})
    data = read(toys_root, "test", FOLDER)
    with pytest.raises(UnreadableImageError, match=r"The photo at byte 512 of .*1\.tar cannot be decoded"):
        data[2].image.open()
