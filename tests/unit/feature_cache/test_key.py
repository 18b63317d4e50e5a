"""A change of anything that decides a vector misses; nothing else does."""

import dataclasses

import pytest
import torch

from sparc_bench.encoder import Runtime
from sparc_bench.feature_cache import key
from sparc_bench.images.item import ImageItem
from sparc_bench.images.view import View
from tests.toys.cached import ALL, TinyEncoder, closed, refuse, split_of

GLOBAL = frozenset({"global"})


@pytest.fixture
def photos(tmp_path):
    return split_of(3, tmp_path / "opened")


@pytest.fixture
def first(new_cache, photos):
    cache = new_cache()
    cached = cache.around(TinyEncoder(), photos)
    cached.images(photos.views, ALL)
    cached.texts(["a cat"], GLOBAL)
    cache.flush()


def on_another_device(encoder):
    encoder.device = torch.device("meta")
    return encoder


def of_other_code(encoder):
    encoder.code_hash = "of the plug-in's file"
    return encoder


MISSES = {
    "weights": lambda: TinyEncoder(weights="tiny 1"),
    "options of the card": lambda: TinyEncoder({"patches": "value"}),
    "preprocessing": lambda: TinyEncoder(identity=("preprocess", {"size": 32})),
    "version of the encoder's code": lambda: TinyEncoder(identity=("tiny", 2)),
    "code of a plug-in": lambda: of_other_code(TinyEncoder()),
    "precision": lambda: TinyEncoder(runtime=Runtime(precision="bf16", batch_size=8)),
    "device": lambda: on_another_device(TinyEncoder()),
}


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize("change", MISSES)
def test_a_change_of_the_encoder_misses(new_cache, photos, change):
    cached = new_cache().around(MISSES[change](), photos)
    with pytest.raises(AssertionError, match="was opened"):
        cached.images(closed(photos), ALL)


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize("change", [c for c in MISSES if c != "device"])
def test_a_change_of_the_encoder_misses_for_texts(new_cache, photos, change):
    encoder = MISSES[change]()
    new_cache().around(encoder, photos).texts(["a cat"], GLOBAL)
    assert encoder.encoded


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize("about", [{"fingerprint": "photos 2"}, {"dataset": "others"}, {"split": "train"}])
def test_a_change_of_the_data_misses(new_cache, photos, about):
    cached = new_cache().around(TinyEncoder(), dataclasses.replace(photos, **about))
    with pytest.raises(AssertionError, match="was opened"):
        cached.images(closed(photos), ALL)


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize("what", ["VERSION", "library_versions"])
def test_a_change_of_our_code_or_of_a_library_misses(new_cache, photos, monkeypatch, what):
    monkeypatch.setattr(key, what, key.VERSION + 1 if what == "VERSION" else lambda _: {"torch": "0.1"})
    with pytest.raises(AssertionError, match="was opened"):
        new_cache().around(TinyEncoder(), photos).images(closed(photos), ALL)


@pytest.mark.usefixtures("first")
def test_what_decides_no_vector_hits(new_cache, photos):
    other = dataclasses.replace(photos, classes=("cat",), notes=("a note",), examples=photos.examples[:2])
    encoder = TinyEncoder(runtime=Runtime(batch_size=2, workers=1))
    encoder.card = encoder.card.model_copy(update={"name": "another", "title": "Another"})
    new_cache().around(encoder, other).images(closed(photos), ALL)
    assert not encoder.encoded


def test_splits_of_the_same_pixels_share(new_cache, tmp_path):
    cache = new_cache()
    one, two = (split_of(3, tmp_path / "log", fingerprint=name, pixels_hash="the same") for name in ("a", "b"))
    cache.around(TinyEncoder(), one).images(one.views, ALL)
    cache.around(TinyEncoder(), two).images(closed(two), ALL)


@pytest.mark.parametrize("keep", ["full", "off"])
def test_an_encoder_that_does_not_say_what_decides_a_vector_is_left_alone(new_cache, photos, keep):
    nameless = TinyEncoder(identity=None if keep == "full" else ("tiny", 1))
    assert new_cache(keep).around(nameless, photos) is nameless


def test_data_without_a_fingerprint_is_not_kept(new_cache, tmp_path):
    unknown = split_of(3, tmp_path / "log", fingerprint="")
    cached = new_cache().around(TinyEncoder(), unknown)
    cached.images(unknown.views, ALL)
    with pytest.raises(AssertionError, match="was opened"):
        cached.images([View(ImageItem(item.id, lambda: refuse("it"))) for item in unknown.views], ALL)


def test_initial_weights_have_a_key_of_their_own(new_cache, photos):
    cached = new_cache().around(TinyEncoder(), photos)
    untrained = cached.untrained()
    one = cached.images(photos.views, ALL)
    other = untrained.images(photos.views, ALL)
    assert not torch.equal(one.global_ND, other.global_ND)
    assert torch.equal(untrained.images(closed(photos), ALL).global_ND, other.global_ND)
