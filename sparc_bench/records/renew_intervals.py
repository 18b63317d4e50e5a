"""Intervals of older records, computed again by the present methods from the outcomes of every example.

    python -m sparc_bench.records.renew_intervals results

Values stay as they are. A record whose outcomes had no room for a statistic is named with the command that makes it
anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from sparc_bench.cards import discovery
from sparc_bench.errors import UserError
from sparc_bench.metrics.estimate import METHOD, estimate
from sparc_bench.metrics.statistic import Statistic
from sparc_bench.records import outcome_file
from sparc_bench.records.record import SINGLE_PRECISION, Metric, Record, read_record, record_files, write_record

COMMAND = "python -m sparc_bench.records.renew_intervals"


def renewed(path: Path, record: Record) -> Record | None:
    """The record with intervals by the present methods; None where its outcomes lack one of its statistics.

    Raises:
        UserError: the outcomes beside it are missing, damaged or another record's.
    """
    file = path.with_suffix(".npz")
    again = f"run sparc-bench eval {record.model} --task {record.task} --force."
    if not file.is_file() or outcome_file.sha256(file.read_bytes()) != record.outcome_hash:
        raise UserError(f"{path} and the .npz beside it do not belong together: {again}")
    discovery.load("protocols", record.protocol)  # brings its kinds of statistics with it
    outcome = outcome_file.read(file)
    of_groups = {grouping: outcome.groups.get(grouping, {}) for grouping in record.groups}
    if record.metrics.keys() - outcome.metrics.keys() or any(
        of.keys() - of_groups[grouping].keys() for grouping, of in record.groups.items()
    ):
        return None
    metrics = {name: _renewed(old, outcome.metrics[name], path) for name, old in record.metrics.items()}
    groups = {
        grouping: {name: _renewed(old, of_groups[grouping][name], path) for name, old in of.items()}
        for grouping, of in record.groups.items()
    }
    return record.model_copy(update={"metrics": metrics, "groups": groups, "interval_version": METHOD})


def _renewed(old: Metric, statistic: Statistic, path: Path) -> Metric:
    new = Metric.of(estimate(statistic), statistic)
    if (old.value is None) != (new.value is None) or abs((old.value or 0.0) - (new.value or 0.0)) > SINGLE_PRECISION:
        raise UserError(f"{path} says {old.value} where its outcomes say {new.value}: evaluate again with --force.")
    # outcomes are kept in single precision, the value was not
    return new.model_copy(update={"value": old.value})


def renew(results: Path) -> Iterator[tuple[Path, Record, bool]]:
    """Renew the older records under a folder; yields each with its path and whether that could be done.

    Raises:
        UserError: a damaged record, or outcomes that are not its own.
    """
    for path in record_files(results):
        record = read_record(path)
        if record.interval_version == METHOD:
            continue
        fresh = renewed(path, record)
        if fresh is not None:
            write_record(path, fresh)
        yield path, record, fresh is not None


def main(results: Annotated[Path, typer.Argument(help="Folder of the records.")] = Path("results")) -> None:
    """Renew the intervals of all records under a folder, and name those that have to be made anew."""
    done = 0
    for path, record, renewed_here in renew(results):
        done += renewed_here
        if not renewed_here:
            typer.echo(
                f"The outcomes beside {path} had no room for all statistics: run sparc-bench eval {record.model} "
                f"--seed {record.seed} --task {record.task} --force."
            )
    typer.echo(f"Renewed {done} records; then run sparc-bench leaderboard {results}.")


if __name__ == "__main__":
    typer.run(main)
