import pytest

from sparc_bench.cards import discovery
from sparc_bench.cards.changes import renamed, with_values
from sparc_bench.errors import UserError


@pytest.fixture(scope="module")
def recipe():
    return discovery.recipe("scenes_clip")


def test_dotted_keys_and_tables_change_the_keys_that_they_name(recipe):
    changed = with_values(recipe, {"optim.lr": 0.5, "steps": 60})
    assert (changed.optim.lr, changed.steps, changed.optim.warmup) == (0.5, 60, recipe.optim.warmup)
    nested = renamed(recipe, {"optim": {"lr": 0.5}, "steps": 60})
    assert nested.optim == changed.optim
    assert nested.image == recipe.image


def test_a_changed_recipe_has_a_name_of_its_own_and_nothing_of_the_cards_weights(recipe):
    changed = renamed(recipe, {"batch_size": 32})
    assert changed.name.startswith("scenes_clip_")
    assert (changed.weights, changed.reaches, changed.sees, changed.title) == (None, "", None, recipe.title)
    assert renamed(recipe, {"batch_size": 16}).name != changed.name
    assert renamed(recipe, {"batch_size": 32}, "small").name == "small"
    assert renamed(recipe, {"sees": {"images": 32}, "batch_size": 32}).sees.images == 32


def test_changes_that_change_nothing_leave_the_recipe(recipe):
    assert renamed(recipe, {"steps": recipe.steps}) is recipe
    assert renamed(recipe, {}, "mine").name == "mine"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"optim.lrr": 1.0}, "unknown key 'optim.lrr': did you mean 'lr'"),
        ({"optm.lr": 1.0}, "unknown key 'optm': did you mean 'optim'"),
        ({"steps": {"lr": 1}}, "'steps' is no table with the key 'lr'"),
        ({"objective_options": {"dims": 3}}, "unknown key 'dims'"),
        ({"steps": 10}, r"optim\.warmup \(50\) must be under steps \(10\)"),
    ],
)
def test_unknown_keys_and_invalid_values(recipe, values, sentence):
    with pytest.raises(UserError, match=sentence):
        renamed(recipe, values)


@pytest.mark.parametrize("name", ["../out", "results.seed1", "samples"])
def test_a_name_that_cannot_be_a_folder(recipe, name):
    with pytest.raises(UserError, match="'name' "):
        renamed(recipe, {"steps": 60}, name)
