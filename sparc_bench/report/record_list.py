"""Records as a list and as a pandas table: what `sparc_bench.evaluate` and `sparc_bench.load_records` return."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, overload

from sparc_bench.errors import UserError, nearest
from sparc_bench.records.record import TESTING, Record, read_record, record_files
from sparc_bench.records.record_file import Recorded

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, repr=False)
class Records(Sequence[Record]):
    """A list of records (`sparc_bench.records.record.Record`), in order.

    Attributes:
        files: the records with their files.
        errors: task -> the sentence of its error, of the tasks of an evaluation that failed.
    """

    files: tuple[Recorded, ...]
    errors: Mapping[str, str] = field(default_factory=dict)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Records: ...

    def __getitem__(self, index: int | slice) -> Record | Records:
        """The record at a place, or the records of a slice."""
        return Records(self.files[index]) if isinstance(index, slice) else self.files[index].record

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Record]:
        return (each.record for each in self.files)

    def __repr__(self) -> str:
        failed = [f"{task} failed: {sentence}" for task, sentence in self.errors.items()]
        return "\n".join([self._headlines().to_string(index=False) if self else "no records", *failed])

    def _repr_html_(self) -> str:
        """The table that a notebook shows; pandas escapes the texts of records."""
        html: str = self._headlines().to_html(index=False)
        return html

    def _headlines(self) -> DataFrame:
        """The table of headlines with few columns, which fits on a screen."""
        table = self.to_pandas()
        return table.loc[table["headline"], ["model", "task", "metric", "value", "low", "high", "n"]]

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the folders under `results/` that the records are of (`NAME`, `NAME.seed1`), each once."""
        return tuple(dict.fromkeys(each.path.parent.name for each in self.files))

    def of(self, model: str) -> Records:
        """The records of one model, by the name of its folder.

        Raises:
            UserError: there are none, with the nearest name.
        """
        found = tuple(each for each in self.files if each.path.parent.name == model)
        if not found:
            raise UserError(f"There are no records of '{model}': {nearest(model, self.models)}")
        return Records(found)

    def to_pandas(self) -> DataFrame:
        """One row for each metric of each record; fractions in 0..1.

        Columns: `model`, `seed`, `task`, `family`; `metric`, whether it is a `headline` and whether a loss trained what
        it reads (`trained`); `value`, `se`, `low` and `high` (95 % interval), `unit` (percent: a fraction of 1),
        `less_is_better`; `n` images, `sample` (part of a benchmark), `limit` (for testing), `exposure`;
        `protocol_hash`, `data_hash` and `weights_hash`: rows with the same first two can be compared.
        """
        from pandas import DataFrame

        return DataFrame(
            [
                {
                    "model": record.model,
                    "seed": record.seed,
                    "task": record.task,
                    "family": record.task_family,
                    "metric": str(name),
                    "headline": name in record.headline_metrics,
                    "trained": record.trained_for(name),
                    **{key: getattr(metric, key) for key in ("value", "se", "low", "high", "unit", "less_is_better")},
                    "n": record.n,
                    "sample": record.sample,
                    "limit": record.limit,
                    "exposure": str(record.exposure),
                    "protocol_hash": record.protocol_hash,
                    "data_hash": record.data_hash,
                    "weights_hash": record.weights_hash,
                }
                for record in self
                for name, metric in record.metrics.items()
            ]
        )


def load_records(results: Path) -> Records:
    """All records under a folder of results, or in one model's folder in it; those with a limit in theirs alone.

    Raises:
        UserError: there are none, or a damaged one.
    """
    files = sorted(results.glob("*.json")) or record_files(results)
    if not files and record_files(results / TESTING):
        raise UserError(
            f"{results} holds records made with a limit alone, which are for testing: load {results / TESTING}, or "
            "evaluate without a limit."
        )
    if not files:
        raise UserError(f"There are no records in {results}: name a folder of results, or evaluate a model first.")
    return Records(tuple(Recorded(file, read_record(file)) for file in files))
