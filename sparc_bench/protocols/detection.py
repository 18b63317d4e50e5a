"""Detection: average precision of boxes or masks with classes and scores, by COCO's or LVIS's rules.

Shapes: N images, D detections, K classes with objects, G clusters (images).
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, Literal, Self

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval
from pydantic import model_validator
from torch import Tensor

from sparc_bench.cards.bounds import Area, Number
from sparc_bench.cards.card import Strict
from sparc_bench.cards.prompts import class_words, templates
from sparc_bench.dataset import Examples, Region
from sparc_bench.encoder import Encoder, text_need
from sparc_bench.errors import UserError, nearest
from sparc_bench.facets import PixelSize
from sparc_bench.files.boxes import outside_notes
from sparc_bench.metrics.average_precision import AveragePrecision
from sparc_bench.metrics.statistic import ClassMean, Statistic
from sparc_bench.outputs.detections import DetectionRows, SplitDetections, stated_sizes
from sparc_bench.protocol import Block, Outcome, Predictions, Work
from sparc_bench.protocols import _faster_coco_eval
from sparc_bench.protocols._coco_evaluation import (
    area_ranges,
    category_row,
    corner_and_extent,
    detection_row,
    indexed,
    matched,
    object_row,
    precisions,
    recalled,
)
from sparc_bench.protocols._federated import FREQUENCIES, checked_for, ignore_unmatched, judged
from sparc_bench.protocols.regions import SIZES, refuse_odd_region

VERSION = 1
TITLE = "detection: average precision and recall of scored boxes or masks"
NEEDS = frozenset({"detect"})
DATA = frozenset({"boxes"})

IMAGES_AT_ONCE = 64


class Options(Strict):
    """Options of the protocol in a task card."""

    iou: Literal["bbox", "segm"]
    """IoU of boxes (bbox) or of masks (segm, whose area is then that of the size groups)"""
    rules: Literal["coco", "lvis"]
    """coco: every image is annotated for every class; lvis: only for the classes that it names (federated)"""
    engine: Literal["pycocotools", "faster-coco-eval"]
    """implementation of AP: pycocotools, or faster-coco-eval, which must agree with pycocotools to 1e-6"""
    max_detections: Number
    """most detections kept, best first: per image and class under coco (COCO: 100), per image under lvis (LVIS: 300)"""
    recall_at: tuple[Number, ...]
    """k of ar_at_k, the recall with the best k detections per image and class (COCO: 1, 10, 100; LVIS: 300)"""
    area_edges: tuple[Area, Area]
    """least areas of a medium and of a large object, in pixels (COCO and LVIS: 1024 and 9216)"""
    categories: Literal["all"] | tuple[str, ...]
    """scored classes, by the data set's names; detections of other classes are left out"""
    prompts: str
    """prompt set of one template, for models with text prompts; outputs of other systems name their classes"""
    classes: str
    """class names in the prompts: a card of tasks/classes, or `own`: the data set's own names"""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not 0 < self.area_edges[0] < self.area_edges[1]:
            raise ValueError("area_edges must be two ascending numbers above 0: change them")
        if any(not 1 <= k <= self.max_detections for k in self.recall_at):
            raise ValueError(f"recall_at must be numbers of 1 to max_detections ({self.max_detections}): change them")
        if self.rules == "lvis" and self.engine == "pycocotools":
            raise ValueError('pycocotools has no rules for lvis: set engine = "faster-coco-eval"')
        return self


def predict(encoder: Encoder, work: Work, options: Options) -> Iterator[Block]:
    """Detections of the prompted classes by a model: `example`, `label`, `score`, `box` (left, top, width, height).

    Raises:
        UserError: masks are scored, the prompt set has several templates, or boxes are of no such kind.
    """
    if options.iou == "segm":
        raise UserError('A model that detects gives boxes: choose a task with iou = "bbox".')
    prompted = templates(options.prompts)
    if len(prompted) != 1:
        raise UserError(
            f"Detection takes one prompt for a class, but '{options.prompts}' has {len(prompted)}: choose another."
        )
    words_C = class_words(options.classes, work.data.classes)
    texts = encoder.texts([prompted[0].replace("{}", words) for words in words_C], text_need(encoder))
    model = encoder.card.name
    for part in work:
        views = [example.view for example in part.examples]
        index_R, label_R, box_R4, score_R = [], [], [], []
        for start in range(0, len(views), IMAGES_AT_ONCE):
            some = views[start : start + IMAGES_AT_ONCE]
            found = encoder.detect(some, texts)
            _refuse_unknown(found.image_index_R, len(some), "image", model)
            _refuse_unknown(found.text_index_R, len(texts), "text", model)
            index_R.append(part.index_N[start + found.image_index_R.cpu().numpy()])
            label_R.append(found.text_index_R.cpu().numpy())
            box_R4.append(found.box_R4.cpu().numpy().astype(np.float64))
            score_R.append(found.score_R.cpu().numpy().astype(np.float64))
        _refuse_turned(np.concatenate(box_R4), model)
        found_D = SplitDetections(
            np.concatenate(index_R),
            np.concatenate(label_R),
            np.concatenate(score_R),
            corner_and_extent(np.concatenate(box_R4)),
        )
        yield part.block(**found_D.arrays())


def _refuse_unknown(index_R: Tensor, number: int, what: str, model: str) -> None:
    """Raise UserError for an index of no image or text of a call of `detect`."""
    odd_R = (index_R < 0) | (index_R >= number)
    if odd_R.any():
        raise UserError(
            f"{model} gives {int(odd_R.sum())} detections of {what} {int(index_R[odd_R][0])}, but was given {number} "
            f"{what}s, numbered from 0: mend its `detect`."
        )


def _refuse_turned(box_D4: Float[ndarray, "D 4"], model: str) -> None:
    """Raise UserError for boxes of negative extent, or in another format."""
    turned_D = (box_D4[:, 2:] < box_D4[:, :2]).any(axis=1)
    if turned_D.any():
        raise UserError(
            f"{model} gives {np.count_nonzero(turned_D)} boxes of negative width or height, such as "
            f"{box_D4[turned_D][0].tolist()}: give left, top, right, bottom in pixels of the original image."
        )


def _outside(found: SplitDetections, data: Examples) -> tuple[str, ...]:
    """Note about a model's boxes that leave their image."""
    size_N2 = stated_sizes(data)
    if found.box_D4 is None or size_N2 is None:
        return ()
    return outside_notes(
        found.box_D4,
        size_N2[found.example_D],
        "the model",
        lambda index: f"image {data[int(found.example_D[index])].id}",
    )


def by_detections(outputs: DetectionRows, data: Examples, options: Options) -> Predictions:
    """Detections of a file."""
    found, notes = outputs.of(data, masks=options.iou == "segm")
    return Predictions((Block(np.arange(len(data)), found.arrays()),), notes=notes)


OUTPUTS = {"detections": by_detections}


def score(predictions: Predictions, data: Examples, options: Options) -> Outcome:
    """AP and recall of detections.

    Metrics are `ap` (IoU 0.50 to 0.95), `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`; `ar_at_k`, `ar_small`,
    `ar_medium`, `ar_large` (mean recall over the ten IoU thresholds); under lvis also `ap_rare`, `ap_common`,
    `ap_frequent`. All are means over the classes with objects; clusters are images. Crowds are ignored. Under lvis only
    the best `max_detections` of an image count, detections of classes that are not annotated in their image are left
    out, and unmatched detections are ignored where the class is annotated incompletely. Equal scores keep the official
    stable order (ascending image id, then the file's order); the tie count is the number of detections with the score
    of an earlier detection of the same class. Groups `class` hold the AP of each class.

    Source: Lin et al. 2014, arXiv 1405.0312; Gupta, Dollar and Girshick 2019, arXiv 1908.03195.
    """
    found = SplitDetections.of_arrays({name: predictions.joined(name) for name in predictions.blocks[0].arrays})
    notes = () if "" in predictions.paths else _outside(found, data)
    without = len(data) - len(np.unique(found.example_D))
    said = [*notes, f"{without} of {len(data)} images have no detection."] if without else [*notes]
    if options.rules == "lvis":
        found, left_out = judged(found, data, options.max_detections)
        said += left_out
    truth = _Truth(data, options)
    by_name: dict[str, list[AveragePrecision]] = {}
    recall: dict[str, list[tuple[ndarray, ndarray]]] = {}
    for label in truth.labels:
        evaluation, example_G = truth.matched(label, found)
        for name, statistic in precisions(evaluation).items():
            by_name.setdefault(name, []).append(statistic.placed(example_G, len(data)))
        for name, (area, best) in _recalls(options).items():
            counts = [np.zeros(len(data), dtype=np.float32) for _ in range(2)]
            for all_G, some_G in zip(counts, recalled(evaluation, area, best), strict=True):
                all_G[example_G] = some_G
            recall.setdefault(name, []).append((counts[0], counts[1]))
    metrics: dict[str, Statistic] = {name: AveragePrecision.joined(parts) for name, parts in by_name.items()}
    if options.rules == "lvis":
        for letter, name in FREQUENCIES.items():
            chosen = [i for i, label in enumerate(truth.labels) if data.frequencies[label] == letter]
            if chosen:
                metrics[f"ap_{name}"] = AveragePrecision.joined([by_name["ap"][i] for i in chosen])
    for name, columns in recall.items():
        metrics[name] = ClassMean.of_table(*(np.stack(of_G, axis=1) for of_G in zip(*columns, strict=True)))
    if options.engine == _faster_coco_eval.ENGINE:
        ours = {name: statistic.value for name, statistic in metrics.items()}
        said.append(_faster_coco_eval.agreed(ours, truth.by_faster_coco_eval(found)))
    else:
        said.append(f"Matched by pycocotools {version('pycocotools')}.")
    return Outcome(
        metrics=metrics,
        groups={"class": {data.classes[label]: by_name["ap"][i] for i, label in enumerate(truth.labels)}},
        ties=sum(len(of := found.score_D[found.label_D == k]) - len(np.unique(of)) for k in truth.labels),
        counts={
            "images": len(data),
            "images_without_detections": without,
            "objects": truth.objects,
            "crowd_ignored": truth.crowds,
            "classes": len(truth.labels),
            "detections": int(np.isin(found.label_D, truth.labels).sum()),
        },
        notes=tuple(said),
    )


def _recalls(options: Options) -> dict[str, tuple[int, int]]:
    """Recall metric -> (index of the area range, number of best detections)."""
    named = {f"ar_at_{k}": (0, k) for k in options.recall_at}
    return named | {f"ar_{size}": (area, options.max_detections) for area, size in enumerate(SIZES, start=1)}


class _Truth:
    """Objects of a data split in COCO's format, class by class; category ids are 1 + the label."""

    def __init__(self, data: Examples, options: Options) -> None:
        self._data, self._options = data, options
        self._image_N = _image_numbers(data)
        self._rows: dict[int, list[dict[str, Any]]] = {}
        wanted = _labels(data, options)
        pairs = [(i, region) for i, example in enumerate(data.examples) for region in example.regions]
        for number, (index, region) in enumerate(pairs, start=1):
            refuse_odd_region(data.examples[index], region)
            if region.label in wanted:
                self._rows.setdefault(region.label, []).append(self._row(number, index, region))
        self.labels = [label for label, rows in sorted(self._rows.items()) if not all(row["iscrowd"] for row in rows)]
        if not self.labels:
            raise UserError(f"{data.dataset}:{data.split} has no object of these categories: mend the task card.")
        rows = [row for label in self.labels for row in self._rows[label]]
        self.crowds = sum(row["iscrowd"] for row in rows)
        self.objects = len(rows) - self.crowds

    def matched(self, label: int, found: SplitDetections) -> tuple[COCOeval, Int[ndarray, "G"]]:
        """(COCOeval of a class, example of each of its images); only images with its objects or detections."""
        chosen_D = np.flatnonzero(found.label_D == label)
        detections = self._detections(found, chosen_D)
        images = {row["image_id"] for row in self._rows[label]} | {row["image_id"] for row in detections}
        example_of = {number: index for index, number in enumerate(self._image_N.tolist())}
        category = [category_row(label, self._data.classes[label])]
        listed = [self._image(example_of[number]) for number in sorted(images)]
        evaluation = matched(
            indexed(listed, category, self._rows[label]),
            indexed(listed, category, detections),
            label + 1,
            self._options.iou,
            self._options.max_detections,
            area_ranges(self._options.area_edges),
        )
        if self._options.rules == "lvis":
            examples = {number: self._data.examples[index] for number, index in example_of.items()}
            ignore_unmatched(evaluation, label, examples)
        return evaluation, np.array([example_of[number] for number in sorted(images)], dtype=np.int64)

    def by_faster_coco_eval(self, found: SplitDetections) -> dict[str, float]:
        """APs of all classes by faster-coco-eval."""
        images = [self._image(index) for index in range(len(self._data))]
        categories = [category_row(label, self._data.classes[label]) for label in self.labels]
        if self._options.rules == "lvis":
            categories = [row | {"frequency": self._data.frequencies[row["id"] - 1]} for row in categories]
        both = {"images": images, "categories": categories}
        chosen_D = np.flatnonzero(np.isin(found.label_D, self.labels))
        return _faster_coco_eval.average_precisions(
            both | {"annotations": [dict(row) for label in self.labels for row in self._rows[label]]},
            both | {"annotations": self._detections(found, chosen_D)},
            self._options.iou,
            self._options.max_detections,
            area_ranges(self._options.area_edges),
            federated=self._options.rules == "lvis",
        )

    def _row(self, number: int, index: int, region: Region) -> dict[str, Any]:
        row = object_row(number, int(self._image_N[index]), region, region.area)
        if self._options.iou == "segm":
            if region.mask is None:
                raise UserError('This data set has objects without masks: set iou = "bbox" in the task card.')
            row["segmentation"] = coco_mask.encode(np.asfortranarray(region.mask(), dtype=np.uint8))
        return row

    def _detections(self, found: SplitDetections, chosen_D: ndarray) -> list[dict[str, Any]]:
        found = found[chosen_D]
        masks = found.masks
        if masks is not None:
            boxes = [coco_mask.toBbox(mask).tolist() for mask in masks]
        else:
            assert found.box_D4 is not None
            boxes = found.box_D4.tolist()
        columns = (self._image_N[found.example_D], found.label_D, found.score_D, found.area_D)
        rows = [
            detection_row(number, image, label, score, box, area)
            for number, (image, label, score, area, box) in enumerate(
                zip(*(column.tolist() for column in columns), boxes, strict=True), start=1
            )
        ]
        if masks is not None:
            rows = [row | {"segmentation": mask} for row, mask in zip(rows, masks, strict=True)]
        return rows

    def _image(self, index: int) -> dict[str, Any]:
        """Row of an image: its size (needed for masks) if known, and under lvis its absent and incomplete classes."""
        example = self._data.examples[index]
        row: dict[str, Any] = {"id": int(self._image_N[index])}
        if example.has(PixelSize):
            size = example.facet(PixelSize)
            row |= {"height": size.height, "width": size.width}
        if self._options.rules == "lvis":
            known = checked_for(example)
            row["neg_category_ids"] = [label + 1 for label in sorted(known.absent)]
            row["not_exhaustive_category_ids"] = [label + 1 for label in sorted(known.not_exhaustive)]
        return row


def _image_numbers(data: Examples) -> Int[ndarray, "N"]:
    """Image id of each example, from 1: by numeric example ids (the official order of ties), else by position."""
    ids = [example.id for example in data.examples]
    keys = [int(item_id) for item_id in ids] if all(item_id.isdecimal() for item_id in ids) else list(range(len(ids)))
    numbers_N = np.empty(len(ids), dtype=np.int64)
    numbers_N[np.argsort(keys, kind="stable")] = np.arange(1, len(ids) + 1)
    return numbers_N


def _labels(data: Examples, options: Options) -> frozenset[int]:
    if options.categories == "all":
        return frozenset(range(len(data.classes)))
    place = {name: label for label, name in enumerate(data.classes)}
    unknown = [name for name in options.categories if name not in place]
    if unknown:
        raise UserError(f"{data.dataset} has no category '{unknown[0]}': {nearest(unknown[0], place)}")
    return frozenset(place[name] for name in options.categories)
