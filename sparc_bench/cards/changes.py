"""A recipe with other values of some keys: a trial of a study, or a training with changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sparc_bench.cards.binding import objective_options
from sparc_bench.cards.card import canonical_hash, parse
from sparc_bench.cards.recipe import Recipe, training_settings
from sparc_bench.errors import UserError

DIGITS = 8
"""Digits of the hash in the name of a changed recipe."""


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with other values at dotted keys; raises UserError for an unknown key or an invalid value."""
    where = f"{recipe.name} with {described(values)}"
    table = recipe.model_dump()
    for dotted, value in values.items():
        *heads, key = dotted.split(".")
        inner = table
        for head in heads:
            inner = inner.setdefault(head, {})
            if not isinstance(inner, dict):
                raise UserError(f"{where}: '{head}' is no table with the key '{key}': change '{head}' as a whole.")
        inner[key] = value
    changed = parse(Recipe, table, where)
    objective_options(changed)
    return changed


def renamed(recipe: Recipe, values: Mapping[str, Any], name: str | None = None) -> Recipe:
    """The recipe with other values, under a name of its own, since its weights are not those of the card's name.

    Kept weights, measured costs and scores, and the declared counts of a step are the card's and are left out. Where
    no value changes what is trained, and no name is given, it is the recipe itself.

    Args:
        recipe: of a card.
        values: by key, as dotted keys (`optim.lr`) or as tables (`optim = {"lr": ...}`), of which only the keys named
            are changed.
        name: of the changed recipe; NAME_ and eight digits of the hash of its settings by default.

    Raises:
        UserError: an unknown key or an invalid value.
    """
    changed = with_values(recipe, dict(_leaves(values)))
    settings = training_settings(changed)
    if name is None and settings == training_settings(recipe):
        return recipe
    own = {"weights": None, "probe": None, "cost": "", "reaches": ""}
    if "sees" not in values and settings != training_settings(recipe):
        own["sees"] = None
    digits = canonical_hash(settings)[:DIGITS]
    named = changed.model_copy(update=own | {"name": name or f"{recipe.name}_{digits}"})
    return parse(Recipe, named.model_dump(), f"{recipe.name} with {described(values)}")


def described(values: Mapping[str, Any]) -> str:
    """Values in words: `optim.lr = 0.001, objective_options.dim = 64`."""
    return ", ".join(f"{key} = {value}" for key, value in values.items())


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs (dotted key, value) of nested tables."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
