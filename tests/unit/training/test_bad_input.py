"""Damaged and missing inputs end in a sentence and leave nothing half-written."""

import dataclasses
import errno
import os
from functools import partial

import pytest
import torch

from sparc_bench.encoder import Runtime
from sparc_bench.encoders import own
from sparc_bench.errors import UserError
from sparc_bench.images.item import ImageItem, open_image_file
from sparc_bench.training import run_inputs as run_inputs_module
from sparc_bench.training.loading import Batches
from sparc_bench.training.pixels import load_pixels
from sparc_bench.training.run_inputs import read_split
from sparc_bench.training.train import train
from sparc_bench.two_towers import checkpoint
from sparc_bench.two_towers.image_transform import ImageTransform
from sparc_bench.two_towers.model import build_model
from sparc_bench.two_towers.open_clip_preprocess import OpenClipPreprocess
from sparc_bench.two_towers.tokenizer import make_tokenizer

TRANSFORM = ImageTransform(OpenClipPreprocess("tiny", (64, 64), "squash"))


def with_broken_images(data, tmp_path, count):
    file = tmp_path / "broken.jpg"
    file.write_bytes(b"\xff\xd8\xff\xe0 cut")
    broken = [
        dataclasses.replace(example, image=ImageItem(example.id, partial(open_image_file, file)))
        for example in data.examples[:count]
    ]
    return dataclasses.replace(data, examples=(*broken, *data.examples[count:]), fingerprint=f"broken {count}")


@pytest.fixture
def data(tiny):
    return read_split(tiny, None, val=False)


def test_unreadable_images_are_left_out_and_named_also_from_the_cache(tiny, data, tmp_path):
    broken = with_broken_images(data, tmp_path, 2)
    for _ in range(2):
        pixels = load_pixels(broken, TRANSFORM, max_unreadable=0.1)
        assert pixels.unreadable == (data[0].id, data[1].id)
        assert pixels.index == tuple(range(2, 48))
        assert len(pixels.array_NSS3) == 46


def test_too_many_unreadable_images_stop_the_run_and_leave_no_cache(tiny, data, tmp_path):
    broken = with_broken_images(data, tmp_path, 12)
    with pytest.raises(UserError, match=r"12 of 48 images .* cannot be read .*max_unreadable"):
        load_pixels(broken, TRANSFORM, max_unreadable=0.1)
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


def test_decoding_on_the_fly_replaces_an_unreadable_image_and_names_it(tiny, data, tmp_path):
    broken = with_broken_images(data, tmp_path, 2)
    pixels = load_pixels(broken, TRANSFORM, max_unreadable=0.1, limit=0)
    assert pixels.array_NSS3 is None
    tokenizer = make_tokenizer(tiny.text, data.captions)
    batches = Batches(pixels, build_model(tiny, tokenizer, 0).objective, tokenizer, 8, 0, True)
    loaded = [batches[step] for step in range(6)]
    assert {item for batch in loaded for item in batch.unreadable} == {data[0].id, data[1].id}
    assert all(int(row) >= 2 for batch in loaded for row in batch.batch.index_B)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_decoding_on_the_fly_names_unreadable_images_and_stops_at_the_limit(tiny, data, tmp_path, monkeypatch):
    broken = with_broken_images(data, tmp_path, 2)
    monkeypatch.setattr(run_inputs_module, "load_pixels", partial(load_pixels, limit=0))
    monkeypatch.setattr(run_inputs_module, "read_split", lambda *_, val: data if val else broken)
    lenient = tiny.model_copy(update={"data": tiny.data.model_copy(update={"max_unreadable": 0.05})})
    assert train(lenient, tmp_path / "run", None, 0, "cpu")["unreadable"] == 2
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert all(f'"unreadable": "{example.id}"' in log for example in data.examples[:2])
    with pytest.raises(UserError, match=r"of 48 images .* cannot be read .*max_unreadable"):
        train(tiny, tmp_path / "strict", None, 0, "cpu")


def test_cached_and_streamed_pixels_are_equal(tiny, data):
    cached, streamed = load_pixels(data, TRANSFORM, 0.0), load_pixels(data, TRANSFORM, 0.0, limit=0)
    assert (cached.rows([3, 40]) == streamed.rows([3, 40])).all()


def test_a_full_disk_ends_in_a_sentence_and_no_file(tiny, data, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(UserError, match="SPARC_BENCH_CACHE"):
        load_pixels(data, TRANSFORM, 0.0)
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


def test_a_full_disk_while_writing_a_checkpoint_keeps_the_old_one(tiny, data, tmp_path, monkeypatch):
    tokenizer = make_tokenizer(tiny.text, data.captions)
    meta = checkpoint.Meta(tiny, 0, 1, tokenizer.state, {})
    file = tmp_path / "model.safetensors"
    checkpoint.write_checkpoint({"model.x": torch.ones(2)}, meta, file)
    before = file.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"model\.safetensors cannot be written .*: free some space"):
        checkpoint.write_checkpoint({"model.x": torch.zeros(2)}, meta, file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".part", ".safetensors")] == [file.name]


@pytest.mark.slow
def test_checkpoints_that_are_damaged_foreign_or_of_another_architecture(tiny, tmp_path):
    train(tiny, tmp_path / "run", None, 0, "cpu")
    file = tmp_path / "run" / own.WEIGHTS_FILE
    card = tiny.model_card()
    meta, tensors = checkpoint.read(file)
    tensors.pop(next(iter(tensors)))
    checkpoint.write_checkpoint(tensors, meta, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="another architecture"):
        own.load(card, tmp_path / "other.safetensors", Runtime())
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged"):
        own.load(card, tmp_path / "cut.safetensors", Runtime())
    torch.save({"a": torch.ones(1)}, tmp_path / "pickle.pt")
    with pytest.raises(UserError, match="damaged"):
        own.load(card, tmp_path / "pickle.pt", Runtime())
    with pytest.raises(UserError, match="train first"):
        own.load(card, tmp_path / "nowhere", Runtime())


def test_too_few_images_for_a_batch(tiny, tmp_path):
    with pytest.raises(UserError, match="lower batch_size"):
        train(tiny.model_copy(update={"batch_size": 64}), tmp_path / "run", None, 0, "cpu")


def test_a_misspelt_objective_option_is_refused_before_data_is_read(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(run_inputs_module, "read_split", None)
    with pytest.raises(UserError, match=r"unknown key 'dmi': did you mean 'dim'"):
        train(tiny.model_copy(update={"objective_options": {"dmi": 16}}), tmp_path / "run", None, 0, "cpu")
