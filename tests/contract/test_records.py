"""Every committed record: it parses, is current, and its numbers can be true."""

import pytest

from sparc_bench.cards import discovery
from sparc_bench.cli.check import result_problems
from sparc_bench.records import outcome_file
from sparc_bench.records.record import SAMPLES, read_record, record_files
from sparc_bench.report import leaderboard

TASKS = discovery.cards_folder("tasks")
RESULTS = TASKS.parent / "results"
FILES = record_files(RESULTS)


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_record(path):
    record = read_record(path)
    assert (SAMPLES in path.relative_to(RESULTS).parts) == record.sample
    assert record.limit is None, "a testing record was committed"
    assert record.headline_metrics
    for metric in (*record.metrics.values(), *(m for of in record.groups.values() for m in of.values())):
        if metric.value is None or metric.low is None or metric.high is None:
            continue
        assert metric.low <= metric.value + 1e-6
        assert metric.value - 1e-6 <= metric.high
    asked_for = set(discovery.task(record.task).reference_rows)
    no_towers = any("no untrained towers" in note for note in record.notes)
    assert asked_for - record.reference_rows.keys() <= ({"untrained"} if no_towers else set())
    assert path.with_suffix(".npz").stat().st_size <= outcome_file.MAX_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_outcomes_give_the_record_again(path):
    record = read_record(path)
    discovery.load("protocols", record.protocol)
    outcome = outcome_file.read(path.with_suffix(".npz"))
    assert len(outcome.ids) == record.n
    assert set(record.headline_metrics) <= outcome.metrics.keys()
    for name, statistic in outcome.metrics.items():
        metric = record.metrics[name]
        for key in ("kind", "unit", "less_is_better"):
            assert getattr(metric, key) == getattr(statistic, key)
        if metric.value is not None:
            assert statistic.value == pytest.approx(metric.value, abs=2e-6)
        if metric.low is not None and metric.high is not None:
            assert statistic.least <= metric.low <= metric.high <= statistic.most


@pytest.mark.slow
def test_records_and_generated_tables_are_current():
    assert result_problems(RESULTS, TASKS, discovery.cards_folder("reference_models")) == []


@pytest.mark.slow
def test_the_leaderboard_holds_every_record():
    rows = leaderboard.frame(leaderboard.build(RESULTS)) if FILES else None
    for path in FILES:
        record = read_record(path)
        assert ((rows["task"] == record.task) & (rows["name"] == record.model)).any()
