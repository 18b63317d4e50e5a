"""Variants in a study card: recipes that are another recipe with a few settings changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from sparc_bench.cards.card import Strict
from sparc_bench.cards.name import fault_of_model
from sparc_bench.errors import nearest

MAY_CHANGE = ("objective", "objective_options", "image", "text", "optim")
"""Keys of a recipe in which a variant may differ; data, batch and steps are those of all."""


class Variant(Strict):
    """A compared recipe that is made from another one: `[variants.NAME]`."""

    of: str = Field(description="recipe that is changed: its name, or the path of its card")
    set: dict[str, Any] = Field(
        min_length=1, description="setting -> its value, such as objective_options.weights; none of these is drawn"
    )

    @field_validator("set", mode="after")
    @classmethod
    def _dotted(cls, values: dict[str, Any]) -> dict[str, Any]:
        found = dict(_leaves(values, ""))
        for key in found:
            head = key.partition(".")[0]
            if head not in MAY_CHANGE:
                raise ValueError(f"'{head}' is the same for all recipes of a study: {nearest(head, MAY_CHANGE)}")
        return found

    @property
    def base(self) -> str:
        """Name of the recipe that is changed."""
        return Path(self.of).name.removesuffix(".toml")


def refuse_names(variants: Mapping[str, Variant], recipes: tuple[str, ...]) -> None:
    """Raise ValueError for a variant whose name is no folder's, or that of a recipe."""
    for name in variants:
        if reason := fault_of_model(name):
            raise ValueError(f"[variants] {name!r} {reason}")
        if name in recipes:
            raise ValueError(f"[variants] {name} is one of the recipes already: choose another name")


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
