import json

import pytest

from sparc_bench.datasets.valse_foils import PIECES, Options, read
from sparc_bench.errors import UserError
from tests.unit.datasets.conftest import save_photo

FILES = {
    "visual7w/images/v7w_1.jpg": ("visual7w", ("existence", "counting-hard", "counting-adversarial")),
    "visual7w/images/v7w_2.jpg": ("visual7w", ("counting-small-quant",)),
    "coco/val2017/000000000139.jpg": ("coco2017", ("plurals",)),
    "coco/val2017/000000222235.jpg": ("coco_2017", ("relations",)),
    "swig/images_512/exercising_255.jpg": ("SWiG", ("action-replacement", "actant-swap")),
    "coco/train2014/COCO_train2014_000000000009.jpg": ("VisDial_v1.0", ("coreference-standard",)),
    "coco/val2014/COCO_val2014_000000000042.jpg": ("FOIL dataset", ("foil-it",)),
    "visdial/VisualDialog_val2018/VisualDialog_val2018_000000284024.jpg": ("VisDial_v1.0", ("coreference-hard",)),
}


def row(dataset, file, votes):
    name = file.rpartition("/")[2]
    return {"dataset": dataset, "image_file": name, "caption": "Yes.", "foil": "No.", "mturk": {"caption": votes}}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "valse/data").mkdir(parents=True)
    for file, (dataset, pieces) in FILES.items():
        save_photo(tmp_path / file)
        for piece in pieces:
            rows = {f"item_{votes}": row(dataset, file, votes) for votes in range(4)}
            (tmp_path / f"valse/data/{piece}.json").write_text(json.dumps(rows))
    return tmp_path


def test_validated_items_with_their_own_photos(root):
    data = read(root, "test", Options())
    assert [example.id for example in data] == [f"{piece}/item_{votes}" for piece in PIECES for votes in (2, 3)]
    assert data.sizes == {"items": 22, "photos": 8, **dict.fromkeys(PIECES, 2)}
    photo_of = {example.tags["piece"]: example.photo for example in data}
    assert {piece: photo for piece, photo in photo_of.items() if photo} == {
        "plurals": "coco:139",
        "relations": "coco:222235",
        "coreference-standard": "coco:9",
        "foil-it": "coco:42",
    }
    assert (data[0].captions, data[0].negatives) == (("Yes.",), ("No.",))
    for example in data:
        assert example.image.open().size == (8, 6)


def test_a_part_keeps_every_piece_in_its_counts(root):
    (root / "coco/val2014/COCO_val2014_000000000042.jpg").unlink()
    with pytest.raises(UserError, match=r"^1 of the 8 photos of valse_foils, of 2 of its 22 items"):
        read(root, "test", Options())
    assert read(root, "test", Options(absent="skip")).sizes["foil-it"] == 0


def test_an_unknown_source_of_photos(root):
    path = root / "valse/data/plurals.json"
    path.write_text(json.dumps({"0": row("flickr", "1.jpg", 3)}))
    with pytest.raises(UserError, match=r"plurals\.json has a photo of 'flickr', which VALSE does not"):
        read(root, "test", Options())
