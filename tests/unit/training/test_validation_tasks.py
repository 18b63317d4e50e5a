"""A training is watched by tasks: the numbers of an evaluation on val, and not one loss moves."""

import json
import os
import random
import signal

import numpy as np
import pytest
import torch

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.cards.binding import bind, bind_validation
from sparc_bench.cards.recipe import Recipe
from sparc_bench.encoder import Runtime
from sparc_bench.encoders import own
from sparc_bench.errors import StoppedError, UserError
from sparc_bench.feature_cache.cache import FeatureCache
from sparc_bench.training import train as run_module
from sparc_bench.training.log import SilentLog
from sparc_bench.training.train import train
from sparc_bench.training.validation_tasks import ValidationTask, read_tasks, refuse_lacking, task_scores
from tests.toys.captioned_photos import photo_recipe, write_photos
from tests.unit.training.test_several_processes import to_toml, torchrun
from tests.unit.training.test_train import assert_same_weights, losses

FAMILIES = ("scenes_retrieval", "scenes_segmentation_colour", "scenes_minimal_pairs")
LIMIT = 12


def watched(recipe, *tasks, **changes):
    return Recipe.model_validate({**recipe.model_dump(), "validate": {"tasks": tasks, "limit": LIMIT, **changes}})


def validations(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["val"]) for line in lines if "val" in line]


@pytest.mark.slow
def test_scores_are_those_of_the_tasks_on_val(tiny, tmp_path):
    summary = train(watched(tiny, *FAMILIES), tmp_path / "run", None, 0, "cpu")
    logged = validations(tmp_path / "run")
    assert [step for step, _ in logged] == [0, 3, 6]
    assert logged[-1][1] == summary["val"] != logged[0][1]
    encoder = own.load(tiny.model_card(), tmp_path / "run", Runtime())
    for task, data in ((each.task, each.data) for each in read_tasks(watched(tiny, *FAMILIES), None)):
        assert (data.split, len(data)) == ("val", LIMIT)
        metrics = outcome_of(bind(task.card).protocol, encoder, data, task.options).metrics
        found = {name: value for name, value in summary["val"].items() if name.startswith(f"{task.card.name}/")}
        assert found == {f"{task.card.name}/{name}": pytest.approx(metric.value) for name, metric in metrics.items()}
    assert "scenes_segmentation_colour/local/miou" in summary["val_headlines"]
    assert set(summary["val_headlines"]) < set(summary["val"])


@pytest.mark.slow
def test_losses_and_weights_are_those_of_a_training_that_nothing_watches(tiny, tmp_path):
    train(watched(tiny, *FAMILIES), tmp_path / "watched", None, 0, "cpu")
    train(tiny, tmp_path / "alone", None, 0, "cpu")
    assert losses(tmp_path / "watched") == losses(tmp_path / "alone")
    assert_same_weights(tmp_path / "watched", tmp_path / "alone")
    assert "val_headlines" not in json.loads((tmp_path / "alone" / "summary.json").read_text())


@pytest.mark.slow
def test_random_numbers_stay_where_they_were(tiny, tmp_path):
    train(tiny, tmp_path / "run", None, 0, "cpu")
    # loader workers draw their seed from torch's random numbers
    encoder = own.load(tiny.model_card(), tmp_path / "run", Runtime(workers=1))
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002 - that it stays
    task_scores(encoder, read_tasks(watched(tiny, *FAMILIES), None), SilentLog().images, FeatureCache("off"))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), str(np.random.get_state())) == states[1:]  # noqa: NPY002


@pytest.mark.slow
def test_a_validation_that_was_cut_short_is_made_up_for_and_each_stands_in_the_log_once(tiny, tmp_path, monkeypatch):
    recipe, real, done = watched(tiny, *FAMILIES), run_module.task_scores, []
    train(recipe, tmp_path / "whole", None, 0, "cpu")

    def cut_at(number):
        def scores(*args):
            done.append(1)
            if len(done) == number:
                os.kill(os.getpid(), signal.SIGTERM)
            return real(*args)

        return scores

    monkeypatch.setattr(run_module, "task_scores", cut_at(2))
    with pytest.raises(StoppedError, match=r"\(step 3\)"):
        train(recipe, tmp_path / "cut", None, 0, "cpu")
    assert [step for step, _ in validations(tmp_path / "cut")] == [0]
    train(recipe, tmp_path / "cut", None, 0, "cpu")
    assert validations(tmp_path / "cut") == validations(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_are_watched_by_the_first(tiny, tmp_path):
    card = tmp_path / "tiny.toml"
    card.write_text(to_toml(watched(tiny, *FAMILIES)))
    done = torchrun(2, card, "--runs", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "tiny" / "seed0"
    assert [step for step, _ in validations(folder)] == [0, 3, 6]
    shown = "step 0: val scenes_retrieval/text_to_image_r1 "
    assert done.stderr.count(shown) == 1


@pytest.mark.slow
def test_tensorboard_has_a_curve_for_each_metric(tiny, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(watched(tiny, "scenes_retrieval"), tmp_path / "run", None, 0, "cpu", tensorboard=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    curve = events.Scalars("val/scenes_retrieval/text_to_image_r1")
    assert [event.step for event in curve] == [0, 3, 6]


def refused(recipe, tmp_path, root, sentence):
    def never(step):
        raise AssertionError("it trained")

    with pytest.raises(UserError, match=sentence):
        train(recipe, tmp_path / "run", root, 0, "cpu", on_step=never)


def test_a_task_without_its_data_is_refused_before_the_first_step(tiny, tmp_path):
    refused(watched(tiny, "flickr8k_retrieval"), tmp_path, tmp_path, "holds no folder 'flickr8k")


def test_a_benchmark_is_refused_before_the_first_step(tiny, tmp_path):
    refused(watched(tiny, "sugar_crepe"), tmp_path, None, "sugar_crepe is kept for evaluation")
    assert not (tmp_path / "run").exists()


def test_a_task_that_asks_for_what_the_model_does_not_give_is_refused_by_name(tiny):
    tasks = [ValidationTask(task, None) for task in bind_validation(watched(tiny, "scenes_segmentation_colour"))]
    refuse_lacking(tiny, tasks, {"image", "text", "global", "patches"})
    with pytest.raises(
        UserError, match="scenes_segmentation_colour needs patches of a model, which tiny does not give"
    ):
        refuse_lacking(tiny, tasks, {"image", "text", "global"})


@pytest.mark.slow
def test_a_photo_that_cannot_be_read_stops_a_training_before_the_first_step(tiny, tmp_path):
    root = write_photos(tmp_path / "data")
    recipe = photo_recipe(tiny)
    card = tmp_path / "own_retrieval.toml"
    values = {"dataset": "coco_captions", "data": recipe.data.val_options, "protocol": "retrieval"}
    options = {"ks": [1], "truth": "own", "ties": "expected"}
    texts = {"title": "own", "family": "retrieval", "source": "none", "headline": "text_to_image_r1", "split": "val"}
    card.write_text(
        "\n".join(f"{key} = {toml(value)}" for key, value in {**texts, **values, "options": options}.items())
    )
    train(watched(recipe, str(card)), tmp_path / "whole", root, 0, "cpu", on_step=lambda _: None)
    # the trainer's own validation leaves such a photo out, a task does not
    (root / "own" / "images" / "0003.png").write_bytes(b"no image")
    data = recipe.data.model_copy(update={"max_unreadable": 0.5})
    refused(watched(recipe.model_copy(update={"data": data}), str(card)), tmp_path, root, "0003")
    assert validations(tmp_path / "run") == []


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value)


@pytest.mark.parametrize("table", [{"tasks": []}, {"tasks": ["scenes_retrieval"], "limit": 0}, {"limit": 5}])
def test_a_table_that_says_nothing_is_refused(tiny, table):
    with pytest.raises(ValueError, match="validate"):
        Recipe.model_validate({**tiny.model_dump(), "validate": table})
