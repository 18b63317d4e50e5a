import pickle

import pytest

from sparc_bench.datasets.imagenet_corruptions import CORRUPTIONS, SEVERITIES, Options, read
from sparc_bench.errors import UserError
from sparc_bench.facets import Corruptions

CLASSES = {"n1": "one", "n2": "two"}


@pytest.fixture
def corrupted_root(tmp_path, photo, monkeypatch):
    monkeypatch.setattr("sparc_bench.datasets.image_folder.class_list", lambda _: CLASSES)
    for corruption in CORRUPTIONS["validation"]:
        for severity in SEVERITIES:
            for name in ("n1/ILSVRC2012_val_00000001.JPEG", "n2/ILSVRC2012_val_00000002.JPEG"):
                photo(tmp_path / f"imagenet-c/{corruption}/{severity}/{name}", colour=(50 * severity, 0, 0))
    return tmp_path


def test_an_example_is_a_photo_under_all_corruptions(corrupted_root):
    data = read(corrupted_root, "validation", Options())
    assert [(example.id, example.label) for example in data] == [
        ("n1/ILSVRC2012_val_00000001.JPEG", 0),
        ("n2/ILSVRC2012_val_00000002.JPEG", 1),
    ]
    assert data[0].photo == "imagenet:ILSVRC2012_val_00000001"
    assert data.sizes == {"corruptions": 4, "severities": 5, "corrupted_images": 40}
    item = pickle.loads(pickle.dumps(data[1])).facet(Corruptions).version("spatter", 3)
    assert item.id == "spatter/3/n2/ILSVRC2012_val_00000002.JPEG"
    red, green, _ = item.open().getpixel((2, 2))
    assert abs(red - 150) < 5
    assert green < 5
    assert data[1].image.id == data[1].id


def test_files_with_other_endings_are_left_out_and_said(corrupted_root):
    assert read(corrupted_root, "validation", Options()).notes == ()
    (corrupted_root / "imagenet-c/saturate/5/n2/x.jfif").write_bytes(b"some bytes")
    (note,) = read(corrupted_root, "validation", Options()).notes
    assert note == "Files whose endings are no photo's are left out: .jfif (1)."


def test_sets_that_differ_or_are_missing(corrupted_root):
    with pytest.raises(UserError, match=r"gaussian_noise/1 is no folder: the data set needs imagenet-c/CORRUPTION"):
        read(corrupted_root, "test", Options())
    before = read(corrupted_root, "validation", Options()).fingerprint
    lost = corrupted_root / "imagenet-c/saturate/5/n2/ILSVRC2012_val_00000002.JPEG"
    lost.write_bytes(lost.read_bytes() + b" ")
    assert read(corrupted_root, "validation", Options()).fingerprint != before
    lost.rename(lost.with_name("other.JPEG"))
    with pytest.raises(
        UserError, match=r"saturate/5 has other photos than speckle_noise/1 \(n2/ILSVRC.* unpack it again"
    ):
        read(corrupted_root, "validation", Options())
