import dataclasses

import pytest
import torch

from sparc_bench.encoder import Runtime, stream
from sparc_bench.errors import UserError
from sparc_bench.feature_cache import cached_encoder
from sparc_bench.features import ImageFeatures
from sparc_bench.images.item import ImageItem
from tests.toys.cached import ALL, TinyEncoder, closed, opened, split_of


@pytest.fixture
def photos(tmp_path):
    return split_of(21, tmp_path / "opened")


@pytest.fixture
def log(tmp_path):
    return tmp_path / "opened"


def equal(one, other):
    assert (one.ids, one.grid) == (other.ids, other.grid)
    pairs = [(one.global_ND, other.global_ND), (one.branches_NKD, other.branches_NKD), (one.area_N4, other.area_N4)]
    pairs += [(one.patches[path], other.patches[path]) for path in one.patches]
    assert list(one.patches) == list(other.patches)
    for a, b in pairs:
        assert (a is None) == (b is None)
        assert a is None or (a.dtype == b.dtype and torch.equal(a, b))


@pytest.mark.slow
@pytest.mark.parametrize("kinds", ["global", "branches", "patches", "global patches", "global branches patches"])
@pytest.mark.parametrize("most", [3, 8, 64])
def test_hits_equal_what_was_computed_in_the_same_runs(new_cache, photos, kinds, most):
    need = frozenset(kinds.split())
    plain = list(TinyEncoder().stream(photos.items, need, most))
    first = new_cache()
    cold = list(first.around(TinyEncoder(), photos).stream(photos.items, need, most))
    first.flush()
    encoder = TinyEncoder()
    warm = list(new_cache().around(encoder, photos).stream(closed(photos), need, most))
    assert not encoder.encoded
    assert len(plain) == len(cold) == len(warm)
    for a, b, c in zip(plain, cold, warm, strict=True):
        equal(a, b)
        equal(a, c)


def test_what_waits_for_a_shard_is_there_already(new_cache, photos):
    cached = new_cache().around(TinyEncoder(), photos)
    whole = cached.images(photos.items, ALL)
    equal(cached.images(closed(photos), ALL), whole)
    equal(cached.images(closed(photos)[5:9], ALL), whole[5:9])


def test_only_what_need_names_is_computed_and_kept(new_cache, photos, cache_root):
    cache, encoder = new_cache(), TinyEncoder()
    cache.around(encoder, photos).images(photos.items, frozenset({"global"}))
    cache.flush()
    assert {need for _, need in encoder.encoded} == {frozenset({"global"})}
    size = sum(file.stat().st_size for file in cache_root.rglob("*.safetensors"))
    assert size < 21 * (24 * 4 + 4 * 4 + 2 * 8) + 1600


def test_only_the_missing_kind_is_computed(new_cache, photos):
    cache, encoder = new_cache(), TinyEncoder()
    cached = cache.around(encoder, photos)
    cached.images(photos.items, frozenset({"global"}))
    encoder.encoded.clear()
    equal(cached.images(photos.items, ALL), TinyEncoder().images(photos.items, ALL))
    assert {need for _, need in encoder.encoded} == {frozenset({"branches", "patches"})}
    equal(cached.images(closed(photos), ALL), TinyEncoder().images(photos.items, ALL))


def test_only_missing_images_are_opened_and_stand_at_their_place(new_cache, photos, log):
    cache, encoder = new_cache(), TinyEncoder()
    cached = cache.around(encoder, photos)
    chosen = [photos.items[number] for number in (4, 3, 11, 20)]
    cached.images(chosen, ALL)
    assert opened(log) == [item.id for item in chosen]
    runs = list(cached.stream(photos.items, ALL, 5))
    assert [len(run) for run in runs] == [5, 3, 5, 3, 5]
    assert sorted(opened(log)) == sorted(item.id for item in photos.items)
    plain = TinyEncoder().images(photos.items, ALL)
    equal(ImageFeatures.concat(runs), plain)
    backwards = photos.items[::-1]
    equal(cached.images(backwards, ALL), TinyEncoder().images(backwards, ALL))


def test_a_shorter_split_is_served_by_a_longer_one_and_the_other_way_round(new_cache, photos, log):
    new_cache().around(TinyEncoder(), photos)
    cache = new_cache()
    cache.around(TinyEncoder(), photos).images(photos.items[:6], ALL)
    cache.flush()
    again = new_cache()
    equal(again.around(TinyEncoder(), photos).images(photos.items, ALL), TinyEncoder().images(photos.items, ALL))
    assert opened(log).count("photo0.jpg") == 2  # by the cached pass once, by the plain one once


def test_an_image_that_stands_there_twice(new_cache, photos):
    items = [photos.items[0], photos.items[1], photos.items[0], *photos.items[:9]]
    cached = new_cache().around(TinyEncoder(), photos)
    for _ in range(2):
        equal(cached.images(items, ALL), TinyEncoder().images(items, ALL))


def test_crops_and_sizes_are_images_of_their_own(new_cache, photos):
    cropped = [dataclasses.replace(item, crop=(2.0, 3.0, 11.0, 12.0)) for item in photos.items]
    cache = new_cache()
    cached = cache.around(TinyEncoder(), photos)
    for items, size in ((photos.items, None), (cropped, None), (photos.items, 32), (cropped, 32)):
        equal(cached.images(items, ALL, size), TinyEncoder().images(items, ALL, size))
    cache.flush()
    again = new_cache().around(TinyEncoder(), photos)
    for items, size in ((photos.items, 32), (cropped, None)):
        shut = [dataclasses.replace(one, crop=item.crop) for one, item in zip(closed(photos), items, strict=True)]
        equal(again.images(shut, ALL, size), TinyEncoder().images(items, ALL, size))
    with pytest.raises(AssertionError, match="was opened"):
        again.images(closed(photos), ALL, 24)


def test_texts(new_cache):
    photos = split_of(0, "none")
    texts = ["a red dog", "two cats", "a red dog", "grass"]
    encoder, cache = TinyEncoder(), new_cache()
    cached = cache.around(encoder, photos)
    plain = TinyEncoder().texts(texts, frozenset({"global"}))
    for _ in range(2):
        found = cached.texts(texts, frozenset({"global"}))
        assert found.texts == plain.texts
        assert torch.equal(found.global_MD, plain.global_MD)
    assert len(encoder.encoded) == 1
    cache.flush()
    other = TinyEncoder()
    again = new_cache().around(other, split_of(0, "none", fingerprint="other photos"))
    assert torch.equal(again.texts(texts, frozenset({"global"})).global_MD, plain.global_MD)
    assert not other.encoded
    # beside others a text is padded otherwise, and its vector may be another in the last bits
    fewer = again.texts(texts[1:], frozenset({"global"}))
    assert torch.equal(fewer.global_MD, TinyEncoder().texts(texts[1:], frozenset({"global"})).global_MD)
    assert len(other.encoded) == 1


def test_texts_are_looked_up_as_many_at_once_as_the_encoder_takes(new_cache):
    texts = [f"text {'x' * (number % 7)} {number}" for number in range(70)]
    encoder = TinyEncoder(runtime=Runtime(batch_size=8))
    cached = new_cache().around(encoder, split_of(0, "none"))
    plain = TinyEncoder(runtime=Runtime(batch_size=8)).texts(texts, frozenset({"global"}))
    assert torch.equal(cached.texts(texts, frozenset({"global"})).global_MD, plain.global_MD)
    assert [count for count, _ in encoder.encoded] == [32, 32, 6]
    more = [*texts[:64], "another text"]
    cached.texts(more, frozenset({"global"}))
    assert [count for count, _ in encoder.encoded] == [32, 32, 6, 1]


def test_tokens_are_not_kept(new_cache):
    cached = new_cache().around(TinyEncoder(), split_of(0, "none"))
    need = frozenset({"global", "tokens"})
    for _ in range(2):
        found, plain = cached.texts(["a cat", "no"], need), TinyEncoder().texts(["a cat", "no"], need)
        assert torch.equal(found.tokens_MLD, plain.tokens_MLD)
        assert torch.equal(found.mask_ML, plain.mask_ML)


def test_half_precision_is_the_same_whether_computed_or_kept(new_cache, photos):
    plain = TinyEncoder().images(photos.items, ALL)
    rounded = dataclasses.replace(
        plain, patches={path: patches.half().float() for path, patches in plain.patches.items()}
    )
    cache = new_cache("half")
    equal(cache.around(TinyEncoder(), photos).images(photos.items, ALL), rounded)
    cache.flush()
    equal(new_cache("half").around(TinyEncoder(), photos).images(closed(photos), ALL), rounded)
    # float32 is never made from what was rounded
    equal(new_cache("full").around(TinyEncoder(), photos).images(photos.items, ALL), plain)


def test_half_precision_takes_half_the_room(new_cache, photos, cache_root):
    sizes = []
    for keep in ("half", "full"):
        cache = new_cache(keep)
        cache.around(TinyEncoder(), photos).images(photos.items, frozenset({"patches"}))
        cache.flush()
        sizes.append(sum(file.stat().st_size for file in cache_root.rglob("*.safetensors")))
    assert 1.75 < (sizes[1] - sizes[0]) / sizes[0] < 2.2


def test_half_precision_that_cannot_hold_a_patch_is_refused(new_cache, photos):
    encoder = TinyEncoder()
    encoder.map = encoder.map * 1e6
    with pytest.raises(UserError, match=r"above 65504.*--cache full"):
        new_cache("half").around(encoder, photos).images(photos.items, ALL)


def test_vectors_alone(new_cache, photos, cache_root):
    cache, encoder = new_cache("vectors"), TinyEncoder()
    plain = TinyEncoder().images(photos.items, ALL)
    for _ in range(2):
        equal(cache.around(encoder, photos).images(photos.items, ALL), plain)
    assert [need for _, need in encoder.encoded] == 3 * [ALL] + 3 * [frozenset({"patches"})]
    found = cache.around(encoder, photos).images(closed(photos), frozenset({"global"}))
    assert torch.equal(found.global_ND, plain.global_ND)
    assert not found.patches


def test_patches_that_leave_no_room_are_not_kept(new_cache, photos, said, monkeypatch):
    monkeypatch.setattr(cached_encoder, "WORTH_SAYING", 100)
    monkeypatch.setattr(cached_encoder, "LEFT_FREE", 2**62)
    cache, encoder = new_cache(), TinyEncoder()
    cached = cache.around(encoder, photos)
    for _ in range(2):
        equal(cached.images(photos.items, ALL), TinyEncoder().images(photos.items, ALL))
    assert len(said) == 1
    assert said[0].startswith("Not kept: the patch vectors of 21 images in ")
    assert said[0].endswith("or leave them out with --cache vectors.")
    assert {need for _, need in encoder.encoded[3:]} == {frozenset({"patches"})}


def test_what_large_patches_take_is_said(new_cache, photos, said, monkeypatch):
    monkeypatch.setattr(cached_encoder, "WORTH_SAYING", 100)
    new_cache().around(TinyEncoder(), photos).images(photos.items, ALL)
    assert said == [s for s in said if s.startswith("Kept: the patch vectors of 21 images in ")]
    assert len(said) == 1


def test_an_encoder_without_stream_or_area(new_cache, photos):
    class Plain:
        """An encoder of a third party that only has the methods of the seam."""

        def __init__(self):
            tiny = TinyEncoder()
            self.identity, self._tiny = {"plain": 1}, tiny
            self.card, self.gives, self.paths = tiny.card, tiny.gives, tiny.paths
            self.prompt_ensemble, self.weights_hash = "embeddings", "plain"
            self.precision, self.device, self.calls = "float32", tiny.device, []

        def images(self, items, need, size=None):
            self.calls.append(len(items))
            return dataclasses.replace(self._tiny.images(items, need, size), area_N4=None)

    plain = Plain()
    cached = new_cache().around(plain, photos)
    for _ in range(2):
        runs = list(stream(cached, photos.items, ALL, 6))
        assert [len(run) for run in runs] == [6, 6, 6, 3]
        equal(ImageFeatures.concat(runs), ImageFeatures.concat(list(stream(Plain(), photos.items, ALL, 6))))
    assert plain.calls == [6, 6, 6, 3]


def test_no_images(new_cache, photos):
    cached = new_cache().around(TinyEncoder(), photos)
    assert list(cached.stream([], ALL, 4)) == []
    with pytest.raises(RuntimeError, match="no images"):
        cached.images([], ALL)


def test_a_stream_that_is_left_early_keeps_what_it_computed(new_cache, photos, log):
    cached = new_cache().around(TinyEncoder(), photos)
    begun = cached.stream(photos.items, ALL, 8)
    next(begun)
    begun.close()
    cached.images(photos.items, ALL)
    assert sorted(opened(log)) == sorted(item.id for item in photos.items)


def test_an_unreadable_image_is_named_and_the_others_are_kept(new_cache, photos, log):
    def broken():
        raise UserError("photo.jpg cannot be decoded: copy the file again.")

    cached = new_cache().around(TinyEncoder(), photos)
    items = [*photos.items[:16], ImageItem("broken", broken)]
    with pytest.raises(UserError, match="copy the file again"):
        cached.images(items, ALL)
    cached.images(photos.items[:16], ALL)
    assert len(opened(log)) == 16
