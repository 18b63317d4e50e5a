import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import save_file

from sparc_bench.cards import discovery
from sparc_bench.errors import UserError
from sparc_bench.outputs import reader
from sparc_bench.outputs.outputs_file import OutputsFile
from tests.unit.outputs.conftest import save_mask

EVERY = frozenset(reader.kinds())


def kind_of(path):
    return reader.read(path, EVERY)[0]


def test_the_kinds_are_the_files_of_the_folder():
    assert sorted(EVERY) == ["captions", "detections", "masks", "similarity"]
    assert all(module.TITLE and module.FORMAT for module in reader.kinds().values())


def test_every_protocol_takes_kinds_that_there_are():
    taken = {name: getattr(discovery.load("protocols", name), "OUTPUTS", {}) for name in discovery.names("protocols")}
    assert {kind for of in taken.values() for kind in of} == EVERY
    assert all(callable(score) for of in taken.values() for score in of.values())
    assert {name for name, of in taken.items() if "similarity" in of} >= {"retrieval", "classification"}


def test_files_are_told_by_what_they_hold(tmp_path, matrix, json_file):
    scores = matrix(["a"], ["x", "y"], np.zeros((1, 2)), name="no_suffix.npz")
    assert kind_of(scores) == "similarity"
    assert kind_of(scores.rename(tmp_path / "masks.json")) == "similarity"
    save_file(
        {"scores": np.zeros((1, 1), dtype=np.float32)},
        tmp_path / "m.safetensors",
        {"image_ids": json.dumps(["a"]), "texts": json.dumps(["x"]), "about": "free words"},
    )
    assert kind_of(tmp_path / "m.safetensors") == "similarity"
    np.savez(tmp_path / "masks.npz", a=np.zeros((2, 3), dtype=np.uint8))
    assert kind_of(tmp_path / "masks.npz") == "masks"
    save_mask(tmp_path / "folder/a.png", np.zeros((2, 3), dtype=np.uint8))
    assert kind_of(tmp_path / "folder") == "masks"
    box = {"image_id": 1, "category_id": 2, "bbox": [0, 0, 1, 1], "score": 0.5}
    assert kind_of(json_file([box])) == "detections"
    assert kind_of(json_file({"a": "a dog"})) == "captions"
    assert kind_of(json_file([{"image_id": 1, "caption": "a dog"}])) == "captions"
    assert kind_of(json_file({"image_id": 1, "caption": "a dog"})) == "captions"
    lines = tmp_path / "captions.jsonl"
    lines.write_text('{"image_id": "a", "caption": "a dog"}\n\n{"image_id": "b", "caption": "a cat"}\n')
    assert kind_of(lines) == "captions"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\x89PNG\r\n", "is no folder, .npz, .safetensors or JSON file"),
        (b"import sys\nprint(1)\n", "is no folder, .npz, .safetensors or JSON file"),
        (b'{"a": 1}', "holds no known outputs: give detections"),
        (b"PK\x03\x04 cut off", "cannot be read as .npz"),
        (b'{"image_id": 1, "caption": "a"}\n{"image_id"\n', "is no JSON Lines file, see its line 2"),
    ],
)
def test_files_that_hold_nothing_known(tmp_path, content, sentence):
    path = tmp_path / "outputs.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        reader.read(path, {"detections"})


def test_missing_files_empty_folders_and_damaged_safetensors(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.json does not exist: check the path"):
        reader.read(tmp_path / "nothing.json", {"masks"})
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="holds no PNG files"):
        reader.read(tmp_path / "folder", {"masks"})
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        reader.read(tmp_path / "cut.safetensors", {"similarity"})


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_pickled_arrays_are_never_opened(tmp_path, matrix):
    path = tmp_path / "matrix.npz"
    np.savez(path, scores=np.zeros((1, 1)), image_ids=np.array(["a"]), texts=np.array([Bomb()], dtype=object))
    with pytest.raises(UserError, match="Python objects, which are never unpickled: save texts"):
        reader.read(path, {"similarity"})
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="is no folder"):
        reader.read(path, {"similarity"})


def test_a_wrong_kind_is_refused_with_the_right_ones(json_file):
    path = json_file({"a": "a dog"})
    with pytest.raises(UserError, match="holds a caption for each image, which this task does not take: give index"):
        reader.read(path, {"masks"})


def test_the_hash_of_a_folder_is_of_names_and_bytes(tmp_path):
    save_mask(tmp_path / "a/one.png", np.zeros((2, 2), dtype=np.uint8))
    save_mask(tmp_path / "a/deep/two.png", np.ones((2, 2), dtype=np.uint8))
    first = OutputsFile.open(tmp_path / "a")
    assert first.folder == ("deep/two.png", "one.png")
    (tmp_path / "a/notes.md").write_text("no mask")
    assert OutputsFile.open(tmp_path / "a").sha256 == first.sha256
    (tmp_path / "a/classes.txt").write_text("x\n")
    with_classes = OutputsFile.open(tmp_path / "a").sha256
    (tmp_path / "a/one.png").rename(tmp_path / "a/three.png")
    assert len({first.sha256, with_classes, OutputsFile.open(tmp_path / "a").sha256}) == 3
