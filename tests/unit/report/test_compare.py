import io

import numpy as np
import pytest
from rich.console import Console

from sparc_bench.errors import UserError
from sparc_bench.metrics.statistic import Mean
from sparc_bench.records.record import read_record, write_record
from sparc_bench.report import compare as module
from sparc_bench.report.compare import compare, render


@pytest.fixture
def both(evaluated, toy_task):
    tasks = [toy_task(data={"n": 120}), toy_task("sampled", data={"n": 60}, sample=True)]
    evaluated("good", 0.9, tasks)
    return evaluated("bad", 0.5, tasks)


def shown(comparison, **options):
    console = Console(file=io.StringIO(), width=140)
    console.print(render(comparison, **options))
    return console.file.getvalue()


@pytest.mark.slow
def test_differences_flips_and_groups(both):
    comparison = compare("good", "bad", both)
    assert [task.a.task for task in comparison.tasks] == ["sampled", "toy"]
    task = comparison.tasks[1]
    local, path_global = task.metrics
    assert (local.name, path_global.name) == ("local/top1", "global/top1")
    # an image is right at skill s where its hash lies under s: whatever the bad model gets right, the good one does too
    assert local.estimate.value == pytest.approx(len(task.only_a) / 120)
    assert task.only_b == ()
    assert local.verdict == "a"
    assert local.estimate.low > 0.2
    assert {row.name for row in task.groups["class"]} == {"cat", "dog", "fire hydrant"}
    mean_of_groups = sum(row.estimate.value for row in task.groups["class"]) / 3
    assert mean_of_groups == pytest.approx(local.estimate.value)


@pytest.mark.slow
def test_the_values_are_those_of_the_records(both):
    comparison = compare("good", "bad", both)
    for task in comparison.tasks:
        for row in task.metrics:
            assert row.a == pytest.approx(task.a.metrics[row.name].value, abs=1e-6)
            assert row.b == pytest.approx(task.b.metrics[row.name].value, abs=1e-6)


def test_the_other_way_round_the_signs_turn(both):
    forth, back = compare("good", "bad", both), compare("bad", "good", both)
    assert back.tasks[1].metrics[0].verdict == "b"
    for there, here in zip(forth.tasks, back.tasks, strict=True):
        differences = [row.estimate.value for row in there.metrics]
        assert differences == [-row.estimate.value for row in here.metrics]
        assert (there.only_a, there.only_b) == (here.only_b, here.only_a)
        assert there.only_a
        assert not there.only_b
    assert sum(len(of) for task in forth.tasks for of in task.groups.values()) == 6


def test_a_model_against_itself(both):
    comparison = compare("good", "good", both)
    assert {row.verdict for task in comparison.tasks for row in task.metrics} == {"open"}
    assert not any(task.only_a or task.only_b for task in comparison.tasks)
    assert "not clear" in shown(comparison)


def test_by_path_of_folder_or_file(both):
    by_folder = compare(both / "good", both / "bad")
    assert [task.a.task for task in by_folder.tasks] == ["toy"]
    by_file = compare(both / "good" / "toy.json", both / "bad" / "toy.json")
    assert by_file.tasks == by_folder.tasks


@pytest.mark.slow
def test_rendering(both):
    text = shown(compare("good", "bad", both))
    assert "Toy images @sample n=60" in text
    assert "by class" in text
    assert "Right in good alone, not in bad:" in text
    assert "Right in bad alone, not in good: 0 images" in text


@pytest.mark.slow
def test_images_that_only_one_gets_right_are_listed_on_demand(both):
    comparison = compare("good", "bad", both)
    first, last = comparison.tasks[1].only_a[0], comparison.tasks[1].only_a[-1]
    printed = shown(comparison).splitlines()
    assert f"Right in good alone, not in bad: {len(comparison.tasks[1].only_a)} images" in printed
    listed = " ".join(shown(comparison, ids=True).split())
    assert f"{len(comparison.tasks[1].only_a)} images: {first}, " in listed
    assert f" {last} Right in bad alone" in listed


def test_only_the_widest_groups_are_printed(both, monkeypatch):
    monkeypatch.setattr(module, "SHOWN_GROUPS", 2)
    task = compare("good", "bad", both).tasks[1]
    chosen = module.widest(task.groups["class"])
    left = {row.name: row for row in task.groups["class"]}
    for row in chosen:
        left.pop(row.name)
    (dropped,) = left.values()
    assert all(abs(row.estimate.value) >= abs(dropped.estimate.value) for row in chosen)
    assert "Groups that differ less are not shown: 1 of 3." in shown(compare("good", "bad", both))


@pytest.mark.slow
def test_unshared_tasks_are_named(both, evaluated, toy_task):
    evaluated("good", 0.9, [toy_task("alone")])
    comparison = compare("good", "bad", both)
    assert comparison.unshared == ("alone",)
    assert "Only one of the two has a record of: alone." in shown(comparison)


@pytest.mark.slow
def test_what_cannot_be_compared(both, evaluated, toy_task):
    evaluated("other", 0.9, [toy_task(data={"n": 90})])
    with pytest.raises(UserError, match=r"good/toy\.json \(\w{12}\) and .*other/toy\.json \(\w{12}\) are of different"):
        compare("good", "other", both)
    evaluated("alone", 0.9, [toy_task("alone")])
    with pytest.raises(UserError, match="no task in common"):
        compare("good", "alone", both)
    with pytest.raises(UserError, match="did you mean 'good'"):
        compare("goo", "bad", both)


def test_different_data_or_examples_are_refused(both):
    path = both / "bad" / "toy.json"
    record = read_record(path)
    write_record(path, record.model_copy(update={"data_hash": "f" * 64}))
    with pytest.raises(UserError, match="different data"):
        compare("good", "bad", both)
    write_record(path, record)
    other = both / "samples" / "bad" / "sampled.json"
    path.with_suffix(".npz").write_bytes(other.with_suffix(".npz").read_bytes())
    with pytest.raises(UserError, match="do not belong together: run sparc-bench eval bad --task toy --force"):
        compare("good", "bad", both)
    outcome_hash = read_record(other).outcome_hash
    write_record(path, record.model_copy(update={"outcome_hash": outcome_hash}))
    with pytest.raises(UserError, match="different examples"):
        compare("good", "bad", both)


def test_credits_of_one_half_are_no_flips(tmp_path, both):
    outcome = module.outcome_file.read(both / "good" / "toy.npz")
    half = module.StoredOutcome(outcome.ids, {"correct": 0 * outcome.examples["correct"] + 0.5}, {}, {}, ())
    assert module._flips(half, half) == ((), ())
    assert module._flips(module.StoredOutcome(outcome.ids, {}, {}, {}, ()), half) == (None, None)


def rows_that_differ_on(*images):
    """A table of one row for each number of 825 images that the first model alone gets right."""
    right = (np.arange(825) < 600).astype(float)
    return module._differences(
        {str(count): (Mean.of(right), Mean.of(np.where(np.arange(825) < count, 0.0, right))) for count in images}
    )


def test_one_image_is_no_lead():
    (row,) = rows_that_differ_on(1)
    assert (row.verdict, row.estimate.differing, row.p) == ("open", 1, 1.0)
    assert row.estimate.low < 0 < row.estimate.high
    assert [rows_that_differ_on(count)[0].verdict for count in (3, 4, 5, 6)] == ["open", "open", "open", "a"]


def test_verdicts_are_corrected_for_the_rows_of_their_table():
    alone, several = rows_that_differ_on(7), rows_that_differ_on(7, 1, 2, 3, 4)
    assert (alone[0].verdict, several[0].verdict) == ("a", "open")
    assert several[0].p == pytest.approx(5 * alone[0].p)


@pytest.mark.slow
def test_the_table_names_the_images_that_differ_and_p(both):
    comparison = compare("good", "bad", both)
    row = comparison.tasks[1].metrics[0]
    assert row.estimate.differing == len(comparison.tasks[1].only_a) + len(comparison.tasks[1].only_b)
    head, line = (
        next(line for line in shown(comparison).splitlines() if word in line) for word in ("differ ", "local/")
    )
    assert head.split()[-5:] == ["interval", "images", "differ", "p", "ahead"]
    assert line.split()[-4:] == ["60", str(comparison.tasks[0].metrics[0].estimate.differing), "<.001", "good"]
