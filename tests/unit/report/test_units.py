"""A plug-in's statistic on a scale of its own (0 to 10) and a plug-in's error, from the evaluation to every table."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from sparc_bench.cards import discovery
from sparc_bench.cli.evaluated import evaluated as table_of
from sparc_bench.errors import UserError
from sparc_bench.evaluation.evaluate import Result
from sparc_bench.metrics.statistic import Mean
from sparc_bench.records import outcome_file
from sparc_bench.records.record import read_record, write_record
from sparc_bench.report import interval_plot, leaderboard, overview
from sparc_bench.report.compare import compare, render
from sparc_bench.report.ranking import build


class Grade(Mean):
    """Ten times a share."""

    kind = "grade"
    unit = "number"
    most = 10.0

    def values_S(self, weights_SG):
        return 10 * super().values_S(weights_SG)


class Errors(Mean):
    """A share of which less is better."""

    kind = "errors"
    less_is_better = True


@pytest.fixture
def graded(evaluated, toy_task, monkeypatch):
    monkeypatch.setattr(discovery.load("protocols", "toy_score"), "Mean", Grade)
    tasks = [toy_task(data={"n": 60})]
    evaluated("good", 0.9, tasks)
    return evaluated("bad", 0.5, tasks)


def shown(renderable):
    console = Console(file=io.StringIO(), width=200)
    console.print(renderable)
    return console.file.getvalue()


def test_a_record_says_the_unit_where_it_is_not_percent(graded):
    path = graded / "good" / "toy.json"
    written = json.loads(path.read_text())["metrics"]["local/top1"]
    assert (written["kind"], written["unit"], "less_is_better" in written) == ("grade", "number", False)
    metric = read_record(path).metrics["local/top1"]
    assert (metric.unit, metric.less_is_better) == ("number", False)
    assert 1 < metric.low < metric.value < metric.high <= 10
    assert isinstance(outcome_file.read(path.with_suffix(".npz")).groups["class"]["cat"], Grade)


def test_every_table_prints_plain_numbers_as_they_are(graded):
    value = read_record(graded / "good" / "toy.json").metrics["local/top1"].value
    sections = build(graded)
    assert {(section.unit, section.rows[0].unit) for section in sections} == {("number", "number")}
    terminal, page = shown(leaderboard.render(sections)), leaderboard.markdown_text(sections)
    assert f" {value:.2f} " in terminal
    assert f"| {value:.2f} |" in page
    assert "| rank | model | value | 95 % interval | seeds |" in page
    assert f"{value:.2f} [" in overview.text(sections)
    assert "top1, plain number" in overview.text(sections)
    assert " Columns of plain numbers say so. " in overview.text(sections)
    differences = shown(render(compare("good", "bad", graded)))
    assert f" {value:.2f} " in differences
    assert "in percentage points, of plain numbers as they are, with 95 % intervals" in differences


def test_the_axis_of_plain_numbers_ends_where_they_do(graded):
    section = build(graded)[0]
    block = interval_plot.Block("toy", [("top1", section)], [row.model for row in section.rows])
    (panel,) = interval_plot.draw([block]).axes
    best = max(row.high for row in section.rows)
    assert panel.get_xlim() == (0, pytest.approx(1.12 * best))
    assert best > 5


def test_eval_names_percent_beside_plain_numbers(graded):
    record = read_record(graded / "good" / "toy.json")
    values = {"unit": "percent", "value": 0.5, "low": 0.4, "high": 0.6}
    share = record.metrics["local/top1"].model_copy(update=values)
    both = record.model_copy(update={"metrics": {**record.metrics, "share": share}})
    lines = shown(table_of([Result("good", "toy", both, Path("x.json"))])).splitlines()
    assert "value [95 %]" in lines[0]
    assert any("share, %" in line and "50.0 [40.0, 60.0]" in line for line in lines)
    assert any("local/top1 " in line and f"{record.metrics['local/top1'].value:.2f} [" in line for line in lines)


def test_an_error_of_a_plug_in_heads_no_table(evaluated, toy_task, monkeypatch):
    monkeypatch.setattr(discovery.load("protocols", "toy_score"), "Mean", Errors)
    with pytest.raises(AssertionError, match="'local/top1' is an error, and tables rank by more: headline another"):
        evaluated("good", 0.9, [toy_task(data={"n": 60})])


def test_percent_and_more_is_better_are_not_written(evaluated):
    path = evaluated() / "toy_good" / "toy.json"
    metric = json.loads(path.read_text())["metrics"]["local/top1"]
    assert list(metric) == ["value", "se", "low", "high", "kind", "n_clusters", "method"]


def test_errors_of_older_records_are_known_as_such(evaluated):
    path = evaluated() / "toy_good" / "toy.json"
    path.write_text(path.read_text().replace('"kind": "mean"', '"kind": "corruption_error"'))
    record = read_record(path)
    assert record.metrics["local/top1"].less_is_better
    write_record(path, record)
    assert json.loads(path.read_text())["metrics"]["local/top1"]["less_is_better"] is True
    path.write_text(path.read_text().replace('"less_is_better": true', '"unit": "pounds"'))
    with pytest.raises(UserError, match=r"damaged \('metrics\.local/top1\.unit'.*--force\."):
        read_record(path)
