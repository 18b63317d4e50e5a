"""`sparc-bench quickstart`: train SPARC and CLIP on the embedded scenes, evaluate both, compare them and rank them."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from statistics import median

from rich.console import Console

from sparc_bench.cards import discovery
from sparc_bench.cli.evaluated import complain, evaluated
from sparc_bench.cli.findings import found, not_clear
from sparc_bench.cli.training_summary import summary_table
from sparc_bench.evaluation.evaluate import Settings, evaluate
from sparc_bench.files.atomic import write_atomic
from sparc_bench.records.record import record_path
from sparc_bench.report import compare, leaderboard
from sparc_bench.terminal import PlainConsole, task_bar
from sparc_bench.training.train import train

RECIPES = ("scenes_sparc", "scenes_clip")
SUITE = "scenes"
SEED = 0
REPORT = "report.txt"

WARM_UP = 2
"""First steps of a training that are left out of its speed: they are slower than the others."""
TIMED = 10
"""Steps whose time tells how long the rest takes."""
ON_TWO_CORES = 4
"""Minutes of the whole on two idle cores."""
EVALUATION_STEPS = 400
"""Training steps that take as long as to evaluate both models, compare and rank them (90 s beside 0.24 s a step)."""


class Forecast:
    """Estimate of the remaining time on this machine, printed after the first steps of each training."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._times: list[float] = []
        self._last_step, self._later = 0, 0

    def training_begins(self, last_step: int, later: int) -> None:
        """Time the steps of a training, after which comes as much work as so many steps."""
        self._times, self._last_step, self._later = [], last_step, later

    def step(self, number: int) -> None:
        """Note that a step is done."""
        self._times.append(time.perf_counter())
        if len(self._times) == WARM_UP + TIMED:
            seconds = [end - begin for begin, end in pairwise(self._times[WARM_UP - 1 :])]
            self.by_speed(median(seconds), self._last_step - number + self._later)

    def by_speed(self, seconds_per_step: float, steps: int) -> None:
        """Say how long so many steps, or as much work, take at a speed."""
        seconds = seconds_per_step * steps
        self._say(f"It takes about {in_words(seconds)} from here, by the speed of this machine's training steps.")


def in_words(seconds: float) -> str:
    """A time as a person would say it.

    >>> in_words(29), in_words(61), in_words(400)
    ('30 seconds', '1 minute', '7 minutes')
    """
    if seconds < 55:
        return f"{max(10, round(seconds, -1)):.0f} seconds"
    minutes = max(1, round(seconds / 60))
    return f"{minutes} minute{'s' * (minutes > 1)}"


def quickstart(results: Path, runs: Path, console: Console) -> int:
    """Train both recipes (a finished run is kept, an unfinished one goes on), evaluate, compare, write the leaderboard.

    All tables go to `report.txt` in the results folder; the screen gets the plan, and in fifteen lines at most what was
    found, what is not clear, where the files are and what to type next.

    Returns:
        The exit code: 0, or 1 where a task failed, 2 where all did.
    """
    folders = {name: runs / name / f"seed{SEED}" for name in RECIPES}
    trained = {name: summary for name, folder in folders.items() if (summary := _summary(folder)) is not None}
    say = _sayer(console)
    say(plan(trained, _has_records(results)))
    report = PlainConsole(file=io.StringIO(), width=140)
    forecast = Forecast(say)
    if len(trained) == len(RECIPES) and not _has_records(results):  # nothing trains now: the speed of the earlier run
        summary = trained[RECIPES[0]]
        forecast.by_speed(summary["seconds"] / max(1, summary["steps"] - summary["resumed_from"]), EVALUATION_STEPS)
    _train(folders, trained, forecast, report)
    report.rule(f"Evaluation on the suite {SUITE}", align="left")
    done = []
    with task_bar() as progress:
        for name, folder in folders.items():
            done += evaluate(name, discovery.suite(SUITE), Settings(results=results, seed=SEED), folder, progress)
    report.print(evaluated(done))
    code = complain(done)
    if code == 2:
        return code
    compared = compare.compare(*RECIPES, results)
    report.rule("Comparison", align="left")
    report.print(compare.render(compared))
    report.rule("Leaderboard", align="left")
    sections = leaderboard.publish(results, report)
    assert isinstance(report.file, io.StringIO)
    write_atomic(results / REPORT, report.file.getvalue().encode())
    kept = len(trained) == len(RECIPES) and all(result.kept for result in done)
    for line in [*found(compared), *not_clear(compared, sections), *_files(results, folders, kept), *_next(results)]:
        say(line)
    return code


def plan(trained: Mapping[str, object], evaluated_already: bool) -> str:
    """Opening line: the steps of the command, and when its time on this machine will be known."""
    steps = {name: discovery.recipe(name).steps for name in RECIPES}
    trainings = " and ".join(
        f"{name} ({'trained already' if name in trained else f'{number} steps'})" for name, number in steps.items()
    )
    tasks = len(discovery.suite(SUITE))
    what = f"Quickstart trains {trainings}, evaluates both on the {tasks} tasks of the suite {SUITE} and compares them."
    if len(trained) == len(steps) and evaluated_already:
        return f"{what}\nRecords of both are there already: those that are current are kept, which takes seconds."
    return (
        f"{what}\nThe pictures are drawn here: nothing is downloaded. On two idle cores it takes about {ON_TWO_CORES} "
        "minutes; the first training steps tell how long it takes here."
    )


def _has_records(results: Path) -> bool:
    """Whether both models have a record of every task, current or not."""
    return all(
        record_path(results, name, SEED, card.name, sample=card.sample, limit=None).is_file()
        for name in RECIPES
        for card in discovery.suite(SUITE)
    )


def _sayer(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(text, soft_wrap=True)


def _train(
    folders: Mapping[str, Path], trained: Mapping[str, Mapping[str, float]], forecast: Forecast, report: Console
) -> None:
    left = {name: discovery.recipe(name).steps for name in folders if name not in trained}
    for name, folder in folders.items():
        recipe = discovery.recipe(name)
        left.pop(name, None)
        forecast.training_begins(recipe.steps, sum(left.values()) + EVALUATION_STEPS)
        report.rule(f"Training of {name}", align="left")
        report.print(summary_table(train(recipe, folder, None, SEED, "cpu", on_step=forecast.step)))


def _summary(folder: Path) -> dict[str, float] | None:
    """The summary of a finished run; None of any other, which `train` mends or refuses."""
    try:
        values: dict[str, float] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values


def _files(results: Path, folders: Mapping[str, Path], kept: bool) -> list[str]:
    already = " (everything was there: nothing was trained or evaluated again)" if kept else ""
    return [
        f"Files{already}:",
        f"  {results / REPORT}: all tables, of the trainings, the evaluation, the comparison and the leaderboard",
        f"  {results / leaderboard.PAGE}, leaderboard.csv and .png; beside them a folder of records for each model",
        f"  {' and '.join(map(str, folders.values()))}: the trained models",
    ]


def _next(results: Path) -> list[str]:
    return [
        "Next:",
        f"  sparc-bench eval open_clip:ViT-B-32/openai --suite {SUITE} --results {results}  (downloads 605 MB)",
        "  sparc-bench list tasks",
    ]
