"""The rows of a study: `trials.csv` and `runs.csv` under `results/studies/NAME/`, written by the program.

A trial is a setting trained for `trial_steps` steps; a run is the chosen setting trained in full with one seed.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import ConfigDict, Field, model_validator

from sparc_bench.cards.card import Strict, parse
from sparc_bench.errors import UserError
from sparc_bench.files.atomic import write_atomic
from sparc_bench.files.json_text import json_value
from sparc_bench.foreign_text import csv_cell

Score = Annotated[float, Field(ge=-1, le=1)]
"""A score, or a difference of two."""

Gain = tuple[float, float, float]
"""A figure with its 95 % interval: value, low, high."""

TRIALS, RUNS = "trials.csv", "runs.csv"

_JSON = ("values", "val", "held_out")
_HELD_OUT = "the objective's figures with an interval on held-out pairs: name -> value, low, high"


class StudyRow(Strict):
    """A row of either table; columns of dictionaries hold JSON, an empty cell is the default.

    Attributes:
        OPTIONAL: columns that a table has only where one of its rows holds a value.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    OPTIONAL: ClassVar[tuple[str, ...]] = ()

    @property
    def key(self) -> tuple[str, int]:
        """Recipe and number of the row, unique within a table."""
        raise NotImplementedError

    @model_validator(mode="before")
    @classmethod
    def _from_cells(cls, cells: Any) -> Any:  # noqa: ANN401 - what pydantic hands over
        return {
            name: json_value(cell) if name in _JSON and isinstance(cell, str) else cell
            for name, cell in cells.items()
            if cell != ""
        }

    def cells(self) -> dict[str, str]:
        """Column -> cell of the CSV file."""
        return {
            name: ""
            if value is None or (name in self.OPTIONAL and not value)
            else json.dumps(value)
            if isinstance(value, dict)
            else csv_cell(str(value))
            for name, value in self.model_dump().items()
        }


class TrialRow(StudyRow):
    """One trial of a setting."""

    hash: str = Field(description="hash of all keys that decide the trial; a row with another hash is stale")
    recipe: str
    trial: int = Field(description="number of the trial, from 0")
    values: dict[str, Any] = Field(description="dotted key -> value drawn from the box")
    val: dict[str, Score] = Field(default={}, description="scores on val at the end")
    criterion: Score | None = Field(default=None, description="mean of the study's criterion scores; none: diverged")
    seconds: float = Field(description="duration of the training")
    diverged_at: int | None = Field(default=None, description="step, from 1, of the loss that was not finite")
    message: str = ""
    second_criterion: Score | None = Field(default=None, description="mean of the second criterion's scores")
    cpu_seconds: float | None = Field(default=None, ge=0, description="CPU time of the training steps")
    held_out: dict[str, Gain] = Field(default={}, description=_HELD_OUT)

    OPTIONAL = ("second_criterion", "cpu_seconds", "held_out")

    @property
    def key(self) -> tuple[str, int]:
        """Recipe and number of the trial."""
        return self.recipe, self.trial


class RunRow(StudyRow):
    """One run of a recipe's chosen setting."""

    recipe: str
    seed: int
    state: str = Field(description="done or diverged")
    step: int = Field(description="trained steps, or the step, from 1, of the loss that was not finite")
    message: str = ""
    val: dict[str, Score] = Field(default={}, description="scores on val at the end")
    train_seconds: float
    eval_seconds: float | None = Field(default=None, description="duration of all tasks, from their records")
    recipe_hash: str = Field(description="hash of all keys that decide the weights; a row with another hash is stale")
    cpu_seconds: float | None = Field(default=None, ge=0, description="CPU time of the training steps")
    held_out: dict[str, Gain] = Field(default={}, description=_HELD_OUT)

    OPTIONAL = ("cpu_seconds", "held_out")

    @model_validator(mode="after")
    def _known_state(self) -> Self:
        if self.state not in ("done", "diverged"):
            raise ValueError(f"state is '{self.state}', which is neither done nor diverged")
        return self

    @property
    def key(self) -> tuple[str, int]:
        """Recipe and seed."""
        return self.recipe, self.seed


AnyRow = TypeVar("AnyRow", bound=StudyRow)


def folder_of(study: str, results: Path) -> Path:
    """The folder of a study's tables."""
    return results / "studies" / study


def read_rows(path: Path, kind: type[AnyRow]) -> list[AnyRow]:
    """The rows of a table; empty where the file is missing.

    Raises:
        UserError: a table with other columns or cells than the program writes.
    """
    if not path.is_file():
        return []
    again = "restore the file, or delete it to run the study anew"
    try:
        with path.open(encoding="utf-8", newline="") as opened:
            header, *table = list(csv.reader(opened)) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV file in UTF-8 ({error}): {again}.") from None
    known = [name for name in kind.model_fields if name in header or name not in kind.OPTIONAL]
    if header != known or any(len(row) not in (0, len(header)) for row in table):
        raise UserError(f"{path} has other columns than {', '.join(kind.model_fields)}: {again}.")
    rows = [dict(zip(header, row, strict=True)) for row in table if row]
    return [parse(kind, cells, f"{path}, row {number}") for number, cells in enumerate(rows, 1)]


def merge_rows(path: Path, new: Iterable[AnyRow], kind: type[AnyRow], recipes: Sequence[str]) -> list[AnyRow]:
    """All rows of a table after new rows are added or replace those with the same key; the file is written whole.

    Args:
        path: path of the table.
        new: rows to add.
        kind: class of the rows.
        recipes: order of the rows by recipe; rows of other recipes come last.
    """
    there = read_rows(path, kind)
    rows = {row.key: row for row in (*there, *new)}
    place = {name: number for number, name in enumerate(recipes)}
    ordered = sorted(rows.values(), key=lambda row: (place.get(row.key[0], len(place)), row.key))
    if ordered != there:
        text = io.StringIO()
        cells = [row.cells() for row in ordered]
        held = {name for row in cells for name, cell in row.items() if cell}
        columns = [name for name in kind.model_fields if name in held or name not in kind.OPTIONAL]
        writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(cells)
        write_atomic(path, text.getvalue().encode())
    return ordered
