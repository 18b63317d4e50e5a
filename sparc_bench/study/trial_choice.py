"""The recipes of a study and their requirements, the recipe of each trial, and the choice of the best trial."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sparc_bench.cards import discovery
from sparc_bench.cards.binding import objective_options
from sparc_bench.cards.card import canonical_hash, parse
from sparc_bench.cards.changes import with_values
from sparc_bench.cards.recipe import Optim, Recipe, training_settings
from sparc_bench.cards.study_card import StudyCard, drawn_settings
from sparc_bench.errors import UserError, nearest
from sparc_bench.study.study_rows import TrialRow

TRIAL_SEED = 0
MAY_DIFFER = "negatives"
"""Option of a data set's reader that may differ between recipes of a study: it adds captions and changes none."""


def recipes_of(study: StudyCard) -> dict[str, Recipe]:
    """Name -> recipe of a study, in order, after every check that needs no training.

    Raises:
        UserError: an unknown recipe, recipes that differ in more than their objective, a box that fits no recipe.
    """
    recipes = {card.name: card for card in map(discovery.recipe, study.recipes)}
    for recipe in recipes.values():
        _check_box(study, recipe)
    _refuse_unlike(study, recipes)
    return recipes


def trial_recipe(study: StudyCard, recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe of a trial: the drawn values, `trial_steps` steps, warm-up in proportion, validation at the end."""
    full = with_values(recipe, values)
    warmup = min(round(full.optim.warmup * study.trial_steps / full.steps), study.trial_steps - 1)
    return full.model_copy(
        update={
            "steps": study.trial_steps,
            "eval_every": study.trial_steps,
            "optim": full.optim.model_copy(update={"warmup": warmup}),
        }
    )


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


def best_trial(study: StudyCard, recipe: Recipe, trials: Iterable[TrialRow]) -> TrialRow | None:
    """The trial with the best criterion (the first of equal ones); None while trials are missing or all diverged."""
    current = current_trials(study, recipe, trials)
    finite = [row for row in current if row.diverged_at is None]
    if len(current) < study.trials or not finite:
        return None
    return max(finite, key=lambda row: (criterion(study, row.val), -row.trial))


def criterion(study: StudyCard, val: Mapping[str, float]) -> float:
    """The mean of the validation scores that the study's `criterion` names.

    Raises:
        UserError: a score that the training does not report.
    """
    for name in study.criterion:
        if name not in val:
            raise UserError(f"Study {study.name}: val has no score '{name}' for the criterion: {nearest(name, val)}")
    return round(sum(val[name] for name in study.criterion) / len(study.criterion), 6)


def differences(card: Recipe, study: StudyCard, trials: Sequence[TrialRow]) -> list[str]:
    """One sentence for each key in which a recipe's card differs from its best trial; empty where all diverged.

    Missing trials give one sentence instead, because nothing is chosen without them.
    """
    current = current_trials(study, card, trials)
    if len(current) < study.trials:
        return [f"{card.name}: {study.trials - len(current)} of its {study.trials} trials are missing"]
    best = best_trial(study, card, trials)
    if best is None:
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
    return {f"{head}.{key}": getattr(table, key) for head, table in tables.items() for key in type(table).model_fields}


def _check_box(study: StudyCard, recipe: Recipe) -> None:
    where = f"Study {study.name}, box of {recipe.name}"
    if study.trial_steps > recipe.steps:
        raise UserError(
            f"Study {study.name}: trial_steps ({study.trial_steps}) is over the {recipe.steps} steps of {recipe.name}: "
            "lower it."
        )
    options = discovery.declared("objectives", recipe.objective).Objective.Options
    fields = {"optim": Optim.model_fields, "objective_options": options.model_fields}
    for dotted, interval in study.box_of(recipe.name).items():
        head, _, key = dotted.partition(".")
        if head not in fields:
            raise UserError(f"{where}: '{dotted}' cannot be drawn: draw from optim or objective_options alone.")
        if key not in fields[head]:
            raise UserError(f"{where}: {recipe.objective} has no '{dotted}': {nearest(key, fields[head])}")
        for value in interval.ends():
            with_values(recipe, {dotted: value})
    drawn_settings(study, recipe.name)


def _refuse_unlike(study: StudyCard, recipes: Mapping[str, Recipe]) -> None:
    seen: dict[str, tuple[str, Any]] = {}
    for name, recipe in recipes.items():
        box = study.box_of(name)
        for key, value in _kept_equal(recipe).items():
            if key in box:
                continue
            first, other = seen.setdefault(key, (name, value))
            if value != other:
                raise UserError(
                    f"Study {study.name} compares recipes that differ in more than their objective: {key} is "
                    f"{other!r} in {first} and {value!r} in {name}; make them equal, or leave one out."
                )


def _kept_equal(recipe: Recipe) -> dict[str, Any]:
    """Key -> value of all settings that have to be equal in the recipes of a study."""
    dataset = discovery.declared("datasets", recipe.data.dataset)
    data = recipe.data.model_dump()
    tables: dict[str, Mapping[str, Any]] = {"data": data, "optim": recipe.optim.model_dump()}
    tables |= {name: tower.model_dump() for name in ("image", "text") if (tower := getattr(recipe, name)) is not None}
    for key, values in (("options", recipe.data.options), ("val_options", {**data["options"], **data["val_options"]})):
        del data[key]
        read = parse(dataset.Options, values, f"{recipe.name}: [data.{key}]").model_dump()
        tables[f"data.{key}"] = {name: value for name, value in read.items() if name != MAY_DIFFER}
    plain = {key: getattr(recipe, key) for key in ("batch_size", "steps", "precision", "init", "freeze")}
    return plain | {f"{table}.{key}": value for table, values in tables.items() for key, value in values.items()}
