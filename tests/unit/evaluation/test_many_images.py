"""A folder of very many photos: nothing before scoring makes all examples, and memory is a few bytes a photo."""

import os
import tracemalloc

import pytest
from PIL import Image

from sparc_bench.cards.binding import bind
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.dataset import LazyExamples
from sparc_bench.evaluation.new_record import Provenance, bare_record
from sparc_bench.evaluation.pipeline import limited, read_data
from sparc_bench.files import file_hashes
from tests.toys.photo_task import photo_task

CLASSES, PHOTOS = 50, 400
BYTES_PER_PHOTO = 400


@pytest.fixture
def many_root(tmp_path):
    for label in range(CLASSES):
        folder = tmp_path / f"many/n{label:08d}"
        folder.mkdir(parents=True)
        first = folder / "photo_0.png"
        Image.new("RGB", (2, 2), (label, 0, 0)).save(first)
        for number in range(1, PHOTOS):
            os.link(first, folder / f"photo_{number}.png")
    return tmp_path


@pytest.mark.slow
def test_what_comes_before_scoring_takes_little_memory_and_makes_no_example(many_root, monkeypatch):
    monkeypatch.setattr(file_hashes, "RECENT", -60.0)
    task = bind(photo_task("many"))
    card = ModelCard(name="toy", title="toy", family="outputs", source="test", trained_on=("coco:karpathy_train",))
    first = read_data(task, many_root, opens_images=True)  # hashes every file, once
    count = CLASSES * PHOTOS
    made = []
    plain = LazyExamples.__getitem__
    monkeypatch.setattr(LazyExamples, "__getitem__", lambda self, index: made.append(index) or plain(self, index))
    tracemalloc.start()
    data = read_data(task, many_root, opens_images=True)
    assert data.counts()["images"] == count
    record = bare_record(task, data, card, 0, Provenance("0" * 64), None)
    few = limited(data, 100, spread=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not made
    assert peak < BYTES_PER_PHOTO * count
    assert (record.n, record.data_hash, len(few)) == (count, first.fingerprint, 100)
    assert [each.label for each in few] == sorted(each.label for each in few)
    assert data[-1].image.open().getpixel((0, 0)) == (CLASSES - 1, 0, 0)
