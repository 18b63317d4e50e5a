"""Evaluation behind the cache: the same records, whatever was in it."""

import json

import pytest

from sparc_bench import discover
from sparc_bench.encoders.own import IN_TRAINING, OwnEncoder
from sparc_bench.evaluate import Settings, evaluate
from sparc_bench.feature_cache.key import image_key, text_key
from sparc_bench.features import ImageItem, Runtime
from sparc_bench.models import load_encoder, resolve

IMAGES = 48
TASKS = ("scenes_classification_shape", "scenes_minimal_pairs", "scenes_retrieval", "scenes_segmentation_colour")


def cards(*names):
    """Tasks on fewer images than they have."""
    found = [discover.task(name) for name in names]
    return [card.model_copy(update={"data": {**card.data, "n": IMAGES}, "expect": {}}) for card in found]


@pytest.fixture
def run(tmp_path):
    def go(keep, tasks=TASKS, **settings):
        runtime = Runtime(batch_size=20)
        done = evaluate(
            "scenes_sparc", cards(*tasks), Settings(tmp_path / keep, cache=keep, runtime=runtime, **settings)
        )
        assert [result.error for result in done] == [None] * len(done)
        return done

    return go


def numbers(results):
    """Everything in the records but the time."""
    found = []
    for result in results:
        record = json.loads(result.path.read_text())
        del record["seconds"]
        found.append((record, result.path.with_suffix(".npz").read_bytes()))
    return found


def refuse(item):
    raise AssertionError(f"{item.id} was opened")


@pytest.mark.parametrize("keep", ["full", "vectors"])
def test_records_with_and_without_the_cache_are_equal(run, monkeypatch, keep):
    plain, cold = numbers(run("off")), numbers(run(keep, force=True))
    assert cold == plain
    if keep == "full":  # where all was kept, no image is opened again
        monkeypatch.setattr(ImageItem, "open", refuse)
    assert numbers(run(keep, force=True)) == plain


def test_a_part_of_the_images_first(run):
    run("full", limit=30)
    assert numbers(run("full")) == numbers(run("off"))


def test_half_precision_is_in_the_record(run, tmp_path):
    pixels, patches = "scenes_classification_shape", "scenes_segmentation_colour"
    half = {result.task: result.record for result in run("half", (pixels, patches))}
    assert (half[pixels].patch_precision, half[patches].patch_precision) == ("float32", "float16")
    note = "Patch vectors were rounded to float16, as the feature cache kept them."
    assert note in half[patches].notes
    assert note not in half[pixels].notes
    full = tmp_path / "full"
    (tmp_path / "half").rename(full)
    kept = {result.task: result.kept for result in run("full", (pixels, patches))}
    assert kept == {pixels: True, patches: False}
    assert numbers(run("full", (pixels, patches))) == numbers(run("off", (pixels, patches)))


def test_a_cache_that_cannot_be_written_is_said_once(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SPARC_BENCH_CACHE", str(tmp_path / "file"))
    assert numbers(run("full")) == numbers(run("off"))
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"The feature cache {tmp_path / 'file'} cannot be written (Not a directory): going on without it; free some "
        "space, or set SPARC_BENCH_CACHE to another folder."
    ]


def test_a_damaged_shard_changes_no_number(run, cache_root):
    plain = numbers(run("full"))
    for shard in cache_root.rglob("*.safetensors"):
        shard.write_bytes(shard.read_bytes()[:-3])
    assert numbers(run("full", force=True)) == plain


def test_models_that_were_never_trained_are_told_apart_by_their_towers():
    keys = []
    for name in ("scenes_sparc", "scenes_clip"):
        encoder = load_encoder(resolve(name), Runtime())
        keys += [text_key(encoder), text_key(encoder.untrained())]
    assert len({json.dumps(key, sort_keys=True) for key in keys}) == 4
    assert keys[1]["weights"] == keys[3]["weights"]


def test_a_model_in_training_is_never_kept():
    encoder = load_encoder(resolve("scenes_clip"), Runtime())
    training = OwnEncoder(
        encoder.card,
        encoder._model,
        encoder._meta,
        encoder._tokenizer,
        IN_TRAINING,
        Runtime(),  # the trainer's own call
    )
    data = discover.load("datasets", "scenes1").read(None, "test", discover.load("datasets", "scenes1").Options(n=1))
    assert text_key(training) is None
    assert image_key(training, data) is None
    assert image_key(encoder, data) is not None
