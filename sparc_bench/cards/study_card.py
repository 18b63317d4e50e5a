"""Study cards: the compared recipes, their tasks, and the box (ranges of settings) for random search.

A study is a like-for-like comparison: every recipe gets the same number of trials with settings drawn at random from a
box that is fixed beforehand, and the best setting by one criterion on the val split is trained with several seeds.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from sparc_bench.cards.bounds import CpuSeconds, Real, Seeds, Steps, Trials, Whole
from sparc_bench.cards.card import Strict, parse, read_toml
from sparc_bench.cards.name import Name, fault_of_model
from sparc_bench.cards.study_variant import Variant, refuse_names
from sparc_bench.errors import UserError, nearest

DIGITS = 3
"""Significant digits of a drawn setting."""

_ATTEMPTS = 100
"""Number of draws of all trials' settings before duplicates among them are an error."""


class SettingRange(Strict):
    """Range of numbers, or choices, from which one setting is drawn."""

    low: Whole | Real | None = Field(default=None, description="lower end of the range; whole ends give whole numbers")
    high: Whole | Real | None = Field(default=None, description="upper end of the range")
    log: bool = Field(default=False, description="whether the draw is uniform in the logarithm")
    choices: tuple[Any, ...] = Field(default=(), description="equally likely values, in place of a range")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.choices:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("holds choices and a range: keep one of them")
        elif self.low is None or self.high is None:
            raise ValueError("holds neither choices nor both ends of a range: write low and high, or choices")
        elif not self.low < self.high:
            raise ValueError(f"its low ({self.low:g}) must be under its high ({self.high:g}): swap them")
        elif self.log and self.low <= 0:
            raise ValueError(f"its low ({self.low:g}) has no logarithm: raise it above 0, or leave log out")
        return self

    def at(self, share: float) -> Any:  # noqa: ANN401 - any TOML value
        """Value at a share (0..1) of the range, rounded to three significant digits and kept within the range.

        >>> SettingRange(low=1e-4, high=1e-2, log=True).at(0.25)
        0.000316
        >>> SettingRange(choices=("gelu", "relu")).at(0.75)
        'relu'
        >>> SettingRange(low=50, high=60).at(0.74)
        57
        """
        if self.choices:
            return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]
        assert self.low is not None
        assert self.high is not None
        span = self.high - self.low
        value = self.low * (self.high / self.low) ** share if self.log else self.low + share * span
        rounded = float(f"{value:.{DIGITS}g}")
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        return min(max(round(rounded) if whole else rounded, self.low), self.high)

    def ends(self) -> tuple[Any, ...]:
        """Values that must be legal settings: the choices, or both ends of the range."""
        return self.choices or (self.low, self.high)

    def __str__(self) -> str:
        if self.choices:
            return "one of " + ", ".join(map(str, self.choices))
        return f"{self.low:g} to {self.high:g}{', log-uniform' * self.log}"


with warnings.catch_warnings():
    # the list shadows BaseModel.validate, which pydantic keeps for its version 1 and nothing here calls
    warnings.filterwarnings("ignore", 'Field name "validate"')

    class _Watched(Strict):
        validate: tuple[str, ...] = Field(  # type: ignore[assignment]
            default=(),
            description="tasks that are scored on val at the end of every training, in place of the recipes' own; "
            "none: as each recipe says",
        )


class StudyCard(_Watched):
    """One comparison: `reference_models/studies/NAME.toml`."""

    name: Name = Field(description="the file's name")
    title: str = Field(description="one line, as a table would print it")
    source: str
    notes: str = Field(default="", description="reasons for the box and the criterion")
    recipes: tuple[str, ...] = Field(
        default=(), description="compared recipes: names, or paths of their cards, in order; none: variants alone"
    )
    trials: Trials = Field(description="number of settings tried for every recipe")
    trial_steps: Steps = Field(description="training steps of a trial; the schedule is scaled to this length")
    criterion: tuple[str, ...] = Field(
        min_length=1,
        description="val scores whose mean decides, fixed beforehand; with a * in place of the patch path, the best of "
        "the model's paths",
    )
    second_criterion: tuple[str, ...] = Field(
        default=(), description="val scores whose mean makes a second choice among the same trials, reported apart"
    )
    cpu_seconds: CpuSeconds | None = Field(
        default=None,
        description="CPU time of the steps of a second set of final trainings, which last as many steps as fit in it; "
        "none: equal steps alone",
    )
    baseline: str | None = Field(
        default=None,
        description="recipe that all others are compared with, on every task; none: the first one, on the first task",
    )
    seeds: Seeds = Field(default=3, description="number of final trainings of every recipe, with its best setting")
    seeds_of: dict[str, Seeds] = Field(default={}, description="recipe -> number of final trainings, if not `seeds`")
    tasks: tuple[str, ...] = Field(min_length=1, description="tasks for the final trainings")
    box: dict[str, SettingRange] = Field(default={}, description="setting -> its range, shared by all recipes")
    boxes: dict[str, dict[str, SettingRange]] = Field(
        default={}, description="recipe -> setting -> its range, in place of the shared box's"
    )
    variants: dict[str, Variant] = Field(
        default={}, description="name -> the recipe that it is made from, and what is changed; compared as well"
    )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the recipes, in order, and of the variants."""
        return (*(Path(entry).name.removesuffix(".toml") for entry in self.recipes), *self.variants)

    @property
    def compared_with(self) -> str:
        """Name of the recipe whose scores are taken off those of the others."""
        return self.baseline or self.names[0]

    def runs_of(self, recipe: str) -> int:
        """Number of seeds of the recipe's final trainings."""
        return self.seeds_of.get(recipe, self.seeds)

    def box_of(self, recipe: str) -> dict[str, SettingRange]:
        """Ranges of all settings of a recipe, its own before the shared ones."""
        drawn = {**self.box, **self.own_box(recipe)}
        return {key: range_ for key, range_ in drawn.items() if key not in self.fixed(recipe)}

    def own_box(self, recipe: str) -> dict[str, SettingRange]:
        """Ranges that a recipe does not share; a variant has those of the recipe that it is made from, and its own."""
        made = self.variants.get(recipe)
        return {**(self.boxes.get(made.base, {}) if made else {}), **self.boxes.get(recipe, {})}

    def fixed(self, recipe: str) -> dict[str, Any]:
        """Settings in which a variant differs, which are not drawn; none for a recipe."""
        return self.variants[recipe].set if recipe in self.variants else {}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        refuse_names(self.variants, self.names[: len(self.recipes)])
        if not self.names:
            raise ValueError("recipes is empty and there are no variants: name a recipe")
        twice = [name for name in self.names if self.names.count(name) > 1]
        if twice:
            raise ValueError(f"recipes names '{twice[0]}' twice: name it once")
        odd = next((name for name in self.names if fault_of_model(name)), None)
        if odd is not None:
            raise ValueError(f"recipes: {odd!r} {fault_of_model(odd)}")
        few = [name for name, number in self.seeds_of.items() if number < 1]
        if few:
            raise ValueError(f"[seeds_of] {few[0]} needs at least one seed: raise it")
        return self


def read_study(path: Path) -> StudyCard:
    """Study card of a file; paths of cards in it are relative to its folder.

    Raises:
        UserError: no such file, or a key that is unknown, missing or of another type.
    """
    values = read_toml(path)
    for table in ("recipes", "tasks", "validate"):
        if isinstance(values.get(table), list):
            values[table] = [_beside(path, entry) for entry in values[table]]
    if isinstance(values.get("variants"), dict):
        values["variants"] = {
            name: made | {"of": _beside(path, made["of"])} if isinstance(made, dict) and "of" in made else made
            for name, made in values["variants"].items()
        }
    if isinstance(values.get("box"), dict):
        values["box"] = _ranges(values["box"], f"{path}: [box]")
    if isinstance(values.get("boxes"), dict):
        values["boxes"] = {
            recipe: _ranges(box, f"{path}: [boxes.{recipe}]") if isinstance(box, dict) else box
            for recipe, box in values["boxes"].items()
        }
    card = parse(StudyCard, {"name": path.stem, **values}, str(path))
    for table in ("seeds_of", "boxes"):
        for name in getattr(card, table):
            if name not in card.names:
                raise UserError(f"{path}: [{table}] knows no recipe '{name}': {nearest(name, card.names)}")
    if card.compared_with not in card.names:
        raise UserError(
            f"{path}: its baseline '{card.baseline}' is none of its recipes: {nearest(card.compared_with, card.names)}"
        )
    return card


def drawn_settings(card: StudyCard, recipe: str) -> list[dict[str, Any]]:
    """Settings of all trials of a recipe, drawn as a Latin hypercube.

    A range is cut into as many parts as there are trials; each trial gets a random point of one part, in random order;
    choices are spread over the trials in the same way. Trial k has the same shared settings for every recipe.

    Raises:
        UserError: the box has fewer different settings than trials.
    """
    own, fixed = card.own_box(recipe), card.fixed(recipe)
    # a variant draws what the recipe draws that it is made from
    drawn_as = card.variants[recipe].base if recipe in card.variants and recipe not in card.boxes else recipe
    shared = next((t for a in range(_ATTEMPTS) if _all_differ(t := _table(card.box, card, "", a))), None)
    shared = shared or _table(card.box, card, "", 0)
    kept = [{key: value for key, value in values.items() if key not in own} for values in shared]
    for attempt in range(_ATTEMPTS):
        both = [mine | yours for mine, yours in zip(kept, _table(own, card, drawn_as, attempt), strict=True)]
        found = [{key: value for key, value in values.items() if key not in fixed} for values in both]
        if _all_differ(found):
            return found
    raise UserError(
        f"Study {card.name}: the box of {recipe} gives no {card.trials} different settings: widen it, or lower trials."
    )


def _all_differ(settings: list[dict[str, Any]]) -> bool:
    return all(values not in settings[:at] for at, values in enumerate(settings))


def _table(box: Mapping[str, SettingRange], card: StudyCard, recipe: str, attempt: int) -> list[dict[str, Any]]:
    columns = {key: _spread(range_, card, recipe, key, attempt) for key, range_ in box.items()}
    return [{key: column[trial] for key, column in columns.items()} for trial in range(card.trials)]


def _spread(range_: SettingRange, card: StudyCard, recipe: str, key: str, attempt: int) -> list[Any]:
    """Values of one setting in all trials; the arguments alone determine them."""
    digest = hashlib.sha256(json.dumps([card.name, recipe, key, attempt]).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:16], "little"))
    return [range_.at((part + rng.random()) / card.trials) for part in rng.permutation(card.trials)]


def _ranges(table: Mapping[str, Any], where: str) -> dict[str, SettingRange]:
    return {key: parse(SettingRange, value, f"{where} {key}") for key, value in _leaves(table, "", where)}


def _leaves(table: Mapping[str, Any], prefix: str, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Pairs (key, range) of a box; `optim.lr = {...}` without quotes, a nested table in TOML, is the same key."""
    for key, value in table.items():
        if not isinstance(value, dict):
            raise UserError(
                f"{where} {prefix}{key} is no range: write {{ low = ..., high = ... }} or {{ choices = [...] }}."
            )
        if value and all(isinstance(member, dict) for member in value.values()):
            yield from _leaves(value, f"{prefix}{key}.", where)
        else:
            yield f"{prefix}{key}", value


def _beside(path: Path, entry: Any) -> Any:  # noqa: ANN401 - checked later, with the card
    return str(path.parent / entry) if isinstance(entry, str) and entry.endswith(".toml") else entry
