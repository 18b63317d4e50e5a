"""What the commands hand to the parts that do the work, what they print, and their exit codes."""

from pathlib import Path

import pytest

from sparc_bench.cards.card import parse
from sparc_bench.cards.recipe import Recipe
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.cli.app import main
from sparc_bench.cli.evaluated import evaluated
from sparc_bench.encoder import Runtime
from sparc_bench.evaluation import evaluate
from sparc_bench.evaluation.evaluate import Settings
from sparc_bench.evaluation.pipeline import Result
from sparc_bench.models import resolve
from sparc_bench.records.record import Metric, Record
from sparc_bench.report import compare
from sparc_bench.terminal import console
from sparc_bench.training import train as training
from tests.unit.cli.test_training_summary import SUMMARY

RECIPE = {
    "name": "tiny",
    "title": "a tiny model",
    "source": "a test",
    "objective": "clip",
    "data": {"dataset": "scenes1"},
    "image": {},
    "text": {},
    "batch_size": 4,
    "steps": 200,
    "eval_every": 2,
}


def card(name):
    options = {"ks": [1], "truth": "own", "ties": "expected"}
    values = {
        "name": name,
        "title": name,
        "family": "retrieval",
        "dataset": "scenes1",
        "split": "test",
        "protocol": "retrieval",
        "options": options,
        "headline": "local/top1",
        "source": "a test",
    }
    return parse(TaskCard, values, name)


def record(model, task, low=0.2):
    metric = Metric(value=0.25, se=0.02, low=low, high=0.3, kind="mean", n_clusters=10, method="bootstrap")
    empty = Metric(value=None, se=None, low=None, high=None, kind="mean", n_clusters=0, method="bootstrap")
    values = dict.fromkeys(Record.model_fields, "") | {
        "schema_version": 1,
        "model": model,
        "task": task,
        "paths": {"local": False, "global": True},
        "headline": "local/top1",
        "exposure": "unknown",
        "metrics": {"local/top1": metric, "global/top1": empty},
        "reference_rows": {"random": {"local/top1": 0.1234}},
        "chance": {},
        "counts": {},
        "groups": {},
        "libraries": {},
        "classes_seen": None,
        "notes": (),
        "sample": True,
        "limit": None,
        "dirty": False,
        "n": 10,
        "ties": 0,
        "seed": 0,
        "protocol_version": 1,
        "seconds": 3.0,
        "interval_version": 1,
    }
    return Record.model_validate(values)


@pytest.fixture
def tasks(monkeypatch):
    from sparc_bench.cards import discovery

    monkeypatch.setattr(discovery, "task", card)
    monkeypatch.setattr(discovery, "suite", lambda name: [card(f"{name}_one"), card(f"{name}_two")])


@pytest.fixture
def calls(monkeypatch):
    """What evaluate was called with; tasks whose name ends in `bad` fail."""
    seen = []

    def fake(model, cards, settings, run=None, progress=None):
        seen.append((model, [one.name for one in cards], settings, run))
        return [
            Result(model, one.name, error=f"{one.name} cannot be done: leave it out.")
            if one.name.endswith("bad")
            else Result(model, one.name, record(model, one.name), Path("x.json"))
            for one in cards
        ]

    monkeypatch.setattr(evaluate, "evaluate", fake)
    monkeypatch.setattr(resolve, "resolve", lambda *_: None)
    return seen


def test_eval_hands_everything_on(tasks, calls, tmp_path):
    options = {
        "--data-root": tmp_path,
        "--seed": 3,
        "--precision": "bf16",
        "--batch-size": 7,
        "--workers": 2,
        "--cache": "half",
        "--limit": 5,
        "--results": tmp_path / "results",
    }
    words = [str(word) for pair in options.items() for word in pair]
    assert main(["eval", "a", "b", "--suite", "s", "--task", "t", "--task", "s_one", "--force", *words]) == 0
    settings = Settings(
        results=tmp_path / "results",
        data_root=tmp_path,
        seed=3,
        runtime=Runtime("cpu", "bf16", 7, 2),
        limit=5,
        force=True,
        cache="half",
    )
    # a task that is named twice is evaluated once
    expected = ["s_one", "s_two", "t"]
    assert calls == [("a", expected, settings, None), ("b", expected, settings, None)]


def test_eval_prints_both_paths_with_interval_and_references(tasks, calls, tmp_path, capsys):
    assert main(["eval", "a", "--task", "t", "--run", str(tmp_path), "--results", str(tmp_path)]) == 0
    assert calls[0][3] == tmp_path
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert rows[1:] == [
        "t (n=10, @sample)",
        "local/top1 a (untrained path) 25.0 [20.0, 30.0] random 12.3 yes 3 s",
        "global/top1 a - 3 s",
    ]


def test_eval_says_what_is_not_clear_of_its_reference_rows(capsys):
    low = record("a", "t", low=0.12)
    console().print(evaluated([Result("a", "t", low), Result("b", "u", error="broken"), Result("b", "t", low)]))
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    # the models of a task stand together
    assert [row.split()[0] for row in rows[1:]] == ["t", *["local/top1", "global/top1"] * 2, "u", "b"]
    assert "random 12.3 no" in rows[2]
    assert rows[-1] == "b failed"


@pytest.mark.parametrize(
    ("named", "code", "errors"),
    [
        (["good", "bad"], 1, ["a on bad: bad cannot be done: leave it out."]),
        (["bad"], 2, ["bad cannot be done: leave it out."]),
        (
            ["one_bad", "two_bad"],
            2,
            [f"a on {name}: {name} cannot be done: leave it out." for name in ("one_bad", "two_bad")],
        ),
        (["good"], 0, []),
    ],
)
def test_exit_code_of_failed_tasks(tasks, calls, tmp_path, capsys, named, code, errors):
    words = [word for name in named for word in ("--task", name)]
    assert main(["eval", "a", *words, "--results", str(tmp_path)]) == code
    assert capsys.readouterr().err.strip().splitlines() == errors


def test_misspelt_second_model_is_refused_before_the_first_is_evaluated(tasks, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(evaluate, "evaluate", lambda *_: pytest.fail("evaluated"))
    assert main(["eval", str(tmp_path), "nonsense", "--task", "t", "--results", str(tmp_path / "results")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_train_hands_everything_on(monkeypatch, tmp_path, capsys):
    from sparc_bench.cards import discovery

    recipe = parse(Recipe, RECIPE, "test")
    monkeypatch.setattr(discovery, "recipe", lambda _: recipe)
    seen = []

    def fake(*arguments):
        seen.append(arguments)
        return SUMMARY

    monkeypatch.setattr(training, "train", fake)
    words = ["--seed", "2", "--tensorboard", "--runs", str(tmp_path), "--data-root", str(tmp_path)]
    assert main(["train", "tiny", *words]) == 0
    folder = tmp_path / "tiny" / "seed2"
    assert seen == [(recipe, folder, tmp_path, 2, "cpu", True)]
    printed = capsys.readouterr().out
    assert "tiny, seed 2: 200 steps" in printed
    assert str(folder) in printed


def test_compare_lists_no_ids_unless_asked(monkeypatch, capsys):
    monkeypatch.setattr(compare, "compare", lambda a, b, results: (a, b, str(results)))
    monkeypatch.setattr(compare, "render", lambda of, ids: f"{of} {ids}")
    assert main(["compare", "a", "b"]) == main(["compare", "a", "b", "--ids", "--results", "r"]) == 0
    assert capsys.readouterr().out.splitlines() == ["('a', 'b', 'results') False", "('a', 'b', 'r') True"]


def test_data_root_comes_from_the_environment(tasks, calls, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARC_BENCH_DATA", str(tmp_path))
    assert main(["eval", "a", "--task", "t", "--results", str(tmp_path)]) == 0
    assert calls[0][2].data_root == tmp_path


def test_check_prints_every_problem(monkeypatch, capsys):
    from sparc_bench.cli import check

    monkeypatch.setattr(check, "check", lambda: ["One is wrong: mend it.", "Two is wrong: mend it."])
    assert main(["check"]) == 1
    assert capsys.readouterr().err.splitlines() == ["One is wrong: mend it.", "Two is wrong: mend it."]
    monkeypatch.setattr(check, "check", list)
    assert main(["check"]) == 0
