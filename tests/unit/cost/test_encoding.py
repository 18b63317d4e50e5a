"""What the measurement of encoding compares: the same work, and two evaluations of which the second opens no image."""

import json

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sparc_bench.cards import discovery
from sparc_bench.cost import encoding, flickr8k_photos
from sparc_bench.encoder import Runtime
from sparc_bench.errors import UserError
from sparc_bench.images.item import ImageItem

PHOTOS = 6
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 48, "head_width": 12, "patch_size": 16},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2},
}


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Random weights of an architecture that open_clip knows during the test."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "tiny-vit.json").write_text(json.dumps(TINY))
    for registry in ("_MODEL_CONFIG_PATHS", "_MODEL_CONFIGS"):
        monkeypatch.setattr(open_clip.factory, registry, getattr(open_clip.factory, registry).copy())
    open_clip.add_model_config(tmp_path / "configs")
    monkeypatch.setattr(encoding, "ARCHITECTURE", "tiny-vit")
    monkeypatch.setattr(discovery, "_plugins", {})
    torch.manual_seed(0)
    file = tmp_path / "weights.safetensors"
    save_file(open_clip.create_model("tiny-vit", load_weights=False).state_dict(), file)
    return file


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data" / "flickr8k" / "images"
    folder.mkdir(parents=True)
    for number in range(PHOTOS):
        Image.effect_noise((40 + number, 50), 60 + number).convert("RGB").save(folder / f"{number}.jpg")
    return tmp_path / "data"


def photos(root, **options):
    return flickr8k_photos.read(root, "all", flickr8k_photos.Options(**options))


def test_photos(root):
    data = photos(root)
    assert [example.id for example in data] == [f"{number}.jpg" for number in range(PHOTOS)]
    assert len(data.classes) == len(set(data.classes)) == 100
    assert len(photos(root, n=2)) == 2
    (root / "flickr8k" / "images" / "0.jpg").write_bytes(b"other")
    assert photos(root).fingerprint != data.fingerprint


def test_both_loops_do_the_same_work(weights, root, tmp_path):
    speed = encoding.measure_speed(weights, photos(root), Runtime(batch_size=4), 2, tmp_path)
    assert (speed.images, len(speed.bare), len(speed.harness)) == (PHOTOS, 2, 2)
    assert speed.difference < 1e-5
    assert speed.ratio > 0
    # every turn began with nothing kept, and kept what it computed
    assert [len(list((tmp_path / f"cache{turn}").rglob("*.safetensors"))) for turn in range(3)] == [1, 1, 1]


def test_the_ratio_is_of_speeds_in_pairs():
    assert encoding.Speed(8, (2.0, 3.0, 9.0), (1.0, 3.0, 3.0), 0.0).ratio == 2.0


@pytest.mark.slow
def test_the_second_evaluation_opens_no_image(weights, root, tmp_path, monkeypatch):
    def seconds(prompts):
        return encoding.evaluation_seconds(weights, root, tmp_path, Runtime(batch_size=4), prompts, None)

    def refuse(item):
        raise AssertionError(f"{item.id} was opened")

    assert seconds("bare") > 0
    monkeypatch.setattr(ImageItem, "open", refuse)
    assert seconds("a_photo_of_a") > 0
    with pytest.raises(UserError, match="there already"):
        seconds("bare")
