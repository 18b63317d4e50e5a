"""Coverage of 95 % intervals: how often they hold the truth, simulated for every kind of statistic.

    python -m sparc_bench.cost.coverage

Each case draws a set of images many times, and counts how often the interval of the metric holds the value that very
many images have; of two equal models it counts how often one is called better (of 5 % allowed).

Shapes: G images, C classes, Q questions.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy import ndarray
from numpy.random import Generator
from pycocotools.cocoeval import COCOeval
from rich.progress import track

from sparc_bench.files.atomic import write_atomic
from sparc_bench.metrics.average_precision import AveragePrecision
from sparc_bench.metrics.estimate import estimate, paired_difference
from sparc_bench.metrics.presence import Auroc, ObjectAP, ScoredQuestions
from sparc_bench.metrics.sign_flips import LEVEL
from sparc_bench.metrics.statistic import ClassMean, IoU, Mean, Statistic
from sparc_bench.terminal import console, table

FILE = Path("cost") / "coverage.csv"
LEAST, MOST = 0.93, 0.97
_SEED = 20240118

Draw = Callable[[Generator, int], Statistic]


@dataclass(frozen=True)
class Case:
    """One simulated benchmark.

    Attributes:
        name: statistic and what is measured on.
        draw: the metric on so many new images.
        images: of one draw.
        draws: number of draws.
        truth: value of unlimited images; None: the value on `many` images.
        many: images of the truth.
    """

    name: str
    draw: Draw
    images: int
    draws: int
    truth: float | None = None
    many: int = 0


@dataclass(frozen=True)
class Coverage:
    """The result of one case.

    Attributes:
        case: what was simulated.
        truth: value of unlimited images.
        mean: mean value of the draws.
        held: share of the draws whose interval holds the truth.
        under: share whose interval lies under the truth.
        over: share whose interval lies over it.
        width: mean width.
    """

    case: Case
    truth: float
    mean: float
    held: float
    under: float
    over: float
    width: float


def covered(case: Case, draws: int | None = None) -> Coverage:
    """Coverage of one case, by `draws` draws or those of the case; the same every time."""
    truth = case.draw(np.random.default_rng(_SEED), case.many).value if case.truth is None else case.truth
    found = []
    for number in range(draws or case.draws):
        statistic = case.draw(np.random.default_rng([_SEED, number]), case.images)
        each = estimate(statistic)
        if each.value == each.value:
            found.append((each.value, each.high < truth, each.low > truth, each.high - each.low))
    mean, under, over, width = (float(column) for column in np.mean(np.array(found, dtype=np.float64), axis=0))
    return Coverage(case, truth, mean, 1 - under - over, under, over, width)


def false_verdicts(expected: float, draws: int = 4000, images: int = 1000) -> float:
    """Share of comparisons of two equal models that call one better, where so many images differ on average."""
    wrong = 0
    for number in range(draws):
        rng = np.random.default_rng([_SEED, number])
        differ_G = rng.random(images) < expected / images
        a_G = (rng.random(images) < 0.7).astype(np.float64)
        a_G[differ_G] = rng.random(int(differ_G.sum())) < 0.5
        b_G = np.where(differ_G, 1 - a_G, a_G)
        wrong += paired_difference(Mean.of(a_G), Mean.of(b_G)).p < LEVEL
    return wrong / draws


def right_answers(share: float) -> Draw:
    """Answers, each right with one probability."""
    return lambda rng, images: Mean.of((rng.random(images) < share).astype(np.float64))


def captions_of_images(share: float, captions: int = 5) -> Draw:
    """Right answers for the captions of an image, which succeed together."""

    def draw(rng: Generator, images: int) -> Statistic:
        quality_G = rng.beta(2 * share, 2 * (1 - share), images)
        right_GK = rng.random((images, captions)) < quality_G[:, None]
        return Mean(right_GK.sum(axis=1).astype(np.float64), np.full(images, float(captions)))

    return draw


def classes_of(sizes: list[int], shares: float | list[float] | None = None) -> tuple[Draw, float]:
    """Answers in classes of given sizes, each with a share of its own (drawn, given, or one common), and the truth."""
    drawn_C = np.random.default_rng(1).beta(4, 2, len(sizes))
    share_C = drawn_C if shares is None else np.broadcast_to(shares, len(sizes))
    class_G = np.repeat(np.arange(len(sizes)), sizes)

    def draw(rng: Generator, images: int) -> Statistic:
        right_G = (rng.random(images) < share_C[class_G]).astype(np.float64)
        return ClassMean.of(right_G, class_G, np.arange(images), images, len(sizes))

    return draw, float(share_C.mean())


def questions(cls: type[Auroc | ObjectAP], yes: float, apart: float, objects: int) -> Draw:
    """Scores of questions about objects in images, with normal scores `apart` standard deviations apart."""

    def draw(rng: Generator, images: int) -> Statistic:
        yes_Q = rng.random(images * objects) < yes
        score_Q = rng.normal(size=len(yes_Q)) + apart * yes_Q
        image_Q, object_Q = np.repeat(np.arange(images), objects), np.tile(np.arange(objects), images)
        asked: ScoredQuestions = cls.of(score_Q, image_Q, object_Q, yes_Q, images)
        assert isinstance(asked, Statistic)
        return asked

    return draw


def sparse_masks(classes: int, share: float) -> Draw:
    """Intersection and union of classes, each in a share of the images, predicted with a quality of its own."""
    quality_C = np.random.default_rng(5).beta(2, 2, classes)

    def draw(rng: Generator, images: int) -> Statistic:
        size = (images, classes)
        truth_GC = np.where(rng.random(size) < share, rng.gamma(1.0, 1.0, size) * 1000, 0)
        found_GC = truth_GC * rng.beta(4 * quality_C, 4 * (1 - quality_C), size)
        false_GC = np.where(rng.random(size) < share / 2, rng.gamma(1.0, 1.0, size) * 500, 0)
        return IoU(np.floor(found_GC), np.floor(truth_GC + false_GC))

    return draw


def detections(classes: int, share: float, thresholds: int = 10) -> Draw:
    """COCO's AP of detections at ten IoU thresholds, of classes that are each in a share of the images."""
    apart_C = np.random.default_rng(6).uniform(0.5, 2.5, classes)

    def draw(rng: Generator, images: int) -> Statistic:
        entries = [_matched(rng, share, float(apart), thresholds) for apart in apart_C for _ in range(images)]
        evaluation = COCOeval(iouType="bbox")
        evaluation.params.imgIds, evaluation.params.catIds = list(range(images)), list(range(classes))
        evaluation.params.areaRng, evaluation.params.iouThrs = [[0, 1e10]], np.arange(thresholds)
        evaluation.evalImgs = entries
        return AveragePrecision.of(evaluation)

    return draw


def _matched(rng: Generator, share: float, apart: float, thresholds: int) -> dict[str, ndarray] | None:
    """One image and class as COCOeval has matched it."""
    truths = 1 + rng.poisson(1.5) if rng.random() < share else 0
    found, false = int((rng.random(truths) < 0.8).sum()), rng.poisson(share)
    if truths == 0 and false == 0:
        return None
    score_D = np.r_[rng.normal(apart, 1, found), rng.normal(0, 1, false)]
    iou_D = np.r_[rng.beta(4, 2, found), np.zeros(false)]
    order_D = np.argsort(-score_D, kind="stable")
    matched_TD = (iou_D[order_D] >= 0.5 + 0.05 * np.arange(thresholds)[:, None]).astype(int)
    return {
        "gtIgnore": np.zeros(truths),
        "dtScores": score_D[order_D],
        "dtIgnore": np.zeros_like(matched_TD),
        "dtMatches": matched_TD,
    }


WEAK = "mean per class, 9 classes of 100 at .9, one of 2 at .5"
"""The case that intervals do not cover: two images show too little of the variance that decides the error."""


def cases() -> list[Case]:
    """All simulated benchmarks."""
    found = [
        Case(f"share {share:g} of {images} images", right_answers(share), images, 4000, share)
        for share, images in ((0.97, 100), (0.995, 1000), (0.5, 30), (0.8, 500))
    ]
    found.append(Case("recall of 5 captions of 100 images", captions_of_images(0.6), 100, 2000, 0.6))
    for sizes, name in (
        *(([number] * 100, f"100 classes of {number}") for number in (1, 2, 3, 5, 20)),
        ([1] * 1000, "1,000 classes of 1"),
        ([2] * 10, "10 classes of 2"),
        ([1, 1, 2, 2, 3, 5, 8, 13, 21, 34, 55, 89], "12 classes of 1 to 89"),
    ):
        draw, truth = classes_of(sizes)
        found.append(Case(f"mean per class, {name}", draw, sum(sizes), 2000, truth))
    draw, truth = classes_of([10] * 10, 0.97)
    found.append(Case("mean per class .97, 10 classes of 10", draw, 100, 2000, truth))
    draw, truth = classes_of([100] * 9 + [2], [0.9] * 9 + [0.5])
    found.append(Case(WEAK, draw, 902, 2000, truth))
    found += [
        Case("AP, 60 images, a tenth right", questions(ObjectAP, 0.1, 1.2, 1), 60, 1000, many=200_000),
        Case("AP, 200 images, a tenth right", questions(ObjectAP, 0.1, 1.2, 1), 200, 600, many=200_000),
        Case("AP, 60 images, 10 objects, a tenth right", questions(ObjectAP, 0.1, 1.2, 10), 60, 500, many=30_000),
        Case("AP, 200 images, 10 objects, a third right", questions(ObjectAP, 0.3, 1.0, 10), 200, 300, many=30_000),
        Case("AUROC .80, 60 images", questions(Auroc, 0.2, 1.2, 1), 60, 1000, many=200_000),
        Case("AUROC .96, 60 images", questions(Auroc, 0.5, 2.5, 1), 60, 1000, many=200_000),
        Case("AUROC, 60 images, 10 objects", questions(Auroc, 0.2, 1.5, 10), 60, 500, many=30_000),
    ]
    for images, classes, often, draws in ((60, 20, 3, 1000), (300, 20, 15, 500), (150, 80, 3, 500)):
        name = f"mIoU, {images} images, {classes} classes in {often} of them each"
        found.append(Case(name, sparse_masks(classes, often / images), images, draws, many=20_000))
    for images, classes, often, draws in ((50, 20, 5, 200), (200, 20, 20, 120), (100, 60, 3, 40)):
        name = f"mAP, {images} images, {classes} classes in {often} of them each"
        found.append(Case(name, detections(classes, often / images), images, draws, many=10_000))
    return found


def rows(found: Iterable[Coverage]) -> list[tuple[str, ...]]:
    """The rows of the table."""
    columns = ("truth", "mean", "held", "under", "over", "width")
    return [
        (each.case.name, str(each.case.images), *(f"{getattr(each, column):.3f}" for column in columns))
        for each in found
    ]


HEAD = ("statistic", "images", "truth", "mean value", "covered", "interval under", "interval over", "width")
DIFFER = (1, 3, 4, 6, 10, 30)


def main(results: Annotated[Path, typer.Option(help="Folder of the table.")] = Path("results")) -> None:
    """Simulate, print and write the table."""
    found = [covered(case) for case in track(cases(), "Simulating", console=console(), transient=True)]
    lines = rows(found)
    wrong = [
        (f"two equal models that differ on {expected} images: called different", "1000", *("",) * 2, f"{share:.3f}")
        for expected in DIFFER
        for share in [false_verdicts(expected)]
    ]
    lines += [(*line, *("",) * (len(HEAD) - len(line))) for line in wrong]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([HEAD, *lines])
    write_atomic(results / FILE, text.getvalue().encode())
    console().print(table(HEAD, lines))


if __name__ == "__main__":
    typer.run(main)
