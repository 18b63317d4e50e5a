import pytest

from sparc_bench.cli.check import result_problems
from sparc_bench.errors import UserError
from sparc_bench.records.record import read_record, write_record
from sparc_bench.records.renew_intervals import main, renew, renewed


@pytest.fixture
def older(evaluated):
    """A record as it was before: its intervals are a bootstrap's, and it does not say so."""
    folder = evaluated()
    (path,) = folder.glob("*/toy.json")
    now = read_record(path)
    metrics = {
        name: metric.model_copy(update={"low": 0.0, "high": 1.0, "se": 0.5, "method": "bootstrap"})
        for name, metric in now.metrics.items()
    }
    write_record(path, now.model_copy(update={"metrics": metrics, "interval_version": 1}))
    return folder, path, now


def test_intervals_are_those_of_a_new_evaluation(older, capsys):
    folder, path, now = older
    main(folder)
    assert read_record(path) == now
    assert "Renewed 1 records; then run sparc-bench leaderboard" in capsys.readouterr().out
    assert list(renew(folder)) == []


def test_values_are_kept(older):
    _, path, now = older
    name = now.headline_metrics[0]
    nearly = now.metrics[name].model_copy(update={"value": round(now.metrics[name].value + 1e-6, 6)})
    record = now.model_copy(update={"metrics": {**now.metrics, name: nearly}, "interval_version": 1})
    assert renewed(path, record).metrics[name].value == nearly.value
    far = nearly.model_copy(update={"value": 0.123})
    with pytest.raises(UserError, match=r"says 0\.123 where its outcomes say"):
        renewed(path, now.model_copy(update={"metrics": {**now.metrics, name: far}}))


def test_outcomes_of_another_record_are_refused(older):
    _, path, now = older
    path.with_suffix(".npz").write_bytes(b"other")
    with pytest.raises(UserError, match=r"do not belong together: run sparc-bench eval .* --task toy --force"):
        renewed(path, now)


def test_a_statistic_that_had_no_room_is_named(older, capsys):
    folder, path, now = older
    metrics = {**now.metrics, "lost": next(iter(now.metrics.values()))}
    write_record(path, now.model_copy(update={"metrics": metrics, "interval_version": 1}))
    main(folder)
    printed = capsys.readouterr().out
    assert "had no room for all statistics: run sparc-bench eval" in printed
    assert "Renewed 0 records" in printed


def test_check_names_the_command_and_eval_renews(older, evaluated, tmp_path):
    folder, path, now = older
    problems = result_problems(folder, tmp_path, tmp_path)
    assert any(
        "1 records under" in line and "python -m sparc_bench.records.renew_intervals" in line for line in problems
    )
    evaluated()
    assert read_record(path) == now
