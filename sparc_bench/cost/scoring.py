"""What it takes to score cached features: ImageNet's and COCO's sizes, and 10,000 resamples of either.

    python -m sparc_bench.cost.scoring

The features are made up, 512 wide. They are put into a feature cache on disk by one process; what is measured happens
in another that has opened nothing yet: the protocol itself, from the first look into the cache to the outcome; 10,000
resamples of its metrics, and of its table by class as well; and the whole evaluation with 2,000 resamples, the random
reference row, and the record and its file of outcomes written. Memory is the peak of the process, libraries included.
"""

from __future__ import annotations

import csv
import io
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, TypeVar

import torch
import typer

from sparc_bench.cards import discovery
from sparc_bench.cards.binding import bind
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.cost import made_up
from sparc_bench.errors import UserError
from sparc_bench.evaluation.evaluate import Settings, evaluate_encoder
from sparc_bench.evaluation.reference_rows import estimated
from sparc_bench.feature_cache.cache import FeatureCache
from sparc_bench.files.atomic import write_atomic
from sparc_bench.metrics.bootstrap import bootstrap_all
from sparc_bench.protocol import Outcome
from sparc_bench.records.environment import library_versions
from sparc_bench.records.outcome_file import MAX_BYTES
from sparc_bench.terminal import console, table
from sparc_bench.training.precision import device_name

FILE = Path("cost") / "scoring.csv"
CACHE = "SPARC_BENCH_CACHE"
RESAMPLES = 10_000
THREADS = 1
"""Of torch and numpy; with more the time hangs on what else runs, for they wait for one another."""

MOST_GIB = 4.0


@dataclass(frozen=True)
class Benchmark:
    """One of the two sizes.

    Attributes:
        name: for the table.
        images: how many.
        classes: how many; 0: retrieval.
        captions: of each image.
        distance: of made-up vectors from their centres, so that some, not all, answers are right.
        most: seconds in which it is to be scored.
    """

    name: str
    images: int
    classes: int
    captions: int
    distance: float
    most: float

    @property
    def card(self) -> TaskCard:
        """The task, as of the published benchmark."""
        options: dict[str, object] = {"ks": [1, 5, 10], "truth": "own", "ties": "expected"}
        if self.classes:
            options = {"prompts": "openai80", "classes": "own", "top_k": [1, 5], "ties": "expected"}
        return TaskCard(
            name=f"made_up_{self.images}",
            title="time alone",
            family="classification" if self.classes else "retrieval",
            dataset="made_up",
            split="all",
            data={"images": self.images, "classes": self.classes, "captions": self.captions},
            protocol="classification" if self.classes else "retrieval",
            options=options,
            headline="top1" if self.classes else "text_to_image_r1",
            references=("random",),
            source="none",
        )


IMAGENET = Benchmark("ImageNet, 50,000 x 1,000, 80 prompts", 50_000, 1000, 0, 5.0, 3.0)
COCO = Benchmark("COCO, 5,000 x 25,000, both ways", 5000, 0, 5, 2.2, 10.0)
RESAMPLED_IN = 10.0

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Time:
    """Seconds on the clock, and of this process on all cores (fewer where other programs run beside it)."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Time:
        """Of clocks that began at some time."""
        return cls(time.perf_counter(), time.process_time())

    def since(self, before: Time) -> Time:
        """What passed."""
        return Time(self.wall - before.wall, self.cpu - before.cpu)


@dataclass(frozen=True)
class Spent:
    """Time of each stage and the process's memory.

    Attributes:
        scored: the protocol, from cached features.
        metrics: 10,000 resamples of all metrics.
        groups: of all metrics and of the table by group.
        evaluated: a whole evaluation.
        bytes: of the file of outcomes.
        gib: peak memory before the evaluation.
        gib_evaluated: peak memory of all.
    """

    scored: Time
    metrics: Time
    groups: Time
    evaluated: Time
    bytes: int
    gib: float
    gib_evaluated: float


class Bench:
    """A benchmark with its made-up data and model, in this process."""

    def __init__(self, benchmark: Benchmark) -> None:
        discovery.add_plugin(Path(made_up.__file__))
        self.card = benchmark.card
        self.task = bind(self.card)
        self.data = made_up.read(None, self.card.split, made_up.Options.model_validate(self.card.data))
        self.encoder = made_up.Vectors(self.data, benchmark.distance)

    def scored(self) -> Outcome:
        """What the protocol says; vectors come from the cache where they are there, and are kept in it."""
        cache = FeatureCache("full")
        outcome: Outcome = self.task.protocol.run(cache.around(self.encoder, self.data), self.data, self.task.options)
        cache.flush()
        return outcome


def fill(benchmark: Benchmark, cache: Path) -> None:
    """Put all features into the cache; called in a process of its own."""
    os.environ[CACHE] = str(cache)
    Bench(benchmark).scored()


def measure(benchmark: Benchmark, cache: Path, results: Path) -> Spent:
    """All stages, where the cache is full; called in a process of its own."""
    os.environ[CACHE] = str(cache)
    torch.set_num_threads(THREADS)
    bench = Bench(benchmark)
    times = [Time.now()]
    outcome = bench.scored()
    times.append(Time.now())
    bootstrap_all(outcome.metrics, RESAMPLES)
    times.append(Time.now())
    estimated(outcome, RESAMPLES)
    times.append(Time.now())
    gib = _peak_gib()
    settings = Settings(results, cache="full")
    [result] = evaluate_encoder(bench.encoder, bench.encoder.card, 0, [bench.card], settings)
    times.append(Time.now())
    if result.error is not None or result.path is None:
        raise UserError(result.error or "The evaluation wrote no record.")
    scored, metrics, groups, evaluated = (after.since(before) for before, after in pairwise(times))
    kept = result.path.with_suffix(".npz").stat().st_size
    return Spent(scored, metrics, groups, evaluated, kept, gib, _peak_gib())


def _peak_gib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def rows(benchmark: Benchmark, spent: Spent) -> list[tuple[str, str, str]]:
    """Of the table, with what each stage may take."""
    stages = [
        ("scored", spent.scored, f"of at most {benchmark.most:g}"),
        (f"{RESAMPLES} resamples of the metrics", spent.metrics, f"of at most {RESAMPLED_IN:g}"),
        (f"{RESAMPLES} resamples, every group too", spent.groups, f"of at most {RESAMPLED_IN:g}"),
        ("whole evaluation", spent.evaluated, "nothing promised"),
    ]
    return [
        ("benchmark", benchmark.name, ""),
        *((name, f"{took.wall:.2f}", f"s, {said}; {took.cpu:.2f} s of processors") for name, took, said in stages),
        ("peak memory before the evaluation", f"{spent.gib:.2f}", f"GiB, of at most {MOST_GIB:g}"),
        ("peak memory with it", f"{spent.gib_evaluated:.2f}", f"GiB, of at most {MOST_GIB:g}"),
        ("file of outcomes", f"{spent.bytes / 1000:.0f}", f"KB, of at most {MAX_BYTES // 1000}"),
    ]


def _alone(work: Callable[..., Answer], *arguments: object) -> Answer:
    """What a function says in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def main(results: Annotated[Path, typer.Option(help="Folder of the table.")] = Path("results")) -> None:
    """Measure, print and write the table."""
    load = os.getloadavg()[0]
    os.environ["OMP_NUM_THREADS"] = str(THREADS)
    found: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for benchmark in (IMAGENET, COCO):
            _alone(fill, benchmark, folder / "cache")
            found += rows(benchmark, _alone(measure, benchmark, folder / "cache", folder / "results"))
    found = [
        ("machine", f"{device_name(torch.device('cpu'))}, {os.cpu_count()} cores, {THREADS} thread", ""),
        ("load before", f"{load:.1f}", "processes"),
        ("libraries", " ".join(f"{name} {version}" for name, version in library_versions().items()), ""),
        *found,
    ]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([("measure", "value", "unit"), *found])
    write_atomic(results / FILE, text.getvalue().encode())
    console().print(table(("measure", "value", "unit"), found))


if __name__ == "__main__":
    typer.run(main)
