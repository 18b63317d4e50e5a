"""Time and memory of scoring cached features and of intervals, at the sizes of ImageNet and COCO.

    python -m sparc_bench.cost.scoring

The features are synthetic, 512 wide. One process writes them to a feature cache on disk; a fresh process measures: the
protocol, from the first read of the cache to the outcome; the intervals of its metrics, and those of its table by class
too; and a whole evaluation with the random reference row and the written record with its outcomes.
Memory is the peak of the process, libraries included.
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

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.cards import discovery
from sparc_bench.cards.binding import bind
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.cost import synthetic_vectors
from sparc_bench.errors import UserError
from sparc_bench.evaluation.evaluate import Settings, evaluate_encoder
from sparc_bench.evaluation.reference_rows import estimated
from sparc_bench.feature_cache.cache import FeatureCache
from sparc_bench.files.atomic import write_atomic
from sparc_bench.metrics.estimate import estimate
from sparc_bench.protocol import Outcome
from sparc_bench.records.environment import code_rows
from sparc_bench.records.outcome_file import MAX_BYTES
from sparc_bench.terminal import console, table
from sparc_bench.training.precision import device_name

FILE = Path("cost") / "scoring.csv"
CACHE = "SPARC_BENCH_CACHE"
THREADS = 1
"""Threads of torch and numpy; with more, the time depends on other programs, since threads wait for one another."""

MOST_GIB = 4.0


@dataclass(frozen=True)
class Benchmark:
    """One benchmark size.

    Attributes:
        name: name in the table.
        images: number of images.
        classes: number of classes; 0 for retrieval.
        captions: number of captions of each image.
        distance: standard deviation of the vectors around their centres, so that some answers are wrong.
        most: promised time of scoring in seconds.
    """

    name: str
    images: int
    classes: int
    captions: int
    distance: float
    most: float

    @property
    def card(self) -> TaskCard:
        """The task card, with the options of the published benchmark."""
        options: dict[str, object] = {"ks": [1, 5, 10], "truth": "own", "ties": "expected"}
        if self.classes:
            options = {"prompts": "openai80", "classes": "own", "top_k": [1, 5], "ties": "expected"}
        return TaskCard(
            name=f"synthetic_vectors_{self.images}",
            title="time alone",
            family="classification" if self.classes else "retrieval",
            dataset="synthetic_vectors",
            split="all",
            data={"images": self.images, "classes": self.classes, "captions": self.captions},
            protocol="classification" if self.classes else "retrieval",
            options=options,
            headline="top1" if self.classes else "text_to_image_r1",
            reference_rows=("random",),
            source="none",
        )


IMAGENET = Benchmark("ImageNet, 50,000 x 1,000, 80 prompts", 50_000, 1000, 0, 5.0, 3.0)
COCO = Benchmark("COCO, 5,000 x 25,000, both ways", 5000, 0, 5, 2.2, 10.0)
INTERVALS_IN = 10.0

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Time:
    """Wall-clock seconds, and CPU seconds of this process over all cores."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Time:
        """The present readings of both clocks."""
        return cls(time.perf_counter(), time.process_time())

    def since(self, before: Time) -> Time:
        """The time that has passed since an earlier reading."""
        return Time(self.wall - before.wall, self.cpu - before.cpu)


@dataclass(frozen=True)
class Spent:
    """Time of each stage and memory of the process.

    Attributes:
        scored: time of the protocol, from cached features.
        metrics: time of the intervals of all metrics.
        groups: time of the intervals of all metrics and of the table by group.
        evaluated: time of a whole evaluation.
        bytes: size of the file of outcomes.
        gib: peak memory in GiB before the evaluation.
        gib_evaluated: peak memory in GiB at the end.
    """

    scored: Time
    metrics: Time
    groups: Time
    evaluated: Time
    bytes: int
    gib: float
    gib_evaluated: float


class Bench:
    """A benchmark with its synthetic data and encoder, in this process."""

    def __init__(self, benchmark: Benchmark) -> None:
        discovery.add_plugin(Path(synthetic_vectors.__file__))
        self.card = benchmark.card
        self.task = bind(self.card)
        self.data = synthetic_vectors.read(
            None, self.card.split, synthetic_vectors.Options.model_validate(self.card.data)
        )
        self.encoder = synthetic_vectors.SyntheticEncoder(self.data, benchmark.distance)

    def scored(self) -> Outcome:
        """The outcome of the protocol; vectors are read from the cache, or added to it where missing."""
        cache = FeatureCache("full")
        outcome = outcome_of(self.task.protocol, cache.around(self.encoder, self.data), self.data, self.task.options)
        cache.flush()
        return outcome


def fill(benchmark: Benchmark, cache: Path) -> None:
    """Write all features to the cache; to be called in a new process."""
    os.environ[CACHE] = str(cache)
    Bench(benchmark).scored()


def measure(benchmark: Benchmark, cache: Path, results: Path) -> Spent:
    """Time and memory of all stages with a filled cache; to be called in a new process."""
    os.environ[CACHE] = str(cache)
    torch.set_num_threads(THREADS)
    bench = Bench(benchmark)
    times = [Time.now()]
    outcome = bench.scored()
    times.append(Time.now())
    for statistic in outcome.metrics.values():
        estimate(statistic)
    times.append(Time.now())
    estimated(outcome)
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
    """The rows (measure, value, unit) of the table, with the promised limit of each stage."""
    stages = [
        ("scored", spent.scored, f"of at most {benchmark.most:g}"),
        ("intervals of the metrics", spent.metrics, f"of at most {INTERVALS_IN:g}"),
        ("intervals, every group too", spent.groups, f"of at most {INTERVALS_IN:g}"),
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
    """The result of a function call in a new process."""
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
        *code_rows(),
        *found,
    ]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([("measure", "value", "unit"), *found])
    write_atomic(results / FILE, text.getvalue().encode())
    console().print(table(("measure", "value", "unit"), found))


if __name__ == "__main__":
    typer.run(main)
