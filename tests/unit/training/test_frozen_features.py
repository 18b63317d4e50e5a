"""Features of a frozen image tower are computed once, and a training from them is the training from pixels."""

import dataclasses
import json
from functools import partial

import numpy as np
import pytest
import torch

from sparc_bench.errors import UserError
from sparc_bench.files.cache_folder import cache_folder
from sparc_bench.images.item import ImageItem, open_image_file
from sparc_bench.training import frozen_features, run_inputs
from sparc_bench.training.frozen_features import FrozenFeatures, load_features
from sparc_bench.training.frozen_tower import FrozenTower, frozen_tower
from sparc_bench.training.run_inputs import read_run_inputs, read_split
from sparc_bench.training.train import train
from sparc_bench.two_towers.half_precision import halved


@pytest.fixture
def recipe(from_clip):
    return from_clip("sparc", freeze=["image"], steps=6, optim={"warmup": 2})


@pytest.fixture
def tower(recipe):
    initial = run_inputs.initial_model(recipe)
    return frozen_tower(recipe, initial.tokenizer, initial, "cpu")


@pytest.fixture
def data(recipe, tmp_path):
    """Eight scenes, of which the first and the sixth cannot be read."""
    whole = read_split(recipe, None, val=False)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 cut")
    examples = list(whole.examples[:8])
    for row in (0, 5):
        item = ImageItem(examples[row].id, partial(open_image_file, broken))
        examples[row] = dataclasses.replace(examples[row], image=item)
    return dataclasses.replace(whole, examples=tuple(examples), fingerprint="eight")


@pytest.fixture
def passes(monkeypatch):
    """Numbers of images that went through the frozen tower to be kept, call by call."""
    seen = []
    real = FrozenTower.features

    def counted(self, pixels_BHWC):
        seen.append(len(pixels_BHWC))
        return real(self, pixels_BHWC)

    monkeypatch.setattr(FrozenTower, "features", counted)
    return seen


def losses(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def test_stored_features_are_what_the_tower_gives_of_the_readable_images(data, tower):
    found = load_features(data, tower, 0.5)
    assert found.unreadable == (data[0].id, data[5].id)
    assert found.index == (1, 2, 3, 4, 6, 7)
    assert found.array_NSV.dtype == np.float16
    pixels = torch.stack([tower.transform(data[row].view)[0] for row in found.index])
    expected = tower.features(pixels)
    assert expected.shape == (6, 1 + 16, 16)
    np.testing.assert_allclose(found.rows(range(6)), expected.numpy(), rtol=2e-3, atol=1e-5)
    out = tower.tower.finish(torch.from_numpy(found.rows([2, 0])).float())
    whole = tower.tower.finish(expected)
    assert torch.allclose(out.patches_BPW, whole.patches_BPW[[2, 0]], atol=5e-3)
    assert torch.allclose(out.pooled_BMW, whole.pooled_BMW[[2, 0]], atol=5e-3)


def test_too_many_unreadable_images_are_refused_and_nothing_is_kept(data, tower):
    with pytest.raises(UserError, match=r"2 of 8 images of scenes1 cannot be read .* raise data\.max_unreadable"):
        load_features(data, tower, 0.1)
    assert not list((cache_folder() / "frozen_features").iterdir())


def inverted(file):
    array = np.load(file, mmap_mode="r+")
    array[:] = -array
    array.flush()


def of_another(file):
    beside = file.with_suffix(".json")
    table = json.loads(beside.read_text())
    table["about"]["weights"] = "0" * 64
    beside.write_text(json.dumps(table))


DAMAGES = {
    "inverted": inverted,
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-9]),
    "empty": lambda file: file.write_bytes(b""),
    "without table": lambda file: file.with_suffix(".json").unlink(),
    "odd table": lambda file: file.with_suffix(".json").write_text('{"about": 1}'),
    "no table": lambda file: file.with_suffix(".json").write_bytes(b"\xff\xfe"),
    "of another": of_another,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_features_that_are_not_what_was_written_are_computed_again_and_said(damage, data, tower, capsys):
    plain = load_features(data, tower, 0.5)
    expected = np.array(plain.array_NSV)
    (file,) = (cache_folder() / "frozen_features").glob("*.npy")
    DAMAGES[damage](file)
    capsys.readouterr()
    again = load_features(data, tower, 0.5)
    why = "are those of other images or of another tower" if damage == "of another" else "are damaged"
    said = f"The features {file} {why}: they are computed again.\n"
    assert capsys.readouterr().err.count(said) >= 1
    np.testing.assert_array_equal(again.array_NSV, expected)
    assert again.unreadable == plain.unreadable
    load_features(data, tower, 0.5)
    assert capsys.readouterr().err == ""


def test_features_of_other_photos_under_the_same_name_are_not_taken(data, tower, capsys):
    first = load_features(data.take([1, 2, 3]), tower, 0.0)
    other = data.take([4, 6, 7])
    second = np.array(load_features(other, tower, 0.0).array_NSV)
    files = {file.name: file for file in (cache_folder() / "frozen_features").glob("*.npy")}
    one = frozen_features._file(first.data, first.about)
    (two,) = [file for file in files.values() if file != one]
    for suffix in (".npy", ".json"):
        two.with_suffix(suffix).write_bytes(one.with_suffix(suffix).read_bytes())
    again = load_features(other, tower, 0.0)
    assert "are those of other images or of another tower: they are computed again." in capsys.readouterr().err
    np.testing.assert_array_equal(again.array_NSV, second)


def test_another_transform_or_other_weights_are_other_features(data, tower):
    some = data.take([1, 2])
    one = load_features(some, tower, 0.0)
    other_colours = dataclasses.replace(tower, transform=dataclasses.replace(tower.transform, mean=(0.1, 0.2, 0.3)))
    two = load_features(some, other_colours, 0.0)
    with torch.no_grad():
        next(tower.tower.parameters()).mul_(1.01)
    three = load_features(some, dataclasses.replace(tower), 0.0)
    assert len({json.dumps(each.about) for each in (one, two, three)}) == 3
    assert not np.array_equal(one.array_NSV, two.array_NSV)
    assert not np.array_equal(one.array_NSV, three.array_NSV)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (7e4, r"gives 'b' a feature of 7e\+04, and half precision, in which features are kept, ends at 65504: take"),
        (float("nan"), r"gives 'b' features that are not finite \(NaN or infinite\): take other weights"),
    ],
)
def test_features_that_half_precision_cannot_hold_are_refused(value, sentence):
    features = torch.ones(2, 3, 4)
    features[1, 2, 3] = value
    with pytest.raises(UserError, match=sentence):
        halved(features, ["a", "b"], "tiny")


def test_a_full_disk_is_one_sentence(data, tower, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(frozen_features, "reserve", full)
    with pytest.raises(UserError, match=r"frozen_features \(No space left on device; they need 0 MiB\): free space or"):
        load_features(data, tower, 0.5)


@pytest.mark.slow
def test_all_inputs_of_a_run_share_the_features_and_no_pixels_are_kept(recipe, passes):
    first = read_run_inputs(recipe, None)
    assert isinstance(first.images, FrozenFeatures)
    assert isinstance(first.val_images, FrozenFeatures)
    assert sum(passes) == 48 + 16 + 1  # and a grey one, for the shape
    passes.clear()
    second = read_run_inputs(recipe.model_copy(update={"objective": "clip"}), None)
    assert sum(passes) == 1
    np.testing.assert_array_equal(first.images.array_NSV, second.images.array_NSV)
    assert not (cache_folder() / "pixels").exists()


@pytest.mark.slow
def test_above_the_limit_the_tower_computes_in_each_step(recipe, monkeypatch):
    monkeypatch.setattr(frozen_features, "FEATURES_LIMIT", 100)
    data = read_run_inputs(recipe, None)
    assert data.images.array_NSS3.shape == (48, 32, 32, 3)
    assert not (cache_folder() / "frozen_features").exists()


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["clip", "sparc", "filip", "pacl", "flair"])
def test_a_training_from_features_is_the_training_from_pixels_up_to_half_precision(
    objective, from_clip, tmp_path, monkeypatch
):
    recipe = from_clip(objective, freeze=["image"], steps=6, optim={"warmup": 2})
    stored = train(recipe, tmp_path / "stored", None, 0, "cpu")
    monkeypatch.setattr(frozen_features, "FEATURES_LIMIT", 0)
    pixels = train(recipe, tmp_path / "pixels", None, 0, "cpu")
    assert losses(tmp_path / "stored") == pytest.approx(losses(tmp_path / "pixels"), rel=1e-2)
    assert stored["held_out"].keys() == pixels["held_out"].keys()
    assert stored["val"].keys() == pixels["val"].keys()


@pytest.mark.slow
def test_a_training_from_features_in_float32_is_the_training_from_pixels(recipe, tmp_path, monkeypatch):
    """With the rounding taken away nothing differs but the order of sums: the features come in other batches."""
    monkeypatch.setattr(frozen_features, "halved", lambda features, _ids, _model: features)
    monkeypatch.setattr(frozen_features, "STORED", np.float32)
    train(recipe, tmp_path / "stored", None, 0, "cpu")
    monkeypatch.setattr(frozen_features, "FEATURES_LIMIT", 0)
    train(recipe, tmp_path / "pixels", None, 0, "cpu")
    assert losses(tmp_path / "stored") == pytest.approx(losses(tmp_path / "pixels"), rel=1e-6)


@pytest.mark.slow
def test_a_resumed_training_from_features_gives_the_same_weights(recipe, tmp_path):
    class KilledError(Exception):
        pass

    def kill(step):
        if step == 4:
            raise KilledError

    train(recipe.model_copy(update={"checkpoint_every": 2}), tmp_path / "whole", None, 0, "cpu")
    often = recipe.model_copy(update={"checkpoint_every": 2})
    with pytest.raises(KilledError):
        train(often, tmp_path / "resumed", None, 0, "cpu", on_step=kill)
    summary = train(often, tmp_path / "resumed", None, 0, "cpu")
    assert summary["resumed_from"] > 0
    assert weights(tmp_path / "resumed") == weights(tmp_path / "whole")
