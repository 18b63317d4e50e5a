"""Every recipe, shrunk, trains three steps and can be evaluated."""

import math

import pytest

from sparc_bench import discover
from sparc_bench.cards import Recipe
from sparc_bench.encoders import own
from sparc_bench.training.run import train

RECIPES = [name for name in discover.names("models") if isinstance(discover.model(name), Recipe)]


def shrunk(recipe):
    embedded = recipe.data.dataset == "scenes1"
    few = {"options": {**recipe.data.options, "n": 300}, "val_options": {"n": 12}} if embedded else {"split": "val"}
    tower = {"width": 24, "depth": 1, "heads": 2}
    return recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update=few),
            "image": recipe.image.model_copy(update=tower),
            "text": recipe.text.model_copy(update={**tower, "vocabulary": 320}),
            "optim": recipe.optim.model_copy(update={"warmup": 1}),
            "batch_size": 4,
            "steps": 3,
            "eval_every": 3,
        }
    )


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_trains_three_steps(name, request, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARC_BENCH_CACHE", str(tmp_path / "cache"))
    recipe = shrunk(discover.recipe(name))
    root = None if recipe.data.dataset == "scenes1" else request.getfixturevalue("test_data")
    summary = train(recipe, tmp_path / "run", root, 0, "cpu")
    assert summary["steps"] == 3
    assert all(math.isfinite(value) for value in summary["val"].values())
    encoder = own.load(recipe.model_card(), tmp_path / "run")
    assert encoder.gives >= {"global", "patches", "tokens"}


def test_the_two_objectives_train_alike():
    """A comparison of objectives is one of objectives only: all else in the recipes is equal."""
    for family in ("scenes", "flickr8k"):
        first, second = (
            discover.recipe(f"{family}_{objective}").model_dump(
                exclude={"name", "title", "source", "objective", "notes", "cost", "reaches", "weights"}
            )
            for objective in ("clip", "sparc")
        )
        assert first == second
