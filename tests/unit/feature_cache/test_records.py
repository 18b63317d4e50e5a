"""Evaluation behind the cache: the same records, whatever was in it."""

import json

import pytest

from sparc_bench.cards import discovery
from sparc_bench.encoder import Runtime
from sparc_bench.encoders.own import IN_TRAINING, OwnEncoder
from sparc_bench.evaluation.evaluate import Settings, evaluate
from sparc_bench.feature_cache.key import image_key, text_key
from sparc_bench.images.item import ImageItem
from sparc_bench.models.resolve import load_encoder, resolve

IMAGES = 24
VECTORS, PATCHES = "scenes_retrieval", "scenes_segmentation_colour"


def evaluated(results, keep, tasks, **settings):
    """The records of tasks on fewer images than they have."""
    found = [discovery.task(name) for name in tasks]
    cards = [card.model_copy(update={"data": {**card.data, "n": IMAGES}, "expect": {}}) for card in found]
    runtime = Runtime(batch_size=10)
    done = evaluate("scenes_sparc", cards, Settings(results, cache=keep, runtime=runtime, **settings))
    assert [result.error for result in done] == [None] * len(done)
    return {result.task: result for result in done}


def numbers(result):
    """Everything in a record but the time."""
    record = json.loads(result.path.read_text())
    del record["seconds"]
    return record, result.path.with_suffix(".npz").read_bytes()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """What is found without the cache."""
    done = evaluated(tmp_path_factory.mktemp("plain"), "off", (VECTORS, PATCHES))
    return {task: numbers(result) for task, result in done.items()}


def refuse(item):
    raise AssertionError(f"{item.id} was opened")


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["full", "vectors"])
def test_records_with_and_without_the_cache_are_equal(tmp_path, plain, monkeypatch, keep):
    cold = evaluated(tmp_path, keep, (VECTORS, PATCHES))
    assert {task: numbers(result) for task, result in cold.items()} == plain
    again = (VECTORS, PATCHES) if keep == "full" else (VECTORS,)
    monkeypatch.setattr(ImageItem, "open", refuse)  # what was kept is not opened again
    warm = evaluated(tmp_path, keep, again, force=True)
    assert [numbers(result) for result in warm.values()] == [plain[task] for task in again]


@pytest.mark.slow
def test_a_part_of_the_images_first(tmp_path, plain):
    evaluated(tmp_path, "full", (PATCHES,), limit=13)
    assert numbers(evaluated(tmp_path, "full", (PATCHES,))[PATCHES]) == plain[PATCHES]


@pytest.mark.slow
def test_half_precision_is_in_the_record(tmp_path, plain):
    half = {task: result.record for task, result in evaluated(tmp_path, "half", (VECTORS, PATCHES)).items()}
    assert (half[VECTORS].patch_precision, half[PATCHES].patch_precision) == ("float32", "float16")
    note = "Patch vectors were rounded to float16, as the feature cache kept them."
    assert note in half[PATCHES].notes
    assert note not in half[VECTORS].notes
    full = evaluated(tmp_path, "full", (VECTORS, PATCHES))
    assert {task: result.kept for task, result in full.items()} == {VECTORS: True, PATCHES: False}
    assert numbers(full[PATCHES]) == plain[PATCHES]


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_said_once(tmp_path, plain, monkeypatch, capsys):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SPARC_BENCH_CACHE", str(tmp_path / "file"))
    assert numbers(evaluated(tmp_path, "full", (PATCHES,))[PATCHES]) == plain[PATCHES]
    assert capsys.readouterr().err == (
        f"The feature cache {tmp_path / 'file'} cannot be written (Not a directory): going on without it; free some "
        "space, or set SPARC_BENCH_CACHE to another folder.\n"
    )


@pytest.mark.slow
def test_a_damaged_shard_changes_no_number(tmp_path, plain, cache_root):
    evaluated(tmp_path, "full", (PATCHES,))
    for shard in cache_root.rglob("*.safetensors"):
        shard.write_bytes(shard.read_bytes()[:-3])
    assert numbers(evaluated(tmp_path, "full", (PATCHES,), force=True)[PATCHES]) == plain[PATCHES]


def test_models_that_were_never_trained_are_told_apart_by_their_towers():
    keys = []
    for name in ("scenes_sparc", "scenes_clip"):
        encoder = load_encoder(resolve(name), Runtime())
        keys += [text_key(encoder), text_key(encoder.untrained())]
    assert len({json.dumps(key, sort_keys=True) for key in keys}) == 4
    assert keys[1]["weights"] == keys[3]["weights"]


def test_a_model_in_training_is_never_kept():
    encoder = load_encoder(resolve("scenes_clip"), Runtime())
    training = OwnEncoder(encoder.card, encoder.model, encoder._meta, encoder._tokenizer, IN_TRAINING, Runtime())
    data = discovery.load("datasets", "scenes1").read(None, "test", discovery.load("datasets", "scenes1").Options(n=1))
    assert text_key(training) is None
    assert image_key(training, data) is None
    assert image_key(encoder, data) is not None
