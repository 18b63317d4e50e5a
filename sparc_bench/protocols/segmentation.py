"""Zero-shot semantic segmentation: every pixel is assigned to the class whose prompts score highest with its patch.

Scores of patches with the class prompts are upsampled to the original image, and every pixel takes the best of all
classes of the data set, not only of those in the image. Pixels outside the model's patch grid (cut off by a centre
crop) have no prediction and count as wrong.

Labels of `Example.semantic`: 0 or more a class, -1 background (no class of the data set), -2 void (never scored).

Shapes: N images of a batch, C classes (with background where that is a class), B background words, K L grid rows and
columns, H W pixels, X scored pixels, G images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, Self

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int, Shaped
from numpy import ndarray
from pydantic import model_validator

from sparc_bench.cards.bounds import Real
from sparc_bench.cards.card import Strict
from sparc_bench.cards.prompts import class_words, templates
from sparc_bench.dataset import Example, Examples
from sparc_bench.encoder import Encoder, recut
from sparc_bench.errors import UserError
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.metrics.iou import (
    PixelCounts,
    best_constant,
    class_counts,
    image_miou_score,
    inside_area,
    pixel_counts,
    upsampled_strips,
)
from sparc_bench.metrics.metric_name import at_path
from sparc_bench.metrics.region_weights import class_fractions
from sparc_bench.metrics.statistic import IoU, Mean, Statistic
from sparc_bench.outputs.masks import BACKGROUND as BACKGROUND_NAME
from sparc_bench.outputs.masks import Masks, Numbering
from sparc_bench.outputs.outputs_file import CLASSES_FILE
from sparc_bench.protocol import Block, Outcome, Predictions, Work
from sparc_bench.protocols._prompted_classes import PromptedClasses
from sparc_bench.protocols.regions import untrained_notes

VERSION = 1
TITLE = "zero-shot semantic segmentation: mIoU over the data set and per image"
NEEDS = frozenset({"image", "text", "patches"})
DATA = frozenset({"semantic"})

CHUNK = 64
BACKGROUND, VOID = -1, -2
ORACLE = "oracle"
_COUNTS = ("intersection", "predicted", "truth", "ties")


class Options(Strict):
    """Options of the protocol in a task card."""

    prompts: str
    """prompt set: a card of tasks/prompts, `openai80` or `openai7`"""
    classes: str
    """class names in the prompts: a card of tasks/classes, or `own`: the data set's own names"""
    background: Literal["ignore", "class"]
    """rule for background pixels: ignore (not scored) or class (background is one more class)"""
    background_words: tuple[str, ...]
    """words for background in the prompts; the class's score is the best of them at each pixel; [] for none"""
    background_score: Real | Literal["none"]
    """constant score of the background class, on the scale of the model's own scores, or "none" """
    upsample: Literal["bilinear", "nearest"]
    """bilinear: interpolate the scores, then take the best class; nearest: a pixel has the class of its patch"""

    @model_validator(mode="after")
    def _one_background_rule(self) -> Self:
        rules = bool(self.background_words) + (self.background_score != "none")
        if self.background == "ignore" and rules:
            raise ValueError('background = "ignore" takes background_words = [] and background_score = "none"')
        if self.background == "class" and rules != 1:
            raise ValueError('background = "class" takes either background_words or a number as background_score')
        return self


def predict(encoder: Encoder, work: Work, options: Options) -> Iterator[Block]:
    """Pixel counts of every image: by patch path, and of the oracle at the model's own grid.

    Arrays (rows are images, columns classes): `PATH/intersection`, `PATH/predicted`, `PATH/truth`, `PATH/ties`, the
    same of the path `oracle`, and `uncovered`.
    """
    data = work.data
    words_C = [*class_words(options.classes, data.classes), *options.background_words]
    prompted = PromptedClasses(encoder, words_C, templates(options.prompts))
    names = _scored_classes(data, options)
    for part, batches in work.views(encoder, frozenset({"patches"}), lambda part: [one.view for one in part.examples]):
        found: dict[str, list[PixelCounts]] = {path: [] for path in encoder.paths}
        oracle: list[PixelCounts] = []
        uncovered: list[int] = []
        remaining = iter(part.examples)
        for images in recut(batches, CHUNK):
            scores = {path: _scores(encoder, images, prompted, path) for path in encoder.paths}
            for row, example in enumerate(islice(remaining, len(images))):
                truth_HW = _truth(example, len(data.classes), options.background)
                area_4, grid = _area(images, row)
                uncovered.append(int(np.count_nonzero((truth_HW >= 0) & ~inside_area(area_4, truth_HW.shape))))
                for path, scores_NCKL in scores.items():
                    found[path].append(count_image(scores_NCKL[row], truth_HW, area_4, len(data.classes), options))
                ideal_CKL = class_fractions(truth_HW, len(names), area_4, grid).astype(np.float32)
                oracle.append(count_image(ideal_CKL, truth_HW, area_4, len(names), options, scored=True))
        counts = {
            name: array for path, each in (found | {ORACLE: oracle}).items() for name, array in _arrays(path, each)
        }
        yield part.block(**counts, uncovered=np.array(uncovered))


def score(predictions: Predictions, data: Examples, options: Options) -> Outcome:
    """Score every labelled pixel of every image, by each patch path of the model.

    `miou`: mean over classes of the intersection over union of all images' pixels (classes without true or predicted
    pixels are left out), as mmsegmentation's IoUMetric; `pixel_accuracy`: share of scored pixels; `image_miou`: mean
    over images of the mean IoU over the classes present in the ground truth. Clusters are images. Where t classes tie
    at a pixel, each is predicted with 1/t of it (the mean over random orders); the tie count is the number of such
    pixels over all paths. Groups `class` are IoUs of the first path, `PATH/class` of the others.

    The reference row `oracle` is the limit of the model's own grid: every cell scores each class with its share of the
    cell's labelled pixels, upsampled by the same rule.

    Source: SPARC, arXiv 2401.09865, sections 4.5 and D.7; details that the paper leaves open are options here.
    """
    names = _scored_classes(data, options)
    found = {path: _Counts.of(predictions, path, len(data)) for path in predictions.paths}
    notes = [*untrained_notes(predictions.paths)]
    uncovered = int(predictions.joined("uncovered").sum())
    if uncovered:
        notes.append(_uncovered_note(uncovered, by_a_model="" not in found))
    metrics: dict[str, Statistic] = {}
    groups: dict[str, dict[str, Statistic]] = {}
    examples: dict[str, ndarray] = {}
    for path, counts in found.items():
        for name, statistic in counts.statistics().items():
            metrics[at_path(path, name)] = statistic
        iou = metrics[at_path(path, "miou")]
        assert isinstance(iou, IoU)
        groups[at_path(path if groups else "", "class")] = {
            name: IoU(iou.intersection_GC[:, [c]], iou.union_GC[:, [c]])
            for c, name in enumerate(names)
            if iou.union_GC[:, c].any()
        }
        examples[at_path(path, "image_miou")] = counts.image_miou_G.astype(np.float32)
    ties = {path: int(counts.ties_G.sum()) for path, counts in found.items()}
    truth_GC = next(iter(found.values())).truth_GC
    reference = {"constant": _by_path(found, best_constant(truth_GC))}
    if at_path(ORACLE, "truth") in predictions.blocks[0].arrays:
        best = _Counts.of(predictions, ORACLE, len(data)).statistics()
        reference[ORACLE] = _by_path(found, {name: statistic.value for name, statistic in best.items()})
    return Outcome(
        metrics=metrics,
        groups=groups,
        examples=examples,
        ties=sum(ties.values()),
        counts={
            "images": len(truth_GC),
            "pixels": int(truth_GC.sum()),
            "uncovered_pixels": uncovered,
            "classes": len(names),
            **{at_path(path, "tied_pixels"): count for path, count in ties.items()},
        },
        reference_rows=reference,
        notes=tuple(notes),
    )


def _uncovered_note(pixels: int, *, by_a_model: bool) -> str:
    if by_a_model:
        return f"{pixels} scored pixels lie outside of what the model sees of their image and count as wrong."
    return f"{pixels} scored pixels have no prediction and count as wrong."


def by_masks(outputs: Masks, data: Examples, options: Options) -> Predictions:
    """Pixel counts of index masks; the metrics have no path in their names, and there is no oracle row.

    A pixel without a prediction, or with a class that the task does not score, is wrong. Where the file does not name
    its pixel values, they are read with background first if at least twice as many pixels are then right, and a note
    says so.
    """
    names = _scored_classes(data, options)
    readings = [_Reading(numbering) for numbering in outputs.numberings(names)]
    places = outputs.places(data.examples)
    for example in data.examples:
        truth_HW = _truth(example, len(data.classes), options.background)
        values_HW = outputs.read(places.index_of[example.id], truth_HW.shape, example.id)
        scored_HW = truth_HW >= 0
        for reading in readings:
            reading.error = reading.error or outputs.undefined(values_HW, reading.numbering, example.id)
            predicted_X = reading.numbering.classes(values_HW)[scored_HW]
            reading.found.append(class_counts(predicted_X, truth_HW[scored_HW], len(names)))
            reading.unpredicted.append(int(np.count_nonzero(predicted_X < 0)))
    chosen, numbering_notes = _likely(readings, outputs.where)
    if chosen.error is not None:
        raise chosen.error
    uncovered = np.array(chosen.unpredicted)
    block = Block(np.arange(len(data)), {**dict(_arrays("", chosen.found)), "uncovered": uncovered})
    return Predictions((block,), notes=(*places.notes(outputs.where), *numbering_notes))


@dataclass
class _Reading:
    """The masks of a file under one numbering of their values.

    Attributes:
        numbering: what the values mean.
        found: pixel counts of each image.
        unpredicted: number of scored pixels without a prediction, of each image.
        error: that of the first value that stands for no class, or None.
    """

    numbering: Numbering
    found: list[PixelCounts] = field(default_factory=list)
    unpredicted: list[int] = field(default_factory=list)
    error: UserError | None = None

    @property
    def right(self) -> float:
        """Number of right pixels."""
        return sum(float(counts.intersection_C.sum()) for counts in self.found)


def _likely(readings: Sequence[_Reading], where: str) -> tuple[_Reading, tuple[str, ...]]:
    """The first reading, or one under which at least twice as many pixels are right; and notes about the choice."""
    first, others = readings[0], readings[1:]
    best = max(readings, key=lambda reading: reading.right)
    name_them = f"{CLASSES_FILE} can name the values in order"
    if best is not first and best.error is None and best.right >= 2 * first.right:
        pixels = sum(float(counts.truth_C.sum()) for counts in best.found)
        shares = f"{best.right / pixels:.1%} of the scored pixels are right, {first.right / pixels:.1%} otherwise"
        return best, (f"The values of {where} are read as {best.numbering.title}: {shares}; {name_them}.",)
    if any(other.error is None and 2 * other.right > first.right for other in others) and first.error is None:
        return first, (
            f"The values of {where} are read as {first.numbering.title}, though they fit the truth about as well as "
            f"{best.numbering.title if best is not first else others[0].numbering.title}; {name_them}.",
        )
    return first, ()


OUTPUTS = {"masks": by_masks}


def _scored_classes(data: Examples, options: Options) -> tuple[str, ...]:
    names = (*data.classes, BACKGROUND_NAME) if options.background == "class" else data.classes
    if len(set(names)) != len(names):
        raise UserError(f"{data.dataset} has two classes of one name: give each its own, 'background' being taken.")
    return names


def count_image(
    scores_CKL: Float32[ndarray, "C K L"],
    truth_HW: Int[ndarray, "H W"],
    area_4: Shaped[ndarray, "4"],
    classes: int,
    options: Options,
    *,
    scored: bool = False,
) -> PixelCounts:
    """Pixel counts of one image; pixels with a negative truth are not scored.

    Args:
        scores_CKL: patch scores of the `classes` classes, then of the background words, if any.
        truth_HW: class of every pixel at the original size.
        area_4: area of the image that the grid covers, in pixels (left, top, right, bottom).
        classes: number of classes among the scores.
        options: rules for upsampling and background.
        scored: whether `scores_CKL` holds the background class already.
    """
    covered_HW = inside_area(area_4, truth_HW.shape)
    total = classes + (options.background == "class" and not scored)
    lost_X = truth_HW[(truth_HW >= 0) & ~covered_HW]
    counts = PixelCounts(np.zeros(total), np.zeros(total), np.bincount(lost_X, minlength=total).astype(np.float64), 0)
    for strip, scores_CSW in upsampled_strips(scores_CKL, area_4, truth_HW.shape, options.upsample):
        chosen_X = np.flatnonzero((truth_HW[strip] >= 0) & covered_HW[strip])
        scores_CX = scores_CSW.reshape(len(scores_CSW), -1)
        if len(chosen_X) < scores_CX.shape[1]:
            scores_CX = scores_CX[:, chosen_X]
        if total > classes and len(scores_CX) != total:
            background_X = (
                np.full(len(chosen_X), options.background_score, dtype=np.float32)
                if options.background_score != "none"
                else scores_CX[classes:].max(axis=0)
            )
            scores_CX = np.concatenate([scores_CX[:classes], background_X[None]])
        counts += pixel_counts(scores_CX, truth_HW[strip].ravel()[chosen_X])
    return counts


def _by_path(paths: Iterable[str], values: Mapping[str, float]) -> dict[str, float]:
    return {at_path(path, name): value for path in paths for name, value in values.items()}


@dataclass(frozen=True)
class _Counts:
    """Pixel counts of all images under one path: intersection, predicted and true pixels of each class, tied pixels."""

    intersection_GC: Float64[ndarray, "G C"]
    predicted_GC: Float64[ndarray, "G C"]
    truth_GC: Float64[ndarray, "G C"]
    ties_G: Int[ndarray, "G"]

    @classmethod
    def of(cls, predictions: Predictions, path: str, images: int) -> _Counts:
        return cls(*(predictions.by_example(at_path(path, name), images) for name in _COUNTS))

    @property
    def union_GC(self) -> Float64[ndarray, "G C"]:
        return np.asarray(self.truth_GC + self.predicted_GC - self.intersection_GC)

    @property
    def image_miou_G(self) -> Float64[ndarray, "G"]:
        return np.asarray(image_miou_score(self.intersection_GC, self.union_GC, self.truth_GC))

    def statistics(self) -> dict[str, Statistic]:
        image_miou_G = self.image_miou_G
        labelled_G = ~np.isnan(image_miou_G)
        return {
            "miou": IoU(self.intersection_GC, self.union_GC),
            "pixel_accuracy": Mean(self.intersection_GC.sum(axis=1), self.truth_GC.sum(axis=1)),
            "image_miou": Mean(np.where(labelled_G, image_miou_G, 0.0), labelled_G.astype(np.float64)),
        }


def _arrays(path: str, counts: Sequence[PixelCounts]) -> Iterator[tuple[str, ndarray]]:
    """Arrays of a block, as `_Counts.of` reads them."""
    rows = ((one.intersection_C, one.predicted_C, one.truth_C, one.ties) for one in counts)
    for name, column in zip(_COUNTS, zip(*rows, strict=True), strict=True):
        yield at_path(path, name), np.stack(column)


def _truth(example: Example, classes: int, background: Literal["ignore", "class"]) -> Int[ndarray, "H W"]:
    """Class of every pixel; background is class number `classes` if it is scored, else negative like void."""
    if example.semantic is None:
        raise UserError(f"The image {example.id} has no mask: leave it out of the split, or mend its mask file.")
    truth_HW = example.semantic()
    return np.where(truth_HW == BACKGROUND, classes, truth_HW) if background == "class" else truth_HW


def _scores(encoder: Encoder, images: ImageFeatures, classes: PromptedClasses, path: str) -> ndarray:
    def score(texts: TextFeatures) -> torch.Tensor:
        return encoder.dense_scores(images, texts, path)

    scores_NCKL: ndarray = classes.scores(score).detach().float().cpu().numpy()
    return scores_NCKL


def _area(images: ImageFeatures, row: int) -> tuple[ndarray, tuple[int, int]]:
    if images.grid is None or images.area_N4 is None:
        raise RuntimeError("patches without a grid and its area")
    return images.area_N4[row].cpu().numpy().astype(np.float64), images.grid
