"""The recipe of each trial, and the choice of the best trial."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sparc_bench.cards.binding import objective_options
from sparc_bench.cards.card import canonical_hash
from sparc_bench.cards.changes import with_values
from sparc_bench.cards.image_tower import FITTED
from sparc_bench.cards.recipe import Recipe, training_settings
from sparc_bench.cards.study_card import StudyCard, drawn_settings
from sparc_bench.errors import UserError, nearest
from sparc_bench.study.study_rows import TrialRow

TRIAL_SEED = 0


def trial_recipe(study: StudyCard, recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe of a trial: the drawn values, `trial_steps` steps, warm-up in proportion, validation at the end."""
    return of_length(with_values(recipe, values), study.trial_steps)


def of_length(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with another number of steps, its warm-up in proportion, validated at the end."""
    warmup = min(round(recipe.optim.warmup * steps / recipe.steps), steps - 1)
    optim = recipe.optim.model_copy(update={"warmup": warmup})
    return recipe.model_copy(update={"steps": steps, "eval_every": steps, "optim": optim})


def training_hash(recipe: Recipe, seed: int) -> str:
    """The hash of all keys that decide the weights, without keys at their default (a new key then changes no hash)."""
    decides = set(training_settings(recipe)) - {"sees"}
    return canonical_hash([recipe.model_dump(mode="json", include=decides, exclude_defaults=True), seed])[:16]


def current_trials(study: StudyCard, recipe: Recipe, trials: Iterable[TrialRow]) -> list[TrialRow]:
    """The rows of a recipe's trials that match the present cards of recipe and study, in order."""
    wanted = [
        training_hash(trial_recipe(study, recipe, values), TRIAL_SEED) for values in drawn_settings(study, recipe.name)
    ]
    there = {row.trial: row for row in trials if row.recipe == recipe.name}
    return [there[k] for k, key in enumerate(wanted) if k in there and there[k].hash == key]


def best_trial(study: StudyCard, recipe: Recipe, trials: Iterable[TrialRow], by: Sequence[str] = ()) -> TrialRow | None:
    """The trial with the best criterion (the first of equal ones); None while trials are missing or all diverged.

    Args:
        study: the study.
        recipe: one of its recipes.
        trials: rows of all recipes.
        by: val scores whose mean decides; none: the study's `criterion`.
    """
    current = current_trials(study, recipe, trials)
    finite = [row for row in current if row.diverged_at is None]
    if len(current) < study.trials or not finite:
        return None
    return max(finite, key=lambda row: (criterion(study, row.val, by), -row.trial))


def criterion(study: StudyCard, val: Mapping[str, float], by: Sequence[str] = ()) -> float:
    """The mean of the validation scores that `by` names, or of the study's `criterion`.

    Raises:
        UserError: a score that the training did not report.
    """
    names = by or study.criterion
    return round(sum(val_score(study, val, name) for name in names) / len(names), 6)


def val_score(study: StudyCard, val: Mapping[str, float], name: str) -> float:
    """The score of a name, the best one where the name has a `*` that stands for the model's patch paths."""
    values = [val[each] for each in fnmatch.filter(val, name)]
    if not values:
        raise UserError(
            f"Study {study.name}: a trial has no score '{name}' for the criterion: {nearest(name, val)} "
            "Where the score was added after the trials, delete their rows and run folders."
        )
    return max(values)


def differences(card: Recipe, study: StudyCard, trials: Sequence[TrialRow]) -> list[str]:
    """One sentence for each key in which a recipe's card differs from its best trial; empty where all diverged.

    Missing trials give one sentence instead, because nothing is chosen without them. A variant has no card to hold
    what was chosen.
    """
    current = current_trials(study, card, trials)
    if len(current) < study.trials:
        return [f"{card.name}: {study.trials - len(current)} of its {study.trials} trials are missing"]
    best = best_trial(study, card, trials)
    if best is None or card.name in study.variants:
        return []
    there, chosen = _settings(card), _settings(with_values(card, best.values))
    return [
        f"{card.name}: {key} = {value} (the card says {there[key]})"
        for key, value in chosen.items()
        if value != there[key]
    ]


def _settings(recipe: Recipe) -> dict[str, Any]:
    """Dotted key -> value of all settings that a box may draw, defaults included."""
    tables = {"optim": recipe.optim, "objective_options": objective_options(recipe)}
    # not a dump, which leaves out later keys at their former values
    drawn = {f"{head}.{key}": getattr(table, key) for head, table in tables.items() for key in type(table).model_fields}
    return drawn | ({f"image.{key}": getattr(recipe.image, key) for key in FITTED} if recipe.image is not None else {})
