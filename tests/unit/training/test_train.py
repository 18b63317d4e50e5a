"""Runs: repeatable bit for bit, resumed exactly, stopped with a sentence."""

import json
from dataclasses import replace
from itertools import count

import pytest
import torch
from safetensors import safe_open

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.encoder import Runtime
from sparc_bench.encoders import own
from sparc_bench.errors import StoppedError, UserError
from sparc_bench.protocols import retrieval
from sparc_bench.training import train as run_module
from sparc_bench.training.pixels import load_pixels
from sparc_bench.training.run_inputs import read_split
from sparc_bench.training.train import train
from sparc_bench.training.validate import validation_scores
from sparc_bench.two_towers.architecture import architecture_of


def losses(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["learning_rate"]) for line in lines if "loss" in line]


def assert_same_weights(first, second):
    with safe_open(first / own.WEIGHTS_FILE, "pt") as a, safe_open(second / own.WEIGHTS_FILE, "pt") as b:
        assert a.keys() == b.keys()
        assert all(torch.equal(a.get_tensor(name), b.get_tensor(name)) for name in a.keys())  # noqa: SIM118


@pytest.mark.slow
def test_same_seed_gives_the_same_losses_bit_for_bit_and_another_seed_others(tiny, tmp_path):
    first, second, other = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    for folder, seed in ((first, 0), (second, 0), (other, 1)):
        train(tiny, folder, None, seed, "cpu")
    assert losses(first) == losses(second)
    assert losses(first) != losses(other)
    assert_same_weights(first, second)
    assert (first / own.WEIGHTS_FILE).read_bytes() == (second / own.WEIGHTS_FILE).read_bytes()


@pytest.mark.slow
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tiny, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(tiny, whole, None, 0, "cpu")
    real = run_module.forward_backward

    steps = count()

    def stop_at(model, loaded, device, autocast):
        if next(steps) == 4:
            raise KeyboardInterrupt
        return real(model, loaded, device, autocast)

    monkeypatch.setattr("sparc_bench.training.loop.forward_backward", stop_at)
    with pytest.raises(StoppedError, match="Stopped by Ctrl-C"):
        train(tiny, cut, None, 0, "cpu")
    monkeypatch.undo()
    monkeypatch.setenv("SPARC_BENCH_CACHE", str(tmp_path / "cache"))
    summary = train(tiny, cut, None, 0, "cpu")
    assert summary["resumed_from"] == 3
    assert losses(cut) == losses(whole)
    assert_same_weights(cut, whole)


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again(tiny, tmp_path, monkeypatch):
    summary = train(tiny, tmp_path / "run", None, 0, "cpu")
    monkeypatch.setattr(run_module, "fit", None)
    assert train(tiny, tmp_path / "run", None, 0, "cpu") == summary


@pytest.mark.slow
def test_another_recipe_or_seed_in_the_folder_is_refused(tiny, tmp_path):
    train(tiny, tmp_path / "run", None, 0, "cpu")
    with pytest.raises(UserError, match="another recipe or seed"):
        train(tiny.model_copy(update={"steps": 7}), tmp_path / "run", None, 0, "cpu")
    with pytest.raises(UserError, match="another recipe or seed"):
        train(tiny, tmp_path / "run", None, 1, "cpu")


def test_a_loss_that_is_not_finite_names_step_parts_and_checkpoint(tiny, tmp_path, monkeypatch):
    real = run_module.forward_backward

    steps = count()

    def broken(model, loaded, device, autocast):
        figures = real(model, loaded, device, autocast)
        return figures | {"loss": torch.tensor(float("nan"))} if next(steps) == 4 else figures

    monkeypatch.setattr("sparc_bench.training.loop.forward_backward", broken)
    with pytest.raises(UserError, match=r"not finite at step 5 .*fine_loss.*checkpoint\.safetensors \(step 3\)"):
        train(tiny, tmp_path / "run", None, 0, "cpu")
    assert not (tmp_path / "run" / own.WEIGHTS_FILE).exists()


def test_test_splits_are_refused(tiny, tmp_path):
    for field in ("split", "val_split"):
        data = tiny.data.model_copy(update={field: "test"})
        with pytest.raises(UserError, match="kept for evaluation"):
            train(tiny.model_copy(update={"data": data}), tmp_path / "run", None, 0, "cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_held_out_report_says_what_the_image_is_worth(tiny, tmp_path):
    report = train(tiny, tmp_path / "run", None, 0, "cpu")["held_out"]
    assert report["captions"] == 16
    assert {"true", "shuffled", "grey", "gain_over_grey", "verdict"} <= set(report)
    gain = report["gain_over_grey"]
    assert gain["value"] == pytest.approx(report["grey"]["loss"] - report["true"]["loss"], abs=1e-5)
    assert (gain["low"] > 0) == (not report["verdict"].startswith("the fine loss does not need the image"))


@pytest.mark.slow
def test_the_encoder_of_a_run_gives_what_training_saw(tiny, tmp_path):
    summary = train(tiny, tmp_path / "run", None, 0, "cpu")
    encoder = own.load(tiny.model_card(), tmp_path / "run", Runtime())
    data = read_split(tiny, None, val=True)
    images = encoder.images(data.views, frozenset({"global", "patches"}))
    assert images.global_ND.shape == (16, 16)
    assert {path: tuple(x.shape) for path, x in images.patches.items()} == {
        "local": (16, 16, 16),
        "global": (16, 16, 16),
    }
    assert images.area_N4[0].tolist() == [0, 0, 64, 64]
    assert encoder.train_words
    pixels = load_pixels(data, architecture_of(tiny, None).image_transform(tiny.name), 0.0)
    assert validation_scores(encoder, data, pixels) == pytest.approx(summary["val"])
    untrained = encoder.untrained().images(data.views[:2], frozenset({"global"}))
    assert not torch.allclose(untrained.global_ND, images.global_ND[:2])


@pytest.mark.slow
def test_validation_scores_are_those_of_the_retrieval_task(tiny, tmp_path):
    logged = train(tiny, tmp_path / "run", None, 0, "cpu")["val"]
    encoder = own.load(tiny.model_card(), tmp_path / "run", Runtime())
    options = retrieval.Options(ks=(1, 5, 10), truth="full", ties="expected")
    outcome = outcome_of(retrieval, encoder, read_split(tiny, None, val=True), options)
    assert logged == {name: outcome.metrics[name].value for name in logged}
    assert len(logged) == 6


@pytest.mark.slow
def test_validation_ranks_the_images_that_can_be_read(tiny, tmp_path):
    train(tiny, tmp_path / "run", None, 0, "cpu")
    encoder = own.load(tiny.model_card(), tmp_path / "run", Runtime())
    data = read_split(tiny, None, val=True)
    whole = load_pixels(data, architecture_of(tiny, None).image_transform(tiny.name), 0.0)
    rows = tuple(range(1, len(data), 2))
    some = replace(whole, index=rows, array_NSS3=whole.array_NSS3[list(rows)])
    part = replace(data, examples=tuple(data.examples[row] for row in rows))
    assert validation_scores(encoder, data, some) == pytest.approx(retrieval.hit_rates(encoder, part, (1, 5, 10)))


@pytest.mark.slow
def test_tensorboard_files_if_asked_for(tiny, tmp_path):
    pytest.importorskip("tensorboard")
    train(tiny, tmp_path / "run", None, 0, "cpu", tensorboard=True)
    assert list((tmp_path / "run" / "tensorboard").iterdir())
