"""The names of the scores that a validation gives, found without a model: vectors drawn at random are scored."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.cards import discovery
from sparc_bench.cards.recipe import Recipe
from sparc_bench.errors import UserError, nearest
from sparc_bench.evaluation.guessing_encoders import RandomEncoder
from sparc_bench.images.view import View
from sparc_bench.metrics.statistic import MeanDifference
from sparc_bench.training.validate import RANKS
from sparc_bench.training.validation_tasks import ValidationTask, read_tasks, refuse_lacking

if TYPE_CHECKING:
    from sparc_bench.evaluation.guessing_encoders import HasGeometry

RETRIEVAL = tuple(f"{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in RANKS)
"""Scores of a validation by retrieval on data.val_split."""


def refuse_unknown_scores(recipes: Iterable[Recipe], names: Sequence[str], data_root: Path | None, where: str) -> None:
    """Raise UserError for a name that is no score on val of some recipe, or none of which more is better.

    Args:
        recipes: what is trained; those with the same tasks on val share their data.
        names: what shall decide.
        data_root: folder of the data.
        where: begins the sentence.
    """
    read: dict[str, tuple[ValidationTask, ...]] = {}
    known: dict[tuple[str, frozenset[str]], Collection[str]] = {}
    for recipe in recipes:
        watched = "" if recipe.validate is None else recipe.validate.model_dump_json()
        if watched not in read:
            read[watched] = read_tasks(recipe, data_root)
        objective = discovery.load("objectives", recipe.objective).Objective
        refuse_lacking(recipe, read[watched], objective.gives)
        key = watched, frozenset(objective.paths)
        if key not in known:
            known[key] = _fractions(read[watched], objective.paths) if watched else RETRIEVAL
        for name in names:
            if not fnmatch.filter(known[key], name):
                raise UserError(
                    f"{where}: val has no score '{name}' of {recipe.name} that could decide, but "
                    f"{', '.join(known[key])}: {nearest(name, known[key])}"
                )


def _fractions(tasks: Sequence[ValidationTask], paths: Mapping[str, bool]) -> list[str]:
    """TASK/METRIC of every metric from -1 to 1 of which more is better."""
    guessing = RandomEncoder(cast("HasGeometry", _Towers(paths)))
    found = []
    for each in tasks:
        outcome = outcome_of(each.task.protocol, guessing, each.data, each.task.options)
        found += [
            f"{each.task.card.name}/{name}"
            for name, statistic in outcome.metrics.items()
            if (statistic.unit == "percent" or statistic.kind == MeanDifference.kind) and not statistic.less_is_better
        ]
    return found


class _Towers:
    """Geometry of a model of this project: a grid of two by two patches over the whole of every view."""

    gives = frozenset({"image", "text", "global", "patches", "tokens"})
    prompt_ensemble = "embeddings"

    def __init__(self, paths: Mapping[str, bool]) -> None:
        self.paths = paths

    def geometry(self, views: Sequence[View]) -> tuple[tuple[int, int], Tensor]:
        sizes = [view.open().size for view in views]
        areas = [view.in_original((0.0, 0.0, *size)) for view, size in zip(views, sizes, strict=True)]
        return (2, 2), torch.tensor(areas, dtype=torch.float32)
