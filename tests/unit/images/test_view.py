import pickle
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from sparc_bench.encoder import Runtime
from sparc_bench.errors import UserError
from sparc_bench.images.item import ImageItem
from sparc_bench.images.view import Followed, View, in_batches, opened_once
from tests.toys.cached import ALL, TinyEncoder, open_logged, opened, split_of

NOISE_HWC = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def noise():
    return Image.fromarray(NOISE_HWC)


def test_a_window_is_that_part_of_the_image(tmp_path):
    noise().save(tmp_path / "x.png")
    view = pickle.loads(pickle.dumps(View(ImageItem.file("x", tmp_path / "x.png"), (10.4, 4.6, 30.0, 25.0))))
    assert np.array_equal(np.asarray(view.open()), NOISE_HWC[5:25, 10:30])
    assert view.in_original((0.5, 1.0, 20.0, 20.0)) == (10.5, 6.0, 30.0, 25.0)
    assert np.array_equal(np.asarray(View(view.item).open()), NOISE_HWC)
    assert View(view.item).in_original((0.5, 1.0, 20.0, 20.0)) == (0.5, 1.0, 20.0, 20.0)


def test_what_lies_outside_of_the_image_is_black():
    seen_HWC = np.asarray(View(ImageItem("x", noise), (-10.0, 30.0, 10.0, 50.0)).open())
    assert seen_HWC.shape == (20, 20, 3)
    assert np.array_equal(seen_HWC[:10, 10:], NOISE_HWC[30:, :10])
    assert not seen_HWC[10:].any()
    assert not seen_HWC[:, :10].any()


@pytest.mark.parametrize(
    ("window", "sentence"),
    [
        (
            (50.0, 0.0, 60.0, 10.0),
            r"The box \[50, 0, 60, 10\] .* lies outside of the image x, which has 50 x 40 pixels",
        ),
        ((0.0, -9.0, 10.0, 0.0), "lies outside of the image x"),
        ((3.0, 3.0, 3.4, 9.0), r"The window \[3, 3, 3, 9\] .* of the image x has no pixel: give one of at least 1 x 1"),
    ],
)
def test_a_window_that_shows_nothing_is_refused(window, sentence):
    with pytest.raises(UserError, match=sentence):
        View(ImageItem("x", noise), window).open()


def test_rows_come_with_columns():
    assert View(ImageItem("x", noise), rows=2, columns=3).size == (2, 3)
    assert View(ImageItem("x", noise)).size is None
    with pytest.raises(RuntimeError, match="rows and columns or neither"):
        View(ImageItem("x", noise), rows=2)


def named(*names):
    return [View(ImageItem(name, noise)) for name in names]


def test_batches_keep_to_groups_and_are_made_one_by_one():
    taken = []

    def groups():
        for group in (named(*"abcde"), [], named("f"), named(*"gh")):
            taken.append(len(group))
            yield group

    batches = in_batches(groups(), 2)
    assert taken == []
    assert [view.id for view in next(batches)] == ["a", "b"]
    assert taken == [5]
    assert [[view.id for view in batch] for batch in batches] == [["c", "d"], ["e"], ["f"], ["g", "h"]]


def test_views_of_batches_that_come_back():
    followed = Followed([named(*"abc"), [], named("d"), named(*"ef")])
    under_way = in_batches(followed, 2)
    sizes = [len(next(under_way)) for _ in range(2)]  # two are under way before the first comes back
    found = []
    while sizes:
        found.append([view.id for view in followed.batch(sizes.pop(0))])
        sizes += [len(batch) for batch in [next(under_way, [])] if batch]
    assert found == [["a", "b"], ["c"], ["d"], ["e", "f"]]


def test_views_of_an_image_that_follow_each_other_decode_it_once(tmp_path):
    log = tmp_path / "log"

    def item(name, content=""):
        return ImageItem(name, partial(open_logged, log, name), content)

    one, same = item("one"), [item("same", "hash"), item("same", "hash")]
    windows = [(0.0, 0.0, 9.0, 9.0), None, (2.0, 3.0, 8.0, 9.0)]
    views = [*(View(one, window) for window in windows), View(item("two")), View(item("two")), *map(View, same)]
    plain = [np.asarray(view.open()) for view in views]
    log.unlink()
    for pixels, view in zip(plain, opened_once(views), strict=True):
        image = view.open()
        assert np.array_equal(np.asarray(image), pixels)
        image.paste((9, 9, 9), (0, 0, 5, 5))  # whoever opens an image may draw on it
    assert opened(log) == ["one", "two", "two", "same"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_windows_of_an_image_are_cut_from_one_decoding(tmp_path, workers):
    photos = split_of(8, tmp_path / "log")
    windows = [(x, 0.0, x + 8.0, 16.0) for x in (0.0, 2.0, 4.0, 6.0, 8.0)]
    views = [View(view.item, window) for view in photos.views for window in windows]
    found = TinyEncoder(runtime=Runtime(batch_size=10, workers=workers)).images(views, ALL)
    assert sorted(opened(tmp_path / "log")) == [view.id for view in photos.views]
    assert found.area_N4.tolist() == [list(window) for window in windows] * 8
    alone = [TinyEncoder().images([view], ALL).global_ND for view in views]
    assert torch.allclose(found.global_ND, torch.cat(alone))


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_an_opener_that_cannot_travel_is_a_sentence(tmp_path):
    photos = [*split_of(40, tmp_path / "log").views, View(ImageItem("local", lambda: noise()))]
    with pytest.raises(UserError, match=r"such as .* cannot be sent to a process .* \(--workers 0\)"):
        list(TinyEncoder(runtime=Runtime(batch_size=8, workers=2)).stream([photos], ALL))
    assert len(TinyEncoder().images(photos, ALL)) == 41


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_groups_are_taken_no_further_ahead_than_is_decoded(tmp_path, workers):
    views, taken = split_of(8, tmp_path / "log").views, []

    def endless():
        while True:
            taken.append(len(views))
            yield views

    stream = TinyEncoder(runtime=Runtime(batch_size=8, workers=workers)).stream(endless(), ALL)
    assert next(stream).ids == tuple(view.id for view in views)
    assert len(taken) <= 2 + 3 * workers
    stream.close()
