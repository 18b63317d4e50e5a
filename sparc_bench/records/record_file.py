"""Records with their files, so that the outcomes of every example are at hand where seeds are pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from sparc_bench.cards import discovery
from sparc_bench.errors import UserError
from sparc_bench.metrics.seeds import SeedsEstimate, over_seeds, seeds_difference
from sparc_bench.metrics.statistic import Statistic
from sparc_bench.records import outcome_file
from sparc_bench.records.record import Record, read_record, record_files


@dataclass(frozen=True)
class Recorded:
    """A record and its file."""

    path: Path
    record: Record

    def __hash__(self) -> int:
        return hash((self.path, self.record.outcome_hash))

    @property
    def recipe(self) -> str:
        """Hash that the seeds of one recipe share; of a model that was not trained here, its card's hash."""
        return self.record.recipe_hash or self.record.model_hash

    def statistic(self, metric: str) -> Statistic:
        """Statistic of a headline metric.

        Raises:
            UserError: the outcomes beside the record are missing, damaged, another one's, or were too large to keep.
        """
        if metric not in self.statistics:
            raise UserError(f"{self._outcomes} holds no '{metric}', which its seeds are pooled from: {self._again}.")
        return self.statistics[metric]

    @cached_property
    def statistics(self) -> Mapping[str, Statistic]:
        """The statistics of the headline by every patch path; the file beside the record is opened once.

        Raises:
            UserError: the outcomes beside the record are missing, damaged or another one's.
        """
        file, record = self._outcomes, self.record
        content = file.read_bytes() if file.is_file() else b""
        if outcome_file.sha256(content) != record.outcome_hash:
            raise UserError(f"{file}, which its seeds are pooled from, is missing or another record's: {self._again}.")
        kinds = {record.metrics[metric].kind for metric in record.headline_metrics}
        if kinds - outcome_file.known_kinds().keys() and record.protocol in discovery.names("protocols"):
            discovery.load("protocols", record.protocol)  # brings its kinds of statistics with it
        return outcome_file.read_metrics(file, record.headline_metrics, content)

    @property
    def _outcomes(self) -> Path:
        return self.path.with_suffix(".npz")

    @property
    def _again(self) -> str:
        record = self.record
        return f"run sparc-bench eval on seed {record.seed} of {record.model} and {record.task} again, with --force"


def read_all(results: Path) -> list[Recorded]:
    """All records under a folder but those of --limit, in a fixed order.

    Raises:
        UserError: a damaged record.
    """
    found = [Recorded(path, read_record(path)) for path in record_files(results)]
    return [each for each in found if each.record.limit is None]


def pooled(seeds: Sequence[Recorded], metric: str) -> SeedsEstimate:
    """A metric over several seeds of one recipe (see `sparc_bench.metrics.seeds`)."""
    for each in seeds:
        each.statistic(metric)  # refuses outcomes that have changed since they were pooled
    return _pooled(tuple(seeds), metric)


@lru_cache(maxsize=1024)
def _pooled(seeds: tuple[Recorded, ...], metric: str) -> SeedsEstimate:
    return over_seeds([each.statistic(metric) for each in seeds])


def difference(a: Sequence[Recorded], b: Sequence[Recorded], metric: str) -> SeedsEstimate:
    """The first recipe's mean over its seeds minus the second's, on the same images.

    Raises:
        UserError: records of other protocols, data or examples.
    """
    for key in ("task", "protocol_hash", "data_hash"):
        if len({getattr(each.record, key) for each in (*a, *b)}) > 1:
            raise UserError(f"{a[0].path} and {b[0].path} differ in {key}: evaluate both again on {a[0].record.task}.")
    for each in (*a, *b):
        each.statistic(metric)  # refuses outcomes that have changed since they were compared
    return _difference(tuple(a), tuple(b), metric)


@lru_cache(maxsize=4096)
def _difference(a: tuple[Recorded, ...], b: tuple[Recorded, ...], metric: str) -> SeedsEstimate:
    return seeds_difference([each.statistic(metric) for each in a], [each.statistic(metric) for each in b])
