"""Checks, before training, that the data provide the captions and negatives that the objective needs."""

from __future__ import annotations

import torch

from sparc_bench.cards import discovery
from sparc_bench.cards.binding import bind_split, bind_validation, splits_for
from sparc_bench.cards.recipe import Recipe, StepCounts
from sparc_bench.dataset import Examples
from sparc_bench.errors import UserError
from sparc_bench.objective import Objective
from sparc_bench.two_towers.model import objective_and_options

_IN_WORDS = {"several_captions": "several captions per image"}


def refuse_missing(recipe: Recipe) -> None:
    """Raise UserError where the recipe's data set does not provide what its objective needs; no data are read.

    Raises:
        UserError: the data set lacks a facet (the sentence names data sets that have it); an objective, option or data
            set is misspelt; the table [sees] of the recipe is wrong; a split is kept for evaluation; a task of
            [validate] is unknown or has no split for watching a training.
    """
    needs = _needs(_objective(recipe))
    if recipe.sees not in (None, seen := sees_per_step(recipe)):
        raise UserError(f"{recipe.name} declares [sees] {recipe.sees}, but a step of it sees {seen}: mend the card.")
    missing = needs - discovery.load("datasets", recipe.data.dataset).PROVIDES
    if missing:
        raise UserError(
            f"{recipe.objective} needs {_listed(missing)}, which {recipe.data.dataset} has none of: {_that_have(needs)}"
        )
    for val in (False, True):
        bind_split(recipe, val=val)
    bind_validation(recipe)


def sees_per_step(recipe: Recipe) -> StepCounts:
    """Number of images, captions and negatives in one training step of a recipe."""
    objective, size = _objective(recipe), recipe.batch_size
    return StepCounts(
        images=size, captions=size * objective.captions_per_image, negatives=size * objective.negatives_per_image
    )


def refuse_unfilled(recipe: Recipe, data: Examples) -> None:
    """Raise UserError where the examples lack negatives or captions that the objective needs.

    Raises:
        UserError: an example has not one negative per caption, or no example has several captions; the sentence names
            the reader's option to set.
    """
    objective = _objective(recipe)
    known = discovery.load("datasets", recipe.data.dataset).Options.model_fields
    if "negatives" in objective.data_needs:
        bare = next((example for example in data if len(example.negatives) != len(example.captions)), None)
        if bare is not None:
            mend = (
                "set the option 'negatives' in the recipe's data.options."
                if "negatives" in known and "negatives" not in recipe.data.options
                else _that_have(_needs(objective))
            )
            raise UserError(
                f"{recipe.objective} needs a negative for every caption, but {bare.id} has {len(bare.negatives)} for "
                f"{len(bare.captions)}: {mend}"
            )
    if objective.captions_per_image > 1 and all(len(example.captions) < 2 for example in data):
        options = ", ".join(f"{key} = {value!r}" for key, value in recipe.data.options.items()) or "its defaults"
        raise UserError(
            f"{recipe.objective} needs several captions per image, but every image of {recipe.data.dataset} with "
            f"{options} has one: change data.options or data.false_negatives in the recipe."
        )


def _objective(recipe: Recipe) -> Objective:
    """The recipe's loss with heads of arbitrary width: its needs depend on its options alone."""
    loss, options = objective_and_options(recipe)
    with torch.random.fork_rng(devices=[]):
        return loss(8, 8, options)


def _needs(objective: Objective) -> frozenset[str]:
    several = objective.captions_per_image > 1
    return objective.data_needs | (frozenset({"several_captions"}) if several else frozenset())


def _that_have(needs: frozenset[str]) -> str:
    modules = {name: discovery.load("datasets", name) for name in discovery.names("datasets")}
    names = [name for name, of in modules.items() if splits_for(of, "train") and needs <= of.PROVIDES]
    return f"name a data set that has them ({', '.join(names)})." if names else "no data set here has them: add one."


def _listed(needs: frozenset[str]) -> str:
    return " and ".join(_IN_WORDS.get(need, need) for need in sorted(needs))
