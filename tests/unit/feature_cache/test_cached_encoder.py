import dataclasses

import pytest
import torch

from sparc_bench.encoder import Encoder, Runtime
from sparc_bench.errors import UserError
from sparc_bench.feature_cache import cached_encoder
from sparc_bench.feature_cache.columns import image_row
from sparc_bench.features import ImageFeatures
from sparc_bench.images.item import ImageItem
from sparc_bench.images.view import View
from tests.toys.cached import ALL, TinyEncoder, closed, opened, split_of
from tests.toys.views import sized


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


def groups(views):
    return [views[:11], [], views[11:]]


@pytest.mark.slow
@pytest.mark.parametrize("kinds", ["global", "branches", "patches", "global patches", "global branches patches"])
@pytest.mark.parametrize("batch_size", [3, 8, 64])
def test_hits_equal_what_was_computed_in_the_same_batches(new_cache, photos, kinds, batch_size):
    need, runtime = frozenset(kinds.split()), Runtime(batch_size=batch_size)
    plain = list(TinyEncoder(runtime=runtime).stream(groups(photos.views), need))
    first = new_cache()
    cold = list(first.around(TinyEncoder(runtime=runtime), photos).stream(groups(photos.views), need))
    first.flush()
    encoder = TinyEncoder(runtime=runtime)
    warm = list(new_cache().around(encoder, photos).stream(groups(closed(photos)), need))
    assert not encoder.encoded
    assert len(plain) == len(cold) == len(warm)
    for a, b, c in zip(plain, cold, warm, strict=True):
        equal(a, b)
        equal(a, c)


def test_what_waits_for_a_shard_is_there_already(new_cache, photos):
    cached = new_cache().around(TinyEncoder(), photos)
    whole = cached.images(photos.views, ALL)
    equal(cached.images(closed(photos), ALL), whole)
    equal(cached.images(closed(photos)[5:9], ALL), whole[5:9])


def test_only_what_need_names_is_computed_and_kept(new_cache, photos, cache_root):
    cache, encoder = new_cache(), TinyEncoder()
    cache.around(encoder, photos).images(photos.views, frozenset({"global"}))
    cache.flush()
    assert {need for _, need in encoder.encoded} == {frozenset({"global"})}
    size = sum(file.stat().st_size for file in cache_root.rglob("*.safetensors"))
    assert size < 21 * (24 * 4 + 4 * 4 + 2 * 8) + 1600


def test_only_the_missing_kind_is_computed(new_cache, photos):
    cache, encoder = new_cache(), TinyEncoder()
    cached = cache.around(encoder, photos)
    cached.images(photos.views, frozenset({"global"}))
    encoder.encoded.clear()
    equal(cached.images(photos.views, ALL), TinyEncoder().images(photos.views, ALL))
    assert {need for _, need in encoder.encoded} == {frozenset({"branches", "patches"})}
    equal(cached.images(closed(photos), ALL), TinyEncoder().images(photos.views, ALL))


def test_only_missing_images_are_opened_and_stand_at_their_place(new_cache, photos, log):
    cache, encoder = new_cache(), TinyEncoder()
    cached = cache.around(encoder, photos)
    chosen = [photos.views[number] for number in (4, 3, 11, 20)]
    cached.images(chosen, ALL)
    assert opened(log) == [item.id for item in chosen]
    runs = list(cached.stream(groups(photos.views), ALL))
    assert [len(run) for run in runs] == [8, 3, 8, 2]
    assert sorted(opened(log)) == sorted(item.id for item in photos.views)
    plain = TinyEncoder().images(photos.views, ALL)
    equal(ImageFeatures.concat(runs), plain)
    backwards = photos.views[::-1]
    equal(cached.images(backwards, ALL), TinyEncoder().images(backwards, ALL))


def test_a_shorter_split_is_served_by_a_longer_one_and_the_other_way_round(new_cache, photos, log):
    new_cache().around(TinyEncoder(), photos)
    cache = new_cache()
    cache.around(TinyEncoder(), photos).images(photos.views[:6], ALL)
    cache.flush()
    again = new_cache()
    equal(again.around(TinyEncoder(), photos).images(photos.views, ALL), TinyEncoder().images(photos.views, ALL))
    assert opened(log).count("photo0.jpg") == 2  # by the cached pass once, by the plain one once


def test_an_image_that_stands_there_twice(new_cache, photos):
    items = [photos.views[0], photos.views[1], photos.views[0], *photos.views[:9]]
    cached = new_cache().around(TinyEncoder(), photos)
    for _ in range(2):
        equal(cached.images(items, ALL), TinyEncoder().images(items, ALL))


def test_windows_and_sizes_are_images_of_their_own(new_cache, photos):
    window = (2.0, 3.0, 11.0, 12.0)

    def seen(views, windowed, size):
        found = [dataclasses.replace(view, window=window if windowed else None) for view in views]
        return sized(found, *size) if size else found

    cache = new_cache()
    cached = cache.around(TinyEncoder(), photos)
    for kind in ((False, None), (True, None), (False, (32, 16)), (True, (32, 16)), (False, (16, 32))):
        equal(cached.images(seen(photos.views, *kind), ALL), TinyEncoder().images(seen(photos.views, *kind), ALL))
    cache.flush()
    again = new_cache().around(TinyEncoder(), photos)
    for kind in ((False, (32, 16)), (True, None), (False, (16, 32))):
        equal(again.images(seen(closed(photos), *kind), ALL), TinyEncoder().images(seen(photos.views, *kind), ALL))
    with pytest.raises(AssertionError, match="was opened"):
        again.images(seen(closed(photos), False, (24, 24)), ALL)


def test_rows_of_whole_images_keep_their_names(photos):
    """Features that were kept before there were windows and sizes of two sides are still found."""
    view = photos.views[0]
    assert image_row(view, "pixels") == '["photo0.jpg", "pixels", null, null]'
    assert image_row(sized([view], 32, 16)[0], "pixels") == '["photo0.jpg", "pixels", null, [32, 16]]'
    assert image_row(dataclasses.replace(view, window=(0.0, 0.0, 4.0, 4.0)), "pixels").endswith(
        ', ["of the image", 0.0, 0.0, 4.0, 4.0], null]'
    )


def test_what_is_missing_here_and_there_is_computed_by_one_stream(new_cache, photos):
    """Batches with other kinds missing, with nothing missing, and many of these in a row."""
    cached = new_cache().around(encoder := TinyEncoder(runtime=Runtime(batch_size=2)), photos)
    views = photos.views
    cached.images(views[2:4], ALL)
    cached.images(views[6:14], frozenset({"global"}))
    cached.images(views[16:18], ALL)
    encoder.encoded.clear()
    found = list(cached.stream([views[:4], views[4:]], ALL))
    assert [len(run) for run in found] == [2] * 10 + [1]
    equal(ImageFeatures.concat(found), TinyEncoder().images(views, ALL))
    lacking = frozenset({"branches", "patches"})
    assert encoder.encoded == [(2, ALL)] * 2 + [(2, lacking)] * 4 + [(2, ALL)] * 2 + [(1, ALL)]


def test_groups_are_taken_as_they_are_needed(new_cache, photos):
    taken = []

    def lazily():
        for start in range(0, 20, 4):
            taken.append(start)
            yield photos.views[start : start + 4]

    cached = new_cache().around(TinyEncoder(), photos)
    for _ in range(2):
        taken.clear()
        stream = cached.stream(lazily(), ALL)
        assert next(stream).ids == tuple(view.id for view in photos.views[:4])
        assert len(taken) < 4
        assert len(list(stream)) == 4


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
    plain = TinyEncoder().images(photos.views, ALL)
    rounded = dataclasses.replace(
        plain, patches={path: patches.half().float() for path, patches in plain.patches.items()}
    )
    cache = new_cache("half")
    equal(cache.around(TinyEncoder(), photos).images(photos.views, ALL), rounded)
    cache.flush()
    equal(new_cache("half").around(TinyEncoder(), photos).images(closed(photos), ALL), rounded)
    # float32 is never made from what was rounded
    equal(new_cache("full").around(TinyEncoder(), photos).images(photos.views, ALL), plain)


def test_half_precision_takes_half_the_room(new_cache, photos, cache_root):
    sizes = []
    for keep in ("half", "full"):
        cache = new_cache(keep)
        cache.around(TinyEncoder(), photos).images(photos.views, frozenset({"patches"}))
        cache.flush()
        sizes.append(sum(file.stat().st_size for file in cache_root.rglob("*.safetensors")))
    assert 1.75 < (sizes[1] - sizes[0]) / sizes[0] < 2.2


def test_half_precision_that_cannot_hold_a_patch_is_refused(new_cache, photos):
    encoder = TinyEncoder()
    encoder.map = encoder.map * 1e6
    with pytest.raises(UserError, match=r"above 65504.*--cache full"):
        new_cache("half").around(encoder, photos).images(photos.views, ALL)


def test_vectors_alone(new_cache, photos, cache_root):
    cache, encoder = new_cache("vectors"), TinyEncoder()
    plain = TinyEncoder().images(photos.views, ALL)
    for _ in range(2):
        equal(cache.around(encoder, photos).images(photos.views, ALL), plain)
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
        equal(cached.images(photos.views, ALL), TinyEncoder().images(photos.views, ALL))
    assert len(said) == 1
    assert said[0].startswith("Not kept: the patch vectors of 21 images in ")
    assert said[0].endswith("or leave them out with --cache vectors.")
    assert {need for _, need in encoder.encoded[3:]} == {frozenset({"patches"})}


def test_what_large_patches_take_is_said(new_cache, photos, said, monkeypatch):
    monkeypatch.setattr(cached_encoder, "WORTH_SAYING", 100)
    new_cache().around(TinyEncoder(), photos).images(photos.views, ALL)
    assert said == [s for s in said if s.startswith("Kept: the patch vectors of 21 images in ")]
    assert len(said) == 1


def test_an_encoder_without_area(new_cache, photos):
    class Plain(Encoder):
        """An encoder of a third party that only has the methods of the seam."""

        def __init__(self):
            tiny = TinyEncoder()
            self.identity, self._tiny = {"plain": 1}, tiny
            self.card, self.gives, self.paths, self.runtime = tiny.card, tiny.gives, tiny.paths, tiny.runtime
            self.prompt_ensemble, self.weights_hash = "embeddings", "plain"
            self.precision, self.device, self.calls = "float32", tiny.device, []

        def stream(self, groups, need):
            for features in self._tiny.stream(groups, need):
                self.calls.append(len(features))
                yield dataclasses.replace(features, area_N4=None)

    plain = Plain()
    cached = new_cache().around(plain, photos)
    for _ in range(2):
        runs = list(cached.stream([photos.views], ALL))
        assert [len(run) for run in runs] == [8, 8, 5]
        equal(ImageFeatures.concat(runs), Plain().images(photos.views, ALL))
    assert plain.calls == [8, 8, 5]


def test_no_images(new_cache, photos):
    cached = new_cache().around(TinyEncoder(), photos)
    assert list(cached.stream([[], []], ALL)) == []
    with pytest.raises(RuntimeError, match="no images"):
        cached.images([], ALL)


def test_a_stream_that_is_left_early_keeps_what_it_computed(new_cache, photos, log):
    cached = new_cache().around(TinyEncoder(), photos)
    begun = cached.stream([photos.views], ALL)
    next(begun)
    begun.close()
    cached.images(photos.views, ALL)
    assert sorted(opened(log)) == sorted(item.id for item in photos.views)


def test_an_unreadable_image_is_named_and_the_others_are_kept(new_cache, photos, log):
    def broken():
        raise UserError("photo.jpg cannot be decoded: copy the file again.")

    cached = new_cache().around(TinyEncoder(), photos)
    items = [*photos.views[:16], View(ImageItem("broken", broken))]
    with pytest.raises(UserError, match="copy the file again"):
        cached.images(items, ALL)
    cached.images(photos.views[:16], ALL)
    assert len(opened(log)) == 16
