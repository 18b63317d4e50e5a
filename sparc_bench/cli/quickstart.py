"""`sparc-bench quickstart`: train SPARC and CLIP, evaluate both, compare them and rank them.

Without data it does so on the embedded scenes; with a data root, on Flickr8k's photos.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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

SEED = 0
REPORT = "report.txt"

WARM_UP = 2
"""First steps of a training that are left out of its speed: they are slower than the others."""
TIMED = 10
"""Steps whose time tells how long the rest takes."""


@dataclass(frozen=True)
class Pair:
    """Two recipes that are trained and compared.

    Attributes:
        recipes: their names.
        suite: the suite of tasks that both are evaluated on.
        pictures: where the pictures come from, as a sentence.
        minutes: of the whole, on two idle cores.
        evaluation_steps: training steps that take as long as to evaluate both models, compare and rank them.
    """

    recipes: tuple[str, str]
    suite: str
    pictures: str
    minutes: int
    evaluation_steps: int


ON_SCENES = Pair(
    recipes=("scenes_sparc", "scenes_clip"),
    suite="scenes",
    pictures="The pictures are drawn here: nothing is downloaded.",
    minutes=4,
    evaluation_steps=400,  # 90 s beside 0.24 s a step
)
ON_PHOTOS = Pair(
    recipes=("flickr8k_sparc", "flickr8k_clip"),
    suite="flickr8k",
    pictures="The photos are read from the data root, and pass once through a frozen trunk: nothing is downloaded.",
    minutes=10,
    evaluation_steps=300,
)


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


def quickstart(results: Path, runs: Path, data_root: Path | None, console: Console) -> int:
    """Train both recipes (a finished run is kept, an unfinished one goes on), evaluate, compare, write the leaderboard.

    With a data root, the recipes on Flickr8k's photos; without one, those on scenes. All tables go to `report.txt` in
    the results folder; the screen gets the plan, and in fifteen lines at most what was found, what is not clear, where
    the files are and what to type next.

    Returns:
        The exit code: 0, or 1 where a task failed, 2 where all did.
    """
    pair = ON_SCENES if data_root is None else ON_PHOTOS
    folders = {name: runs / name / f"seed{SEED}" for name in pair.recipes}
    trained = {name: summary for name, folder in folders.items() if (summary := _summary(folder)) is not None}
    say = _sayer(console)
    say(plan(pair, trained, _has_records(pair, results)))
    report = PlainConsole(file=io.StringIO(), width=140)
    forecast = Forecast(say)
    if len(trained) == len(folders) and not _has_records(
        pair, results
    ):  # nothing trains now: the speed of the earlier run
        summary = trained[pair.recipes[0]]
        seconds_per_step = summary["seconds"] / max(1, summary["steps"] - summary["resumed_from"])
        forecast.by_speed(seconds_per_step, pair.evaluation_steps)
    _train(pair, folders, trained, data_root, forecast, report)
    report.rule(f"Evaluation on the suite {pair.suite}", align="left")
    done = []
    with task_bar() as progress:
        for name, folder in folders.items():
            settings = Settings(data_root=data_root, results=results, seed=SEED, cache="trunk")
            done += evaluate(name, discovery.suite(pair.suite), settings, folder, progress)
    report.print(evaluated(done))
    code = complain(done)
    if code == 2:
        return code
    compared = compare.compare(*pair.recipes, results)
    report.rule("Comparison", align="left")
    report.print(compare.render(compared))
    report.rule("Leaderboard", align="left")
    sections = leaderboard.publish(results, report)
    assert isinstance(report.file, io.StringIO)
    write_atomic(results / REPORT, report.file.getvalue().encode())
    kept = len(trained) == len(folders) and all(result.kept for result in done)
    for line in [
        *found(compared),
        *not_clear(compared, sections),
        *_files(results, folders, kept),
        *_next(pair, results),
    ]:
        say(line)
    return code


def plan(pair: Pair, trained: Mapping[str, object], evaluated_already: bool) -> str:
    """Opening line: the steps of the command, and when its time on this machine will be known."""
    steps = {name: discovery.recipe(name).steps for name in pair.recipes}
    trainings = " and ".join(
        f"{name} ({'trained already' if name in trained else f'{number} steps'})" for name, number in steps.items()
    )
    tasks = len(discovery.suite(pair.suite))
    scored = f"evaluates both on the {tasks} tasks of the suite {pair.suite} and compares them"
    what = f"Quickstart trains {trainings}, {scored}."
    if len(trained) == len(steps) and evaluated_already:
        return f"{what}\nRecords of both are there already: those that are current are kept, which takes seconds."
    return (
        f"{what}\n{pair.pictures} On two idle cores it takes about {pair.minutes} minutes; the first training steps "
        "tell how long it takes here."
    )


def _has_records(pair: Pair, results: Path) -> bool:
    """Whether both models have a record of every task, current or not."""
    return all(
        record_path(results, name, SEED, card.name, sample=card.sample, limit=None).is_file()
        for name in pair.recipes
        for card in discovery.suite(pair.suite)
    )


def _sayer(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(text, soft_wrap=True)


def _train(
    pair: Pair,
    folders: Mapping[str, Path],
    trained: Mapping[str, Mapping[str, float]],
    data_root: Path | None,
    forecast: Forecast,
    report: Console,
) -> None:
    left = {name: discovery.recipe(name).steps for name in folders if name not in trained}
    for name, folder in folders.items():
        recipe = discovery.recipe(name)
        left.pop(name, None)
        forecast.training_begins(recipe.steps, sum(left.values()) + pair.evaluation_steps)
        report.rule(f"Training of {name}", align="left")
        report.print(summary_table(train(recipe, folder, data_root, SEED, "cpu", on_step=forecast.step)))


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


def _next(pair: Pair, results: Path) -> list[str]:
    return [
        "Next:",
        f"  sparc-bench eval open_clip:ViT-B-32/openai --suite {pair.suite} --results {results}  (downloads 605 MB)",
        "  sparc-bench list tasks",
    ]
