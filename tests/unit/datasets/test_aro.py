import json

import numpy as np
import pytest

from sparc_bench.datasets.aro import Options, order_caption, read
from sparc_bench.errors import UserError
from tests.unit.datasets.conftest import save_photo

BOX = {"bbox_x": 2, "bbox_y": 1, "bbox_w": 4, "bbox_h": 3}
CAPTIONS = {"true_caption": "the dog is behind the car", "false_caption": "the car is behind the dog"}


def case(image="7.jpg", **about):
    return {"image_id": "7", "image_path": image, **BOX, **CAPTIONS, **about}


def write(root, name, content):
    path = root / "aro" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def root(tmp_path):
    save_photo(tmp_path / "aro/images/7.jpg")
    save_photo(tmp_path / "coco/val2014/COCO_val2014_000000000139.jpg")
    save_photo(tmp_path / "flickr30k/images/1007129816.jpg")
    write(tmp_path, "visual_genome_relation.json", [case(relation_name="behind"), case(relation_name="by", bbox_w=5)])
    write(tmp_path, "visual_genome_attribution.json", [case(attributes=["open", "brown"])])
    options = ["A man (left) rides a horse!\n", "rides a horse", "a b", "b a", "A man left rides a horse"]
    write(tmp_path, "coco_order.json", [{"image": "val2014/COCO_val2014_000000000139.jpg", "caption_options": options}])
    write(tmp_path, "flickr_order.json", [{"image": "flickr30k-images/1007129816.jpg", "caption_options": options}])
    return tmp_path


def test_a_part_of_a_photo_is_cropped(root):
    data = read(root, "vg_relation", Options())
    assert [example.id for example in data] == ["vg_relation/0", "vg_relation/1"]
    assert [example.tags for example in data] == [{"relation": "behind"}, {"relation": "by"}]
    assert (data[0].image.id, data[0].window) == ("7.jpg", (2.0, 1.0, 6.0, 4.0))
    cropped = data[0].view.open()
    assert cropped.size == (4, 3)
    whole = read(root, "vg_relation", Options()).examples[0].image.open()
    assert np.array_equal(np.asarray(cropped), np.asarray(whole)[1:4, 2:6])
    assert (data[0].captions, data[0].negatives) == ((CAPTIONS["true_caption"],), (CAPTIONS["false_caption"],))
    assert (data.sizes["items"], data.sizes["photos"], data[0].photo) == (2, 1, "")


def test_attributes_are_a_pair(root):
    data = read(root, "vg_attribution", Options())
    assert data[0].tags == {"attributes": "open_brown"}


def test_order_captions_are_stored_and_normalised(root):
    data = read(root, "coco_order", Options())
    assert data[0].captions == ("a man left rides a horse",)
    assert data[0].negatives == ("rides a horse", "a b", "b a", "a man left rides a horse")
    assert data[0].photo == "coco:139"
    assert read(root, "flickr_order", Options())[0].photo == "flickr:1007129816"
    (root / "aro/coco_order.json").unlink()
    with pytest.raises(UserError, match="need a stored draw of shuffled captions; run"):
        read(root, "coco_order", Options())


def test_normalising_an_order_caption():
    assert order_caption("A dog.  Sits #1; (here)~\n") == "a dog sits 1 here"
    assert order_caption("don't, it's") == "don't, it's"
    long = " ".join(f"w{k}" for k in range(40))
    assert order_caption(long) == " ".join(f"w{k}" for k in range(30))
    for text in ("A dog.\n", ' "Two"  cats!', long):
        assert order_caption(order_caption(text)) == order_caption(text)


@pytest.mark.parametrize(
    ("split", "content", "sentence"),
    [
        ("vg_relation", [case(attributes=["open", "brown"])], "Case 0 of vg_relation says no relation"),
        ("vg_attribution", [case(relation_name="by")], "Case 0 of vg_attribution says no attributes"),
        ("vg_relation", [case(relation_name="by", bbox_w=0)], r"at 0\.bbox_w"),
        ("coco_order", [{"image": "a.jpg", "caption_options": ["one"]}], r"at 0\.caption_options"),
    ],
)
def test_malformed_files(root, split, content, sentence):
    names = {"vg_relation": "visual_genome_relation", "vg_attribution": "visual_genome_attribution"}
    write(root, f"{names.get(split, split)}.json", content)
    with pytest.raises(UserError, match=sentence):
        read(root, split, Options())


def test_a_box_outside_of_the_photo(root):
    save_photo(root / "aro/images/7.jpg", size=(2, 1))
    with pytest.raises(UserError, match=r"The box \[2, 1, 6, 4\] .* lies outside of the image 7\.jpg, which has 2 x 1"):
        read(root, "vg_relation", Options())[0].view.open()
