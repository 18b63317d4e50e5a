import pickle

import numpy as np
import pytest
from PIL import Image

from sparc_bench.datasets.mask_folders import VOID, Options, read
from sparc_bench.errors import UnreadableImageError, UserError
from tests.unit.datasets.conftest import save_photo

CLASSES = ["road", "car", "tree"]
VALUES = [[0, 1, 2, 255], [2, 0, 255, 3]]


def save_mask(path, values, palette=False):
    mask = Image.fromarray(np.array(values, dtype=np.uint16 if np.max(values) > 255 else np.uint8))
    if palette:
        mask.putpalette([channel for value in range(256) for channel in (value, 255 - value, 7)])
    path.parent.mkdir(parents=True, exist_ok=True)
    mask.save(path)


@pytest.fixture
def masks_home(tmp_path):
    """Two photos of 4 x 2 pixels with masks, in folders of two cities, and the names of three classes."""
    home = tmp_path / "mask_folders"
    for name in ("bonn/b", "aachen/a"):
        save_photo(home / f"images/val/{name}.jpg", size=(4, 2))
        save_mask(home / f"masks/val/{name}.png", VALUES)
    (home / "classes.txt").write_text("\n".join(CLASSES))
    return home


@pytest.fixture
def masks_root(masks_home):
    return masks_home.parent


@pytest.fixture
def home(masks_home):
    return masks_home


@pytest.fixture
def root(masks_root):
    return masks_root


def semantic(root, **options):
    return read(root, "val", Options(**options))[0].semantic().tolist()


@pytest.mark.parametrize(
    ("options", "classes"),
    [
        ({"others": "void"}, [[0, 1, 2, -2], [2, 0, -2, -2]]),
        ({"others": "background"}, [[0, 1, 2, -2], [2, 0, -2, -1]]),
        ({"zero": "background"}, [[-1, 0, 1, -2], [1, -1, -2, 2]]),
        ({"zero": "void"}, [[-2, 0, 1, -2], [1, -2, -2, 2]]),
        ({"zero": "void", "void": (2, 255)}, "mask value 2 is the class 'car'"),
        ({"zero": "void", "values": (3, 2, 1)}, [[-2, 2, 1, -2], [1, -2, -2, 0]]),
        ({"zero": "background", "values": (3, 2, 255), "void": ()}, "holds the value 1, which is no class"),
        ({"zero": "background", "values": (3, 255, 2), "void": (1,)}, [[-1, -2, 2, 1], [2, -1, 1, 0]]),
        ({"values": (2, 0, 1), "void": (3, 255)}, [[1, 2, 0, -2], [0, 1, -2, -2]]),
        ({"values": (1, 2, 3), "others": "background"}, [[-1, 0, 1, -2], [1, -1, -2, 2]]),
        ({"values": (2, 60_000, 1), "others": "void", "void": ()}, [[-2, 2, 0, -2], [0, -2, -2, -2]]),
    ],
)
def test_values_mean_what_the_options_say(root, options, classes):
    if isinstance(classes, str):
        with pytest.raises(UserError, match=classes):
            semantic(root, **options)
    else:
        assert semantic(root, **options) == classes


def test_reduced_zero_labels_are_those_of_mmsegmentation(home, root):
    values = np.arange(256, dtype=np.uint8).reshape(2, 128)
    for folder, save in (("images", save_photo), ("masks", save_mask)):
        for name in ("aachen/a", "bonn/b"):
            path = home / f"{folder}/val/{name}"
            save(path.with_suffix(".jpg"), size=(128, 2)) if save is save_photo else save(
                path.with_suffix(".png"), values
            )
    (home / "classes.txt").write_text("\n".join(f"class {number}" for number in range(150)))
    reduced = np.where(values == 0, 255, values) - 1  # LoadAnnotations with reduce_zero_label: 0 and 255 become 255
    reduced = np.where(reduced == 254, 255, reduced)
    found = np.array(semantic(root, zero="void", others="void"))
    assert np.array_equal(found, np.where(reduced < 150, reduced.astype(int), VOID))


def test_examples_are_sorted_or_in_the_order_of_a_list(home, root):
    data = read(root, "val", Options(zero="void", photo_names="city"))
    assert [example.id for example in data] == ["aachen/a", "bonn/b"]
    assert [example.photo for example in data] == ["city:aachen/a", "city:bonn/b"]
    assert data.classes == ("road", "car", "tree")
    assert {key: data.counts()[key] for key in ("images", "masks", "classes")} == {
        "images": 2,
        "masks": 2,
        "classes": 3,
    }
    (home / "val.txt").write_text("bonn/b\naachen/a\n")
    listed = read(root, "val", Options(zero="void", listed="{split}.txt"))
    assert [example.id for example in listed] == ["bonn/b", "aachen/a"]
    again = pickle.loads(pickle.dumps(listed))
    assert again[1].semantic().tolist() == listed[1].semantic().tolist()
    assert again[1].image.open().size == (4, 2)


def test_coco_photos_have_their_name_across_data_sets(home, root):
    save_photo(home / "images/val/000000000139.jpg", size=(4, 2))
    save_mask(home / "masks/val/000000000139.png", VALUES)
    assert [example.photo for example in read(root, "val", Options())] == ["coco:139", "", ""]


def test_photos_without_masks_and_masks_without_photos(home, root):
    save_photo(home / "images/val/bonn/alone.jpg", size=(4, 2))
    assert [example.id for example in read(root, "val", Options(listed="masks"))] == ["aachen/a", "bonn/b"]
    with pytest.raises(UserError, match=r'1 of 3 files .*masks/val, such as bonn/alone\.png: .* absent = "skip"'):
        read(root, "val", Options())
    skipped = read(root, "val", Options(absent="skip"))
    assert [example.id for example in skipped] == ["aachen/a", "bonn/b"]
    assert skipped.notes == ("1 of 3 files (1 annotations) are absent and left out: bonn/alone.png.",)
    (home / "images/val/aachen/a.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 2 files .*images/val, such as aachen/a\.jpg"):
        read(root, "val", Options(listed="masks"))


def break_mask(home, how):
    path = home / "masks/val/bonn/b.png"
    if how == "size":
        save_mask(path, [[0, 1], [2, 0]])
    elif how == "turned":
        save_mask(path, np.transpose(VALUES))
    elif how == "colours":
        save_mask(path, VALUES, palette=True)
        Image.open(path).convert("RGB").save(path)
    elif how == "label":
        save_mask(path, [[0, 1, 2, 77], [2, 0, 255, 3]])
    elif how == "deep label":
        save_mask(path, [[0, 1, 2, 256], [2, 0, 255, 3]])
    else:
        path.write_bytes(path.read_bytes()[:40])


BAD = [
    ("size", UserError, r"bonn/b\.jpg has 4 x 2 pixels, its mask in .* states 2 x 2"),
    ("turned", UserError, r"bonn/b\.jpg has 4 x 2 pixels, its mask in .* states 2 x 4"),
    ("colours", UserError, r"bonn/b\.png holds colours \(RGB\), not class numbers: save the numbers themselves"),
    ("label", UserError, r"bonn/b\.png holds the value 77, which is no class"),
    ("deep label", UserError, r"bonn/b\.png holds the value 256, which is no class"),
    ("damage", UnreadableImageError, r"bonn/b\.png cannot be decoded .*: copy the file again"),
]


@pytest.mark.parametrize(("how", "error", "sentence"), BAD)
def test_bad_masks_are_refused_by_the_name_of_their_file(home, root, how, error, sentence):
    break_mask(home, how)
    with pytest.raises(error, match=sentence):
        [example.semantic() for example in read(root, "val", Options(zero="void"))]


@pytest.mark.parametrize(("how", "error", "sentence"), BAD)
def test_bad_masks_are_left_out_and_counted_where_asked(home, root, how, error, sentence):
    whole = read(root, "val", Options(zero="void", bad="skip"))
    assert (len(whole), whole.notes) == (2, ())
    break_mask(home, how)
    part = read(root, "val", Options(zero="void", bad="skip"))
    assert [example.id for example in part] == ["aachen/a"]
    (note,) = part.notes
    assert note.startswith("1 of 2 masks are bad and left out with their photos: bonn/b; the first: ")
    assert "bonn/b" in note.partition("the first: ")[2]
    assert part.fingerprint != whole.fingerprint
    (home / "images/val/aachen/a.jpg").unlink()
    with pytest.raises(UserError, match=r"^All 1 masks are bad; the first: "):
        read(root, "val", Options(zero="void", bad="skip", absent="skip"))


def test_sound_masks_read_alike_with_and_without_skipping(root):
    refused, skipped = (read(root, "val", Options(zero="void", bad=bad)) for bad in ("refuse", "skip"))
    assert refused.fingerprint == skipped.fingerprint
    assert [example.semantic().tolist() for example in refused] == [example.semantic().tolist() for example in skipped]


@pytest.mark.parametrize("palette", [False, True])
def test_a_palette_changes_no_class(home, root, palette):
    save_mask(home / "masks/val/aachen/a.png", VALUES, palette)
    assert semantic(root, zero="void") == [[-2, 0, 1, -2], [1, -2, -2, 2]]


def test_class_lists_that_do_not_fit(home, root):
    with pytest.raises(UserError, match=r"values has 2 mask values for the 3 classes of 'classes\.txt': give each"):
        read(root, "val", Options(values=(1, 2)))
    with pytest.raises(UserError, match="values has 2 more than once"):
        read(root, "val", Options(values=(1, 2, 2)))
    with pytest.raises(UserError, match="The mask value 0 is the class 'road' and not a class"):
        read(root, "val", Options(values=(0, 1, 2), zero="void"))
    with pytest.raises(UserError, match="There is no class list 'voc2': did you mean 'voc20'"):
        read(root, "val", Options(classes="voc2"))
    (home / "classes.txt").write_text("road\ncar\nroad\n")
    with pytest.raises(UserError, match=r"classes\.txt lists road more than once"):
        read(root, "val", Options())
    (home / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"classes\.txt does not exist: the data set needs a folder of photos"):
        read(root, "val", Options())


def test_too_short_a_class_list_is_found_in_the_masks(home, root):
    (home / "classes.txt").write_text("road\ncar\n")
    with pytest.raises(UserError, match=r"aachen/a\.png holds the value 3, which is no class"):
        semantic(root, zero="void")


def test_missing_folders(root):
    with pytest.raises(UserError, match=r"images/train is no folder: the data set needs a folder of photos"):
        read(root, "train", Options())
    with pytest.raises(UserError, match=r"images/val has no file whose name ends in '\.webp'"):
        read(root, "val", Options(image_suffix=".webp"))


def test_another_mask_or_class_name_changes_the_fingerprint(home, root):
    before = read(root, "val", Options(zero="void")).fingerprint
    (home / "classes.txt").write_text("road\ncar\nplant\n")
    renamed = read(root, "val", Options(zero="void")).fingerprint
    save_mask(home / "masks/val/aachen/a.png", [[0, 1, 2, 255], [2, 0, 255, 1]])
    assert len({before, renamed, read(root, "val", Options(zero="void")).fingerprint}) == 3
