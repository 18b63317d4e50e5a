"""`sparc-bench quickstart`: the plan first, then how long it takes, and in fifteen lines what came out."""

import json
from types import SimpleNamespace

import pytest

from sparc_bench.cli import findings, quickstart
from sparc_bench.cli.app import main
from sparc_bench.cli.overview import GROUPS
from sparc_bench.evaluation.pipeline import Result
from sparc_bench.files.atomic import write_atomic
from sparc_bench.metrics.estimate import PairedEstimate
from sparc_bench.report.compare import Comparison, Difference
from tests.unit.cli.test_training_summary import SUMMARY

SPARC, CLIP = quickstart.ON_SCENES.recipes


def compared(tasks=5):
    """Task t<k> where SPARC is k points ahead, u<k> where CLIP is, and v<k> where nobody is."""
    rows = {f"t{k}": (k, 0.01) for k in range(1, tasks + 1)}
    rows |= {"u1": (-1, 0.04), "v1": (0, 1.0), "v2": (1, 0.05)}
    return Comparison(
        SPARC,
        CLIP,
        tuple(
            SimpleNamespace(
                a=SimpleNamespace(task=name),
                metrics=(
                    Difference("top1", 0.5, 0.5, PairedEstimate(value / 100, 0.1, -1.0, 1.0, 9, "wilson"), p),
                    Difference("twin", 0.5, 0.5, PairedEstimate(0.9, 0.1, 0.8, 0.95, 9, "wilson"), 0.001),
                ),
            )
            for name, (value, p) in rows.items()
        ),
    )


def section(task, model, clear, main=True):
    return SimpleNamespace(task=task, main=main, rows=(SimpleNamespace(model=model, clear=clear),))


def test_what_was_found():
    first, *ahead = findings.found(compared())
    assert first.startswith("Found on 8 tasks, by the headline of each")
    # the largest differences first, the others as a number
    assert ahead == [
        f"  {SPARC} is ahead on 5: t5 (5.0), t4 (4.0) and 3 more",
        f"  {CLIP} is ahead on 1: u1 (1.0)",
    ]


def test_what_is_not_clear():
    sections = [
        section("t1", SPARC, clear=True),
        section("t2", SPARC, clear=False),
        section("t3", SPARC, clear=False, main=False),
        section("u1", CLIP, clear=True),
    ]
    lines = findings.not_clear(compared(), sections)
    assert lines[:3] == [
        "Not clear:",
        "  who is ahead on 2: v1, v2",
        f"  whether {SPARC} is above its reference rows on 1: t2",
    ]
    assert len(lines) == 4
    assert "one seed of each was trained" in lines[3]


@pytest.fixture
def go(monkeypatch, tmp_path, capsys):
    """Run quickstart on stand-ins for all that takes time; returns what it did and what it printed."""
    done = []

    def train(recipe, folder, data_root, seed, device, on_step):
        done.append(("train", recipe.name, folder))
        if (folder / "summary.json").is_file() and (folder / "summary.json").read_text() != "{":
            return json.loads((folder / "summary.json").read_text())
        for number in range(1, recipe.steps + 1):
            on_step(number)
        folder.mkdir(parents=True, exist_ok=True)
        summary = {**SUMMARY, "recipe": recipe.name, "steps": recipe.steps, "seconds": 60.0}
        (folder / "summary.json").write_text(json.dumps(summary))
        return summary

    def evaluate(model, tasks, settings, run, progress):
        again = ("evaluate", model, run) in done
        done.append(("evaluate", model, run))
        assert {card.name for card in tasks} >= {"scenes_retrieval"}
        files = [results / model / f"{card.name}.json" for card in tasks]
        for file in files:
            write_atomic(file, b"")
        return [Result(model, card.name, kept=again) for card in tasks]

    def publish(results, console):
        results.mkdir(exist_ok=True)
        console.print("[table of all records]")
        return [section("t1", SPARC, clear=False), section("t1", CLIP, clear=False)]

    results, runs = tmp_path / "results", tmp_path / "runs"
    seconds = iter(range(10_000))
    monkeypatch.setattr(quickstart.time, "perf_counter", lambda: float(next(seconds)))
    monkeypatch.setattr(quickstart, "train", train)
    monkeypatch.setattr(quickstart, "evaluate", evaluate)
    monkeypatch.setattr(quickstart, "evaluated", lambda _: "[table of the evaluation]")
    monkeypatch.setattr(quickstart.compare, "compare", lambda *arguments: done.append(arguments) or compared())
    monkeypatch.setattr(quickstart.compare, "render", lambda _: "[table of the comparison]")
    monkeypatch.setattr(quickstart.leaderboard, "publish", publish)

    def run():
        done_before = len(done)
        assert main(["quickstart", "--results", str(results), "--runs", str(runs)]) == 0
        return done[done_before:], capsys.readouterr().out.splitlines()

    return SimpleNamespace(run=run, results=results, runs=runs)


@pytest.mark.slow
def test_both_are_trained_evaluated_and_compared(go):
    done, _ = go.run()
    folders = {name: go.runs / name / "seed0" for name in (SPARC, CLIP)}
    assert done == [
        *(("train", name, folder) for name, folder in folders.items()),
        *(("evaluate", name, folder) for name, folder in folders.items()),
        (SPARC, CLIP, go.results),
    ]


@pytest.mark.slow
def test_the_plan_comes_first_and_the_time_after_the_first_steps(go):
    _, lines = go.run()
    assert lines[0].startswith(
        f"Quickstart trains {SPARC} (300 steps) and {CLIP} (300 steps), evaluates both on the 12"
    )
    assert "nothing is downloaded" in lines[1]
    # a second a step: 288 of the first training, 300 of the second, and the evaluation
    minutes = round((288 + 300 + quickstart.ON_SCENES.evaluation_steps) / 60)
    assert lines[2] == f"It takes about {minutes} minutes from here, by the speed of this machine's training steps."
    minutes = round((288 + quickstart.ON_SCENES.evaluation_steps) / 60)
    assert lines[3] == f"It takes about {minutes} minutes from here, by the speed of this machine's training steps."
    assert not any(line.startswith("It takes") for line in lines[4:])


@pytest.mark.slow
def test_it_ends_in_fifteen_lines_and_all_tables_are_in_a_file(go):
    _, lines = go.run()
    end = lines[4:]
    assert len(end) <= 15
    assert [line.partition(" ")[0] for line in end if not line.startswith(" ")] == ["Found", "Not", "Files:", "Next:"]
    report = (go.results / "report.txt").read_text()
    for part in (
        "scenes_sparc",
        "scenes_clip",
        "[table of the evaluation]",
        "[table of the comparison]",
        "[table of all records]",
    ):
        assert part in report
        assert not part.startswith("[") or part not in "\n".join(lines)
    assert f"  {go.results / 'report.txt'}: " in "\n".join(end)
    commands = [line.split() for line in end[end.index("Next:") + 1 :]]
    known = {name for group in GROUPS.values() for name in group}
    assert all(words[0] == "sparc-bench" and words[1] in known for words in commands)


@pytest.mark.slow
def test_a_second_call_says_that_everything_was_there(go):
    go.run()
    _, lines = go.run()
    assert f"{SPARC} (trained already) and {CLIP} (trained already)" in lines[0]
    assert lines[1] == "Records of both are there already: those that are current are kept, which takes seconds."
    assert "Files (everything was there: nothing was trained or evaluated again):" in lines
    assert len(lines[2:]) <= 15


@pytest.mark.slow
def test_the_speed_of_before_tells_how_long_an_evaluation_takes(go):
    go.run()
    (go.results / CLIP / "scenes_retrieval.json").unlink()
    _, lines = go.run()
    # 60 s for 300 steps
    assert lines[2].startswith(
        f"It takes about {quickstart.in_words(quickstart.ON_SCENES.evaluation_steps / 5)} from here"
    )


@pytest.mark.slow
def test_a_damaged_summary_is_left_to_the_training(go):
    go.run()
    (go.runs / SPARC / "seed0" / "summary.json").write_text("{")
    _, lines = go.run()
    assert f"{SPARC} (300 steps) and {CLIP} (trained already)" in lines[0]


@pytest.mark.slow
def test_where_every_task_fails_there_is_no_summary(go, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        quickstart,
        "evaluate",
        lambda model, tasks, *_: [Result(model, card.name, error="This is broken: mend it.") for card in tasks],
    )
    assert main(["quickstart", "--results", str(go.results), "--runs", str(go.runs)]) == 2
    captured = capsys.readouterr()
    assert captured.err == "This is broken: mend it.\n"
    assert "Found" not in captured.out


def test_the_forecast_is_given_for_each_training_by_its_median_step(monkeypatch):
    now, said = [0.0], []
    monkeypatch.setattr(quickstart.time, "perf_counter", lambda: now[0])
    forecast = quickstart.Forecast(said.append)
    for last_step, later, seconds in ((300, 700, 1.0), (300, 400, 2.0)):
        forecast.training_begins(last_step, later)
        for number in range(1, last_step + 1):
            now[0] += 60.0 if number in (1, 7) else seconds  # the first step and one of the timed ones are slow
            forecast.step(number)
    assert ["about 16 minutes" in said[0], "about 23 minutes" in said[1], len(said)] == [True, True, 2]
