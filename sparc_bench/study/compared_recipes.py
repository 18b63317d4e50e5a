"""The recipes of a study, its variants among them, and what has to be the same for all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparc_bench.cards import discovery
from sparc_bench.cards.binding import bind_validation
from sparc_bench.cards.card import parse
from sparc_bench.cards.changes import described, renamed, with_values
from sparc_bench.cards.image_tower import FITTED, ImageTowerTable
from sparc_bench.cards.recipe import Optim, Recipe, Validate
from sparc_bench.cards.study_card import StudyCard, drawn_settings
from sparc_bench.errors import UserError, nearest

MAY_DIFFER = "negatives"
"""Option of a data set's reader that may differ between recipes of a study: it adds captions and changes none."""


def recipes_of(study: StudyCard) -> dict[str, Recipe]:
    """Name -> recipe of a study, in order, after every check that needs no training.

    Raises:
        UserError: an unknown recipe or task, recipes that differ in more than their objective and what a variant
            states, a box that fits no recipe, criteria of tasks that are not scored on val.
    """
    recipes = compared_recipes(study)
    for recipe in recipes.values():
        _check_box(study, recipe)
        _check_criteria(study, recipe)
    _refuse_unlike(study, recipes)
    return recipes


def compared_recipes(study: StudyCard) -> dict[str, Recipe]:
    """Name -> recipe of a study, in order, with the study's tasks on val in place of its own.

    Raises:
        UserError: an unknown recipe, or a variant with an unknown key or an invalid value.
    """
    recipes = {card.name: card for card in map(discovery.recipe, study.recipes)}
    paths = {Path(entry).name.removesuffix(".toml"): entry for entry in study.recipes}
    for name, variant in study.variants.items():
        base = discovery.recipe(paths.get(variant.of, variant.of))
        made = renamed(base.model_copy(update={"name": name}), variant.set, name)  # errors name the variant
        recipes[name] = made.model_copy(
            update={"title": f"{base.title}; {described(variant.set)}", "notes": "", "attempts": 0}
        )
    if study.validate:
        watched = Validate(tasks=study.validate)
        recipes = {name: recipe.model_copy(update={"validate": watched}) for name, recipe in recipes.items()}
    return recipes


def _check_box(study: StudyCard, recipe: Recipe) -> None:
    where = f"Study {study.name}, box of {recipe.name}"
    if study.trial_steps > recipe.steps:
        raise UserError(
            f"Study {study.name}: trial_steps ({study.trial_steps}) is over the {recipe.steps} steps of {recipe.name}: "
            "lower it."
        )
    options = discovery.declared("objectives", recipe.objective).Objective.Options
    fitted = {key: ImageTowerTable.model_fields[key] for key in FITTED}
    fields = {"optim": Optim.model_fields, "objective_options": options.model_fields, "image": fitted}
    for dotted, interval in study.box_of(recipe.name).items():
        head, _, key = dotted.partition(".")
        if head not in fields:
            raise UserError(
                f"{where}: '{dotted}' cannot be drawn: draw from optim, objective_options, image.projection and "
                "image.position_mean alone."
            )
        if key not in fields[head]:
            raise UserError(f"{where}: {recipe.objective} has no '{dotted}': {nearest(key, fields[head])}")
        for value in interval.ends():
            with_values(recipe, {dotted: value})
    drawn_settings(study, recipe.name)


def _check_criteria(study: StudyCard, recipe: Recipe) -> None:
    """Refuse a criterion TASK/METRIC of a task that is not scored on val; metrics are known when data are read."""
    tasks = [task.card.name for task in bind_validation(recipe, discovery.declared)]
    for name in (*study.criterion, *study.second_criterion):
        task, slash, _ = name.partition("/")
        if slash and not tasks:
            raise UserError(
                f"Study {study.name}: the criterion '{name}' is of a task that {recipe.name} is not scored on: name it "
                "in validate."
            )
        if tasks and task not in tasks:
            raise UserError(
                f"Study {study.name}: the criterion '{name}' is of none of the tasks that are scored on val "
                f"({', '.join(tasks)}): {nearest(task, tasks)}"
            )


def _refuse_unlike(study: StudyCard, recipes: Mapping[str, Recipe]) -> None:
    seen: dict[str, tuple[str, Any]] = {}
    for name, recipe in recipes.items():
        free = {*study.box_of(name), *study.fixed(name)}
        for key, value in _kept_equal(recipe).items():
            if key in free:
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
    for name in ("image", "text"):
        tower = getattr(recipe, name)
        # not a dump, which leaves out later keys at their former values
        tables[name] = {key: getattr(tower, key) for key in type(tower).model_fields} if tower is not None else {}
    for key, values in (("options", recipe.data.options), ("val_options", {**data["options"], **data["val_options"]})):
        del data[key]
        read = parse(dataset.Options, values, f"{recipe.name}: [data.{key}]").model_dump()
        tables[f"data.{key}"] = {name: value for name, value in read.items() if name != MAY_DIFFER}
    plain = {key: getattr(recipe, key) for key in ("batch_size", "steps", "precision", "init", "freeze")}
    return plain | {f"{table}.{key}": value for table, values in tables.items() for key, value in values.items()}
