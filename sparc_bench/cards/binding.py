"""Cards bound to the modules that they name.

A task is bound to its data set and protocol; a recipe to its two splits, and to the tasks that watch its training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal

from sparc_bench.cards import discovery, prompts
from sparc_bench.cards.card import Strict, canonical_hash, is_card_path, parse
from sparc_bench.cards.recipe import Recipe
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.errors import UserError, nearest

Modules = Callable[[str, str], ModuleType]
"""Getter of a module by kind and name: `discovery.load`, or `discovery.declared` where nothing is run."""


@dataclass(frozen=True)
class BoundTask:
    """A task card with the modules that it names and its option tables checked against them."""

    card: TaskCard
    dataset: ModuleType
    data_options: Strict
    protocol: ModuleType
    options: Strict

    def protocol_hash(self, limit: int | None = None) -> str:
        """Hash of data set, split, protocol, options, and the content of named files."""
        return canonical_hash(
            {
                "dataset": self.card.dataset,
                "split": self.card.split,
                "data": _without_paths(self.data_options.model_dump(mode="json")),
                "protocol": self.card.protocol,
                "version": self.protocol.VERSION,
                "options": _without_paths(self.options.model_dump(mode="json")),
                "files": [_named_content(self.card.options), _named_content(self.card.data)],
                "limit": limit,
            }
        )


def bind(card: TaskCard, modules: Modules = discovery.load) -> BoundTask:
    """Find the modules that a task card names and check its tables.

    Args:
        card: of the task.
        modules: `discovery.declared` where the task is looked at and not run.

    Raises:
        UserError: an unknown module, split or option, a protocol that needs what the data set does not provide, or a
            part of a benchmark that is not marked as a sample.
    """
    dataset, protocol = modules("datasets", card.dataset), modules("protocols", card.protocol)
    if card.split not in dataset.SPLITS:
        raise UserError(
            f"Task {card.name}: {card.dataset} has no split '{card.split}': choose one of {', '.join(dataset.SPLITS)}."
        )
    missing = protocol.DATA - dataset.PROVIDES
    if missing:
        raise UserError(
            f"Task {card.name}: the protocol {card.protocol} needs {', '.join(sorted(missing))}, which {card.dataset} "
            "does not provide: choose another data set or protocol."
        )
    data_options = parse(dataset.Options, card.data, f"Task {card.name}, table [data]")
    if getattr(data_options, "absent", "refuse") == "skip" and not card.sample:
        raise UserError(
            f"Task {card.name} leaves out what has no photo on disk, so that it may be a part of its benchmark: add "
            'sample = true, or set absent = "refuse" in [data].'
        )
    return BoundTask(
        card=card,
        dataset=dataset,
        data_options=data_options,
        protocol=protocol,
        options=parse(protocol.Options, card.options, f"Task {card.name}, table [options]"),
    )


def objective_options(
    recipe: Recipe, modules: Modules = discovery.declared, heads: Mapping[str, Any] | None = None
) -> Strict:
    """The options of a recipe's objective, checked.

    Args:
        recipe: names the objective.
        modules: `discovery.load` where the objective is trained.
        heads: options that a start brings, for keys that the recipe leaves out.

    Raises:
        UserError: an objective or a key that nothing knows.
    """
    options: type[Strict] = modules("objectives", recipe.objective).Objective.Options
    brought = {key: value for key, value in (heads or {}).items() if key in options.model_fields}
    values = {**brought, **recipe.objective_options}
    return parse(options, values, f"{recipe.name}: [objective_options]")


@dataclass(frozen=True)
class BoundSplit:
    """The split that a recipe trains on, or that its training is watched on, with its checked options."""

    dataset: ModuleType
    split: str
    options: Strict


def splits_for(dataset: ModuleType, use: Literal["train", "val"]) -> list[str]:
    """The splits that a data set marks for training, or for watching a training (those for training among them).

    A data set whose SPLITS are names without a mark has none.
    """
    uses = dataset.SPLITS if isinstance(dataset.SPLITS, Mapping) else {}
    return [split for split, of in uses.items() if of in ("train", use)]


def bind_split(recipe: Recipe, modules: Modules = discovery.load, *, val: bool) -> BoundSplit:
    """Find the split that a recipe trains on, or with `val` the one that its training is watched on.

    Raises:
        UserError: an unknown data set, split or option, or a split that its data set keeps for something else.
    """
    data, where = recipe.data, f"Recipe {recipe.name}"
    dataset = modules("datasets", data.dataset)
    values, table = (
        ({**data.options, **data.val_options}, "[data.val_options]") if val else (data.options, "[data.options]")
    )
    options = parse(dataset.Options, values, f"{where}, table {table}")
    split = data.val_split if val else data.split
    if split not in dataset.SPLITS:
        raise UserError(f"{where}: {data.dataset} has no split '{split}': {nearest(split, dataset.SPLITS)}")
    allowed = splits_for(dataset, "val" if val else "train")
    wanted = "watching a training" if val else "training"
    if not allowed:
        raise UserError(
            f"{where}: {data.dataset} marks no split for {wanted}: name another data set, or mark one of your own data "
            f'set\'s in its SPLITS, {{"{split}": "{"val" if val else "train"}"}}.'
        )
    if split not in allowed:
        kept = "evaluation" if val or dataset.SPLITS[split] == "test" else "watching and evaluation"
        raise UserError(
            f"{where}: '{split}' of {data.dataset} is kept for {kept}: for {wanted} name {' or '.join(allowed)}."
        )
    return BoundSplit(dataset, split, options)


def bind_validation(recipe: Recipe, modules: Modules = discovery.load) -> list[BoundTask]:
    """The tasks of a recipe's table [validate], each on the split that its data set marks for watching a training.

    A card on such a split stays as it is. Any other one moves to the only such split; its [expect] states the counts of
    the published split and is left out.

    Raises:
        UserError: an unknown task, one named twice, or one whose data set marks no split for watching, or several.
    """
    where = f"Recipe {recipe.name}, table [validate]"
    tasks = [] if recipe.validate is None else [bind(discovery.task(name), modules) for name in recipe.validate.tasks]
    names = [task.card.name for task in tasks]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{where}: it names {twice[0]} twice: leave one out.")
    return [_on_val(task, where) for task in tasks]


def _on_val(task: BoundTask, where: str) -> BoundTask:
    card, uses = task.card, task.dataset.SPLITS if isinstance(task.dataset.SPLITS, Mapping) else {}
    marked = [split for split, use in uses.items() if use == "val"]
    if card.split in marked:
        return task
    if len(marked) == 1:
        return replace(task, card=card.model_copy(update={"split": marked[0], "expect": {}}))
    kept = "training" if uses.get(card.split) == "train" else "evaluation"
    others = " or ".join(marked)
    trouble = (
        f"{card.dataset} marks several for watching a training: name {others} in a copy of the card."
        if marked
        else f"{card.dataset} marks none for watching a training: leave the task out."
    )
    raise UserError(f"{where}: the split '{card.split}' of {card.name} is kept for {kept}, and {trouble}")


def _without_paths(options: dict[str, Any]) -> dict[str, Any]:
    """Options with the names of class lists and prompt sets alone: where a file lies decides no number."""
    own_files = {key for key in ("classes", "prompts") if is_card_path(options.get(key))}
    return {key: "a file" if key in own_files else value for key, value in options.items()}


def _named_content(table: Mapping[str, Any]) -> dict[str, Any]:
    """Content of the class list and prompt set that a table names, without their sources."""
    content: dict[str, Any] = {}
    name = table.get("classes")
    if isinstance(name, str) and prompts.is_class_list(name):
        content["classes"] = dict(prompts.class_list(name))
    name = table.get("prompts")
    if isinstance(name, str):
        content["prompts"] = prompts.templates(name)
    return content
