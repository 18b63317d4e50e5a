"""The first thing that a new user runs: train SPARC and CLIP on the embedded scenes, evaluate, compare, rank."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from sparc_bench.cards import discovery
from sparc_bench.cli.evaluated import complain, evaluated
from sparc_bench.cli.show import summary_table
from sparc_bench.evaluation.evaluate import Settings, evaluate
from sparc_bench.report import compare, leaderboard
from sparc_bench.terminal import task_bar
from sparc_bench.training.train import train

RECIPES = ("scenes_sparc", "scenes_clip")
SUITE = "scenes"
SEED = 0


def quickstart(results: Path, runs: Path, console: Console) -> int:
    """Train both recipes (a finished run is kept, an unfinished one goes on), evaluate, compare, write the leaderboard.

    Returns:
        The exit code: 0, or 1 where a task failed, 2 where all did.
    """
    folders = {name: runs / name / f"seed{SEED}" for name in RECIPES}
    for step, (name, folder) in enumerate(folders.items(), 1):
        there = " (trained already)" if (folder / "summary.json").is_file() else ""
        console.rule(f"{step} of 4: train {name}{there}", align="left")
        console.print(summary_table(train(discovery.recipe(name), folder, None, SEED, "cpu")))
    console.rule(f"3 of 4: evaluate both on the suite {SUITE}", align="left")
    settings = Settings(results=results, seed=SEED)
    done = []
    with task_bar() as progress:
        for name, folder in folders.items():
            done += evaluate(name, discovery.suite(SUITE), settings, folder, progress)
    console.print(evaluated(done))
    code = complain(done)
    if code == 2:
        return code
    console.rule("4 of 4: compare and rank", align="left")
    console.print(compare.render(compare.compare(*RECIPES, results)))
    leaderboard.publish(results, console)
    console.print(f"The leaderboard is in {results}: README.md, leaderboard.csv, leaderboard.png.")
    return code
