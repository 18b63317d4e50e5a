"""A frozen, pretrained trunk: its features, projection and means in training; its patches shared in evaluation."""

import json
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from sparc_bench.cards.recipe import Recipe
from sparc_bench.catalogue.card_lists import TaskFilter, chosen_tasks
from sparc_bench.encoder import Runtime
from sparc_bench.encoders import own
from sparc_bench.encoders._frozen_trunk import FrozenTrunk
from sparc_bench.evaluation.evaluate import Settings, evaluate
from sparc_bench.feature_cache.cache import FeatureCache
from sparc_bench.training import frozen_features
from sparc_bench.training.run_inputs import read_run_inputs, read_split
from sparc_bench.training.train import train
from sparc_bench.two_towers.trunk import TrunkTower

MODEL = "test_efficientnet"


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A small trunk with random weights in a file, as if it were pretrained."""
    file = tmp_path_factory.mktemp("trunk") / "trunk.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tensors = timm.create_model(MODEL).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    return file


@pytest.fixture
def recipe(tiny, weights):
    """The tiny recipe on the frozen trunk: `recipe("clip", projection=8)` changes its objective and table [image]."""

    def made(objective="clip", image=None, **changes):
        table = {
            "model": MODEL,
            "size": 64,
            "pretrained": str(weights),
            "sha256": sha256(weights.read_bytes()).hexdigest(),
        }
        table |= {"projection": 8, "position_mean": True, **(image or {})}
        values = tiny.model_dump() | {"objective": objective, "freeze": ["image"], "image": table, **changes}
        return Recipe.model_validate(values)

    return made


@pytest.fixture
def passes(monkeypatch):
    """Numbers of images that went through a trunk in training and evaluation, call by call."""
    seen = []
    real = TrunkTower.trunk_features

    def counted(self, pixels_BCHW):
        seen.append(len(pixels_BCHW))
        return real(self, pixels_BCHW)

    monkeypatch.setattr(TrunkTower, "trunk_features", counted)
    return seen


def losses(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.slow
def test_projection_and_mean_are_those_of_the_training_features(recipe):
    plain = read_run_inputs(recipe(image={"projection": None, "position_mean": False}), None)
    found = read_run_inputs(recipe(), None)
    assert not plain.fitted
    projection_WK, mean_PK = (found.fitted[name].numpy() for name in ("projection_WK", "mean_PK"))
    whole = np.array(plain.images.array_NSV, np.float64)
    rows = whole.reshape(-1, whole.shape[2])
    _, _, vectors = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(projection_WK.T @ vectors[:8].T), np.eye(8), atol=1e-4)
    expected = whole.astype(np.float32) @ projection_WK
    np.testing.assert_allclose(found.images.rows(range(48)), expected, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(mean_PK, found.images.array_NSV.astype(np.float64).mean(0), rtol=1e-6)
    val = np.array(plain.val_images.array_NSV, np.float32) @ projection_WK
    np.testing.assert_allclose(found.val_images.rows(range(16)), val, rtol=2e-3, atol=2e-3)


@pytest.mark.slow
def test_the_trunk_runs_once_for_all_projections_and_objectives(recipe, passes):
    read_run_inputs(recipe(), None)
    assert sum(passes) == 48 + 16 + 1  # and a grey one, for the shape
    passes.clear()
    read_run_inputs(recipe("sparc", image={"projection": 5}), None)
    assert sum(passes) == 1


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["clip", "sparc"])
def test_a_training_from_features_is_the_training_with_the_trunk_in_each_step(
    objective, recipe, tmp_path, monkeypatch, passes
):
    """Rounded alike in both, so that only the order of sums differs: features come in other batches."""
    train(recipe(objective), tmp_path / "stored", None, 0, "cpu")
    few = sum(passes)
    monkeypatch.setattr(frozen_features, "FEATURES_LIMIT", 0)
    monkeypatch.setattr("sparc_bench.training.fitted_buffers.SAMPLED_IMAGES", 48)
    train(recipe(objective), tmp_path / "pixels", None, 0, "cpu")
    assert sum(passes) > few + 6 * 8
    assert losses(tmp_path / "stored") == pytest.approx(losses(tmp_path / "pixels"), rel=1e-4)


@pytest.mark.slow
def test_a_resumed_training_keeps_the_projection_of_its_checkpoint(recipe, tmp_path, monkeypatch):
    class KilledError(Exception):
        pass

    def kill(step):
        if step == 4:
            raise KilledError

    often = recipe(checkpoint_every=2)
    train(often, tmp_path / "whole", None, 0, "cpu")
    with pytest.raises(KilledError):
        train(often, tmp_path / "resumed", None, 0, "cpu", on_step=kill)
    real = frozen_features.FrozenFeatures.projected
    # on another machine the components could come out otherwise
    data = read_run_inputs(often, None)
    turned = {name: value.flip(-1) for name, value in data.fitted.items()}
    other = replace(
        data,
        fitted=turned,
        images=real(data.images, turned["projection_WK"]),
        val_images=real(data.val_images, turned["projection_WK"]),
    )
    summary = train(often, tmp_path / "resumed", None, 0, "cpu", data=other)
    assert summary["resumed_from"] > 0
    assert (tmp_path / "resumed" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()


@pytest.mark.slow
def test_models_with_the_same_trunk_share_its_patches_in_evaluation(recipe, tmp_path, passes):
    for objective in ("clip", "sparc"):
        train(recipe(objective), tmp_path / objective, None, 0, "cpu")
    data = read_split(recipe(), None, val=True)
    size = (96, 64)
    views = [example.view for example in data]
    views += [replace(view, window=(10.0, 10.0, 40.0, 50.0)) for view in views[:3]]
    others = [replace(view, rows=size[0], columns=size[1]) for view in views[:5]]
    need = frozenset({"global", "patches"})
    passes.clear()
    for number, objective in enumerate(("clip", "sparc")):
        encoder = own.load(recipe(objective).model_card(), tmp_path / objective, Runtime(batch_size=4))
        bare = [encoder.images(each, need) for each in (views, others)]
        passes.clear()
        cache = FeatureCache("full")
        for _ in range(2):
            cached = [cache.around(encoder, data).images(each, need) for each in (views, others)]
            for one, two in zip(bare, cached, strict=True):
                assert torch.equal(one.global_ND, two.global_ND)
                assert one.patches.keys() == two.patches.keys()
                assert all(torch.equal(one.patches[path], two.patches[path]) for path in one.patches)
                assert torch.equal(one.area_N4, two.area_N4)
                assert one.grid == two.grid
                assert one.ids == two.ids
        cache.flush()
        assert sum(passes) == (0 if number else len(views) + len(others))


@pytest.mark.slow
def test_validation_tasks_of_many_trials_encode_the_photos_once(recipe, tmp_path, passes):
    table = {"tasks": ["scenes_retrieval"], "limit": 12}
    for number, objective in enumerate(("clip", "sparc")):
        for seed in range(2):
            passes.clear()
            train(recipe(objective, validate=table), tmp_path / f"{objective}{seed}", None, seed, "cpu")
            first = number == 0 and seed == 0
            # a grey image for the shape, where the data are read, and one for the held-out figures
            assert sum(passes) == (48 + 16 + 12 if first else 0) + 2


@pytest.mark.slow
def test_records_are_the_same_with_and_without_the_cache(recipe, tmp_path):
    train(recipe("sparc"), tmp_path / "run", None, 0, "cpu")
    tasks = [
        card for card in chosen_tasks(TaskFilter()) if card.name in ("scenes_retrieval", "scenes_segmentation_colour")
    ]
    found = {}
    for mode in ("off", "full", "full", "vectors", "trunk"):
        settings = Settings(
            results=tmp_path / f"results{len(found)}", runtime=Runtime(batch_size=8), cache=mode, limit=12
        )
        results = evaluate(str(tmp_path / "run"), tasks, settings)
        assert all(result.error is None for result in results)
        found[len(found)] = [result.record.model_dump(include={"metrics", "reference"}) for result in results]
    assert found[0] == found[1] == found[2] == found[3] == found[4]


@pytest.mark.slow
def test_a_second_model_on_the_trunk_is_evaluated_without_a_pass_through_it(recipe, tmp_path, passes):
    tasks = [card for card in chosen_tasks(TaskFilter()) if card.name == "scenes_retrieval"]
    for name in ("clip", "sparc"):
        train(recipe(name), tmp_path / name, None, 0, "cpu")
    counts = []
    for name in ("clip", "sparc"):
        passes.clear()
        settings = Settings(results=tmp_path / f"results_{name}", runtime=Runtime(), cache="trunk", limit=12)
        assert all(result.error is None for result in evaluate(str(tmp_path / name), tasks, settings))
        counts.append(sum(passes))
    assert counts == [12, 0]


@pytest.mark.slow
def test_the_untrained_towers_have_the_same_trunk_projection_and_mean(recipe, tmp_path):
    train(recipe(steps=3), tmp_path / "run", None, 0, "cpu")
    encoder = own.load(recipe().model_card(), tmp_path / "run", Runtime())
    untrained = encoder.untrained()
    assert isinstance(encoder.trunk, FrozenTrunk)
    assert untrained.trunk.weights_hash == encoder.trunk.weights_hash
    assert untrained.trunk.identity == encoder.trunk.identity
    for name, buffer in encoder.model.towers.image.fixed().items():
        assert torch.equal(untrained.model.towers.image.fixed()[name], buffer)
        assert buffer.abs().max() > 0
