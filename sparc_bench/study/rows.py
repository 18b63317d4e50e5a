"""The rows of a study: `trials.csv` and `runs.csv` under `results/studies/NAME/`, written by the program.

One row for each trial (a setting that was tried for `trial_steps` steps) and for each run (a chosen setting, a seed).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import Field, model_validator

from sparc_bench.cards.card import Strict, parse
from sparc_bench.errors import UserError
from sparc_bench.files.atomic import write_atomic

TRIALS, RUNS = "trials.csv", "runs.csv"


class Row(Strict):
    """A row; columns `values` and `val` hold JSON, an empty cell is a default."""

    @property
    def key(self) -> tuple[str, int]:
        """What a table holds once."""
        raise NotImplementedError

    @model_validator(mode="before")
    @classmethod
    def _from_cells(cls, cells: Any) -> Any:  # noqa: ANN401 - what pydantic hands over
        return {
            name: json.loads(cell) if name in ("values", "val") and isinstance(cell, str) else cell
            for name, cell in cells.items()
            if cell != ""
        }

    def cells(self) -> dict[str, str]:
        """The row as text, one cell a column."""
        return {
            name: "" if value is None else json.dumps(value) if isinstance(value, dict) else str(value)
            for name, value in self.model_dump().items()
        }


class TrialRow(Row):
    """One trial."""

    hash: str = Field(description="of all that decides the trial; another one is stale")
    recipe: str
    trial: int = Field(description="from 0")
    values: dict[str, Any] = Field(description="dotted key -> value drawn from the box")
    val: dict[str, float] = Field(default={}, description="scores on val at the end")
    criterion: float | None = Field(default=None, description="mean of the scores that decide; none: diverged")
    seconds: float = Field(description="of training")
    diverged_at: int | None = Field(default=None, description="step, from 1, whose loss was not finite")
    message: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """Recipe and trial."""
        return self.recipe, self.trial


class RunRow(Row):
    """One run with a recipe's chosen setting."""

    recipe: str
    seed: int
    state: str = Field(description="done or diverged")
    step: int = Field(description="steps trained, or the step, from 1, whose loss was not finite")
    message: str = ""
    val: dict[str, float] = Field(default={}, description="scores on val at the end")
    train_seconds: float
    eval_seconds: float | None = Field(default=None, description="of scoring all tasks, as their records say")
    recipe_hash: str = Field(description="of all that decides the weights; another one is stale")

    @model_validator(mode="after")
    def _known_state(self) -> Self:
        if self.state not in ("done", "diverged"):
            raise ValueError(f"state is '{self.state}', which is neither done nor diverged")
        return self

    @property
    def key(self) -> tuple[str, int]:
        """Recipe and seed."""
        return self.recipe, self.seed


AnyRow = TypeVar("AnyRow", bound=Row)


def folder_of(study: str, results: Path) -> Path:
    """Where the tables of a study lie."""
    return results / "studies" / study


def read_rows(path: Path, kind: type[AnyRow]) -> list[AnyRow]:
    """The rows of a table; none where there is no file.

    Raises:
        UserError: a table that the program did not write.
    """
    if not path.is_file():
        return []
    again = "restore the file, or delete it to run the study anew"
    with path.open(encoding="utf-8", newline="") as opened:
        reader = csv.DictReader(opened)
        if list(reader.fieldnames or ()) != list(kind.model_fields):
            raise UserError(f"{path} has other columns than {', '.join(kind.model_fields)}: {again}.")
        return [parse(kind, cells, f"{path}, row {number}") for number, cells in enumerate(reader, 1)]


def merge_rows(path: Path, new: Iterable[AnyRow], kind: type[AnyRow], recipes: Sequence[str]) -> list[AnyRow]:
    """Put rows into a table in place of those of the same key, write it whole, return all of it.

    Args:
        path: of the table.
        new: rows that replace others or are added.
        kind: of rows.
        recipes: in whose order the rows stand; rows of other recipes are kept at the end.
    """
    there = read_rows(path, kind)
    rows = {row.key: row for row in (*there, *new)}
    place = {name: number for number, name in enumerate(recipes)}
    ordered = sorted(rows.values(), key=lambda row: (place.get(row.key[0], len(place)), row.key))
    if ordered != there:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(kind.model_fields), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row.cells() for row in ordered)
        write_atomic(path, text.getvalue().encode())
    return ordered
