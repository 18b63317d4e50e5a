"""Decoding in worker processes: ahead of the model, in order, and without anything left behind."""

import multiprocessing
import os
import signal
import time
from functools import partial

import pytest
import torch

from sparc_bench.encoder import Runtime
from sparc_bench.errors import UserError
from sparc_bench.images import decoding
from sparc_bench.images.item import ImageItem
from sparc_bench.images.view import View
from tests.toys.cached import ALL, TinyEncoder, opened, split_of

COUNT = 40

# torch's advice on a machine with fewer cores than a test starts processes
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


@pytest.fixture
def photos(tmp_path):
    return split_of(COUNT, tmp_path / "opened")


def encoder(workers, batch_size=8, **options):
    return TinyEncoder(runtime=Runtime(batch_size=batch_size, workers=workers), **options)


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def unreadable():
    raise UserError("photo.jpg cannot be decoded: copy the file again.")


def fail(kind):
    raise kind("an odd mistake")


def nobody():
    """Whether all worker processes are gone, which may take them a moment."""
    until = time.monotonic() + 5
    while multiprocessing.active_children() and time.monotonic() < until:
        time.sleep(0.01)
    return not multiprocessing.active_children()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(photos, workers):
    groups = [photos.views[:17], [], photos.views[17:]]
    plain, found = (list(encoder(count).stream(groups, ALL)) for count in (0, workers))
    assert [run.ids for run in found] == [run.ids for run in plain]
    for a, b in zip(plain, found, strict=True):
        assert torch.equal(a.global_ND, b.global_ND)
        assert torch.equal(a.area_N4, b.area_N4)
    assert nobody()


def test_the_next_images_are_decoded_while_the_model_works(photos, tmp_path):
    runs = encoder(2).stream([photos.views], ALL)
    next(runs)
    until = time.monotonic() + 20
    while len(opened(tmp_path / "opened")) < 24 and time.monotonic() < until:  # nothing is asked for meanwhile
        time.sleep(0.01)
    assert len(opened(tmp_path / "opened")) >= 24
    runs.close()
    assert nobody()


def test_few_images_start_no_process(photos, monkeypatch):
    monkeypatch.setattr(multiprocessing.context.ForkProcess, "start", None)
    assert len(encoder(4).images(photos.views[: decoding.FEW], ALL)) == decoding.FEW


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image(photos, workers):
    items = [*photos.views, View(ImageItem("broken", unreadable))]
    with pytest.raises(UserError, match=r"^photo\.jpg cannot be decoded: copy the file again\.$"):
        list(encoder(workers).stream([items], ALL))
    assert nobody()


def test_a_killed_worker_is_a_sentence(photos):
    items = [*photos.views, View(ImageItem("killer", killed))]
    with pytest.raises(UserError, match="was killed, most likely for want of memory: use fewer with --workers"):
        list(encoder(2).stream([items], ALL))
    assert nobody()


def test_another_mistake_of_the_model_is_not_blamed_on_workers(photos, monkeypatch):
    tiny = encoder(2)
    monkeypatch.setattr(tiny, "encode_pixels", lambda *_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        list(tiny.stream([photos.views], ALL))


@pytest.mark.parametrize("kind", [RuntimeError, ConnectionResetError])
def test_a_mistake_in_a_worker_is_shown_as_it_is(photos, kind):
    items = [*photos.views, View(ImageItem("odd", partial(fail, kind)))]
    with pytest.raises(kind, match="an odd mistake"):
        list(encoder(2).stream([items], ALL))
    assert nobody()


class Tensors:
    """What a worker hands over, as the loader gives it to the stream."""

    def __init__(self, monkeypatch):
        self.kinds = []
        self._from_numpy = torch.from_numpy
        monkeypatch.setattr(decoding.torch, "from_numpy", self)

    def __call__(self, array):
        self.kinds.append(array.shape)
        return self._from_numpy(array)


def test_little_shared_memory_is_done_without(photos, monkeypatch):
    plain = encoder(0).images(photos.views, ALL)
    through_pipe = Tensors(monkeypatch)
    monkeypatch.setattr(decoding, "_shared_memory", lambda: 8 * 16 * 16 * 3 * 3 - 1.0)
    found = encoder(2).images(photos.views, ALL)
    assert torch.equal(found.global_ND, plain.global_ND)
    assert through_pipe.kinds == [(8, 16, 16, 3)] * 5


def test_enough_shared_memory_is_used(photos, monkeypatch):
    through_pipe = Tensors(monkeypatch)
    monkeypatch.setattr(decoding, "_shared_memory", lambda: 8 * 16 * 16 * 3 * 3 + 0.0)
    encoder(2).images(photos.views, ALL)
    assert through_pipe.kinds == []
