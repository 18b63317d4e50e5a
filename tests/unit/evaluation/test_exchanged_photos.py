"""Photos exchanged in place, under the same names and sizes: records, features and pixels know their contents."""

import dataclasses
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from sparc_bench.datasets import image_folder
from sparc_bench.evaluation.evaluate import Settings, evaluate_encoder
from sparc_bench.feature_cache.cache import FeatureCache
from sparc_bench.files.cache_folder import cache_folder
from sparc_bench.training.pixels import load_pixels
from sparc_bench.two_towers.image_transform import ImageTransform
from sparc_bench.two_towers.open_clip_preprocess import OpenClipPreprocess
from tests.toys.cached import TinyEncoder
from tests.toys.photo_task import photo_task

GLOBAL = frozenset({"global"})
CLASSES = ("cat", "dog")


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(f"{of}/{k}.bmp" for of in CLASSES for k in range(3)):
        file = tmp_path / "data" / "pets" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (40 * number, 255 - 40 * number, 7)).save(file)
    return tmp_path / "data"


def exchange(root, one="cat/0.bmp", other="dog/2.bmp"):
    """Two photos swap their places, and keep all that a listing of files shows."""
    first, second = root / "pets" / one, root / "pets" / other
    times = first.stat()
    contents = first.read_bytes(), second.read_bytes()
    for file, content in zip((first, second), reversed(contents), strict=True):
        file.write_bytes(content)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def read(root):
    return image_folder.read(root, "test", image_folder.Options(folder="pets"))


def features(root, encoder):
    data, cache = read(root), FeatureCache("full")
    found = cache.around(encoder, data).images(data.views, GLOBAL).global_ND
    cache.flush()
    return found


def test_features_of_exchanged_photos_alone_are_computed_again(root):
    features(root, TinyEncoder())
    exchange(root)
    encoder, plain = TinyEncoder(), TinyEncoder()
    found = features(root, encoder)
    assert [count for count, _ in encoder.encoded] == [2]
    np.testing.assert_allclose(found, plain.images(read(root).views, GLOBAL).global_ND, rtol=1e-5)


def test_a_moved_folder_and_other_labels_cost_no_encoding(root, tmp_path):
    features(root, TinyEncoder())
    shutil.move(root, tmp_path / "elsewhere")
    encoder = TinyEncoder()
    features(tmp_path / "elsewhere", encoder)
    assert not encoder.encoded


def test_two_folders_of_equal_names_and_sizes_share_nothing(root, tmp_path):
    shutil.copytree(root, tmp_path / "twin")
    exchange(tmp_path / "twin")
    first, second = features(root, TinyEncoder()), features(tmp_path / "twin", TinyEncoder())
    assert not np.allclose(first[0], second[0])
    assert np.allclose(first[1], second[1])


def test_a_record_of_exchanged_photos_is_not_kept(root, tmp_path):
    card = photo_task("pets")
    settings = Settings(results=tmp_path / "results", data_root=root, cache="full")

    def result():
        encoder = TinyEncoder()
        return evaluate_encoder(encoder, encoder.card, 0, [card], settings)[0]

    first = result()
    assert not first.kept
    assert result().kept
    exchange(root)
    again = result()
    assert not again.kept
    assert again.record.data_hash != first.record.data_hash


def test_pixels_of_exchanged_photos_are_decoded_again(root):
    transform = ImageTransform(OpenClipPreprocess("tiny", (8, 8), "squash"))
    before = np.array(load_pixels(read(root), transform, 0.0).array_NSS3)
    (kept,) = (cache_folder() / "pixels").glob("*.npy")
    captioned = dataclasses.replace(read(root), fingerprint="other captions of the same photos")
    load_pixels(captioned, transform, 0.0)
    assert list((cache_folder() / "pixels").glob("*.npy")) == [kept]
    exchange(root)
    after = np.array(load_pixels(read(root), transform, 0.0).array_NSS3)
    np.testing.assert_array_equal(after[[0, 5]], before[[5, 0]])
    np.testing.assert_array_equal(after[1:5], before[1:5])
