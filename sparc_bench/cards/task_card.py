"""The card of a benchmark task: `tasks/NAME.toml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sparc_bench.cards.bounds import Count, Real
from sparc_bench.cards.card import Strict, is_card_path, parse, read_toml
from sparc_bench.cards.name import Name


class TaskCard(Strict):
    """One benchmark task: `tasks/NAME.toml`."""

    name: Name = Field(description="the file's name")
    title: str = Field(description="one line, as a table would print it")
    family: str = Field(min_length=1, description="kind of task, such as retrieval; tables group tasks by it")
    dataset: str = Field(description="a module of sparc_bench/datasets")
    split: str
    data: dict[str, Any] = Field(default={}, description="options of the data set's reader")
    protocol: str = Field(description="a module of sparc_bench/protocols")
    options: dict[str, Any] = Field(default={}, description="every option of the protocol; there are no defaults")
    headline: str = Field(description="the metric that the leaderboard prints, as the record names it")
    suites: tuple[str, ...] = Field(default=(), description="suites that this task belongs to")
    reference_rows: tuple[Literal["constant", "random", "untrained", "oracle"], ...] = Field(
        default=("constant", "random", "untrained"), description="the rows that stand beside every result"
    )
    expect: dict[str, Count] = Field(default={}, description="counts of the published split; others stop the run")
    chance: dict[str, Real] = Field(default={}, description="metric -> what guessing scores, where it is known")
    sample: bool = Field(default=False, description="only a part of the published benchmark: records are samples")
    source: str = Field(description="where data, protocol and numbers come from")
    needs: str = Field(default="", description="what it needs on disk, for a person")


def read_task(path: Path) -> TaskCard:
    """The task card in a file; class lists and prompt sets that it names by path begin at its folder."""
    card = parse(TaskCard, {"name": path.stem, **read_toml(path)}, str(path))
    own_files = {
        table: {**options, **{key: str(path.parent / options[key]) for key in named if is_card_path(options[key])}}
        for table, options in (("data", card.data), ("options", card.options))
        if (named := [key for key in ("prompts", "classes") if is_card_path(options.get(key))])
    }
    return card.model_copy(update=own_files)
