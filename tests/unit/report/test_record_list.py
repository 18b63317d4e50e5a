import pytest

from sparc_bench.errors import UserError
from sparc_bench.report.record_list import load_records


@pytest.fixture
def records(evaluated, toy_task):
    return load_records(evaluated("good", 0.9, [toy_task(), toy_task("other", data={"n": 12})]))


def test_it_is_a_list_of_records(records):
    assert [record.task for record in records] == ["other", "toy"]
    assert (len(records), records[-1].n, [record.n for record in records[:1]]) == (2, 30, [12])
    assert records[1] in records


def test_the_table_has_a_row_for_each_metric_of_each_record(records):
    table = records.to_pandas().set_index(["task", "metric"])
    assert len(table) == sum(len(record.metrics) for record in records)
    row, metric = table.loc["toy", "local/top1"], records[1].metrics["local/top1"]
    assert (row["value"], row["se"], row["low"], row["high"]) == (metric.value, metric.se, metric.low, metric.high)
    assert (row["unit"], row["less_is_better"], row["n"], row["exposure"]) == ("percent", False, 30, "domain")
    assert (row["headline"], row["trained"]) == (True, True)
    assert not table.loc["toy", "global/top1"]["trained"]
    assert table["limit"].isna().all()


def test_what_is_shown_are_the_headlines(records):
    assert repr(records).splitlines()[0].split() == ["model", "task", "metric", "value", "low", "high", "n"]
    assert len(repr(records).splitlines()) == 1 + 4  # two paths of two tasks
    assert repr(records[:0]) == "no records"
    assert "<td>local/top1</td>" in records._repr_html_()


def test_records_with_a_limit_are_loaded_from_their_own_folder(evaluated):
    results = evaluated("good", 0.9, limit=6)
    (record,) = load_records(results / "testing")
    assert record.limit == 6
    with pytest.raises(UserError, match=r"made with a limit alone, which are for testing: load .*testing"):
        load_records(results)
