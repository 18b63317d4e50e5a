"""Every recipe, shrunk, trains three steps and can be evaluated."""

import math
from pathlib import Path

import pytest

from sparc_bench.cards import discovery
from sparc_bench.cards.recipe import Recipe
from sparc_bench.encoder import Runtime
from sparc_bench.encoders import own
from sparc_bench.evaluation.evaluate import Settings, evaluate
from sparc_bench.study.compared_recipes import recipes_of
from sparc_bench.study.study_rows import TRIALS, TrialRow, folder_of, read_rows
from sparc_bench.study.trial_choice import current_trials, differences
from sparc_bench.training.train import train

RESULTS = Path(__file__).parents[2] / "results"
RECIPES = [name for name in discovery.names("models") if isinstance(discovery.model(name), Recipe)]


def shrunk(recipe):
    embedded = recipe.data.dataset == "scenes1"
    key, many = ("n", 300) if embedded else ("first", 128)
    few = {"options": {**recipe.data.options, key: many}, "val_options": {key: 12}}
    tower = {"width": 24, "depth": 1, "heads": 2}
    return recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update=few),
            # a pretrained trunk has sizes of its own
            "image": recipe.image if recipe.image.pretrained else recipe.image.model_copy(update=tower),
            "text": recipe.text.model_copy(update={**tower, "vocabulary": 320}),
            "optim": recipe.optim.model_copy(update={"warmup": 1}),
            "batch_size": 4,
            "sees": None,
            "steps": 3,
            "eval_every": 3,
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_recipe_trains_three_steps(name, request, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARC_BENCH_CACHE", str(tmp_path / "cache"))
    recipe = shrunk(discovery.recipe(name))
    root = None if recipe.data.dataset == "scenes1" else request.getfixturevalue("test_data")
    summary = train(recipe, tmp_path / "run", root, 0, "cpu")
    assert summary["steps"] == 3
    assert all(math.isfinite(value) for value in summary["val"].values())
    encoder = own.load(recipe.model_card(), tmp_path / "run", Runtime())
    assert encoder.gives >= {"image", "text", "patches"}


@pytest.mark.slow
@pytest.mark.parametrize("objective", discovery.names("objectives"))
def test_every_objective_trains_and_is_evaluated(objective, tmp_path, monkeypatch):
    """Those without a recipe of their own too, on several captions and written negatives where they want them."""
    monkeypatch.setenv("SPARC_BENCH_CACHE", str(tmp_path / "cache"))
    recipe = shrunk(discovery.recipe("scenes_negclip"))
    recipe = recipe.model_copy(
        update={"name": "smoke", "objective": objective, "objective_options": {"dim": 16}, "sees": None}
    )
    summary = train(recipe, tmp_path / "run", None, 0, "cpu")
    assert summary["steps"] == 3
    assert all(0 <= value <= 1 for value in summary["val"].values())
    settings = Settings(results=tmp_path / "results", limit=8)
    tasks = [discovery.task(f"scenes_{name}") for name in ("retrieval", "regions_colour", "segmentation_colour")]
    for result in evaluate(str(tmp_path / "run"), tasks, settings):
        assert result.error is None
        assert all(math.isfinite(metric.value) for metric in result.record.metrics.values())


@pytest.mark.parametrize("study", discovery.names("studies"))
def test_recipes_of_a_study_hold_the_settings_that_its_trials_chose(study):
    """A comparison of objectives is one of objectives only: all else is equal, and nobody got more trials."""
    card = discovery.study(study)
    recipes = recipes_of(card)
    if not folder_of(study, RESULTS).is_dir():
        pytest.skip("announced: no trial was run yet")
    trials = read_rows(folder_of(study, RESULTS) / TRIALS, TrialRow)
    for name in card.names:
        assert len(current_trials(card, recipes[name], trials)) == card.trials
        assert differences(recipes[name], card, trials) == []
