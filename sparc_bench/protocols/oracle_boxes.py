"""Oracle-box AP: average precision of ground-truth boxes as proposals, scored by the model's region scores.

Every box except crowds is a detection of every class, scored by the similarity of its patches with the class prompts,
and evaluated by pycocotools. Localisation is given, so the AP measures whether region scores rank regions across images
class by class; top-1 with given boxes (`regions`) only compares classes within a region.

Shapes: R regions, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32
from numpy import ndarray
from pycocotools.cocoeval import COCOeval

from sparc_bench.cards.bounds import Number
from sparc_bench.cards.prompts import class_words, templates
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder
from sparc_bench.metrics.average_precision import AveragePrecision
from sparc_bench.metrics.metric_name import at_path
from sparc_bench.metrics.statistic import Statistic
from sparc_bench.protocol import Block, Outcome, Predictions, Work
from sparc_bench.protocols._coco_evaluation import (
    area_ranges,
    category_row,
    corner_and_extent,
    detection_row,
    indexed,
    matched,
    object_row,
    precisions,
)
from sparc_bench.protocols._prompted_classes import PromptedClasses
from sparc_bench.protocols.regions import (
    ChosenRegions,
    RegionOptions,
    area_of,
    image_pixels,
    left_out_notes,
    region_scores,
    untrained_notes,
)

VERSION = 1
TITLE = "oracle-box AP: ground-truth boxes as proposals for every class"
NEEDS = frozenset({"image", "text", "patches"})
DATA = frozenset({"boxes"})


class Options(RegionOptions):
    """Options of the protocol in a task card."""

    max_detections: Number
    """most detections kept per image and class, best first (COCO: 100)"""


def predict(encoder: Encoder, work: Work, options: Options) -> Iterator[Block]:
    """Scores (`PATH/scores`, R x C) of every chosen region with all classes, in the order of the examples."""
    words_C = class_words(options.classes, work.data.classes)
    prompted = PromptedClasses(encoder, words_C, templates(options.prompts))
    for part, _, scores in region_scores(encoder, work, prompted, 0, "box"):
        yield part.block(**{at_path(path, "scores"): scores_RC for path, scores_RC in scores.items()})


def score(predictions: Predictions, data: Examples, options: Options) -> Outcome:
    """AP of every patch path: `ap` (IoU 0.50 to 0.95), `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`.

    All are means over the classes with objects, as in COCOeval; clusters are images. Equal scores keep the official
    stable order (images, then boxes, in the data set's order); the tie count is the number of detections with the score
    of an earlier detection of the same class. The reference row `constant` has equal scores for all detections (all
    sizes). Crowds are ignored as in COCO, and are no proposals. Groups `class` hold the first path's AP of each class,
    `PATH/class` that of other paths.
    """
    chosen = ChosenRegions.of(data, min_side=0)
    truth = GroundTruth(data, chosen, options)
    metrics: dict[str, Statistic] = {}
    groups: dict[str, dict[str, Statistic]] = {}
    ties = 0
    for path in predictions.paths:
        scores_RC = predictions.joined(at_path(path, "scores"))
        ties += tied_detections(scores_RC)
        by_class = truth.average_precisions(scores_RC)
        metrics.update({at_path(path, name): AveragePrecision.joined(parts) for name, parts in by_class.items()})
        groups[at_path(path if groups else "", "class")] = {
            data.classes[label]: by_class["ap"][label] for label in np.unique(chosen.label_R).tolist()
        }
    equal_RC = np.zeros((len(chosen), len(data.classes)), dtype=np.float32)
    equal = truth.average_precisions(equal_RC, by_size=False)
    constant = {name: AveragePrecision.joined(parts).value for name, parts in equal.items()}
    return Outcome(
        metrics=metrics,
        groups=groups,
        ties=ties,
        counts={
            "images": len(data),
            "regions": len(chosen),
            "crowd_ignored": chosen.crowd,
            "classes": len(data.classes),
            "detections": len(chosen) * len(data.classes),
        },
        reference_rows={
            "constant": {at_path(path, name): v for path in predictions.paths for name, v in constant.items()}
        },
        notes=(*untrained_notes(predictions.paths), *left_out_notes(chosen, 0)),
    )


def tied_detections(scores_RC: Float32[ndarray, "R C"]) -> int:
    """Number of detections with the score of an earlier detection of the same class."""
    return sum(len(scores_R) - len(np.unique(scores_R)) for scores_R in scores_RC.T)


class GroundTruth:
    """Data split in COCO's format; image ids are 1 + the example's index, category ids 1 + the label."""

    def __init__(self, data: Examples, chosen: ChosenRegions, options: Options) -> None:
        self._options = options
        self._image_R = chosen.example_R + 1
        self._extent_R4 = corner_and_extent(chosen.box_R4).tolist()
        self._unit_of_image = {
            index + 1: image_pixels(example) if options.area_unit == "image" else 1
            for index, example in enumerate(data.examples)
            if example.regions
        }
        pairs = [(index + 1, region) for index, example in enumerate(data.examples) for region in example.regions]
        self._images = [{"id": index + 1} for index in range(len(data))]
        self._categories = [category_row(label, name) for label, name in enumerate(data.classes)]
        objects = [
            object_row(number, image, region, area_of(region, options.area_of) / self._unit_of_image[image])
            for number, (image, region) in enumerate(pairs, start=1)
        ]
        self._objects = indexed(self._images, self._categories, objects)

    def average_precisions(
        self, scores_RC: Float32[ndarray, "R C"], *, by_size: bool = True
    ) -> dict[str, list[AveragePrecision]]:
        """Name -> APs of all classes (the six that COCO prints), with every chosen box as a detection of every class.

        Classes are evaluated one by one, in bounded memory; without `by_size` only the three APs of all sizes.
        """
        found: dict[str, list[AveragePrecision]] = {}
        for label, scores_R in enumerate(scores_RC.T):
            statistics = precisions(self._matched(label, scores_R, by_size=by_size))
            for name, statistic in statistics.items():
                found.setdefault(name, []).append(statistic)
        return found

    def _matched(self, label: int, scores_R: Float32[ndarray, "R"], *, by_size: bool) -> COCOeval:
        boxes = zip(self._image_R.tolist(), self._extent_R4, scores_R.tolist(), strict=True)
        detections = [
            detection_row(number, image, label, score, box, box[2] * box[3] / self._unit_of_image[image])
            for number, (image, box, score) in enumerate(boxes, start=1)
        ]
        found = indexed(self._images, self._categories, detections)
        ranges = area_ranges(self._options.area_edges)
        return matched(
            self._objects, found, label + 1, "bbox", self._options.max_detections, ranges if by_size else ranges[:1]
        )
