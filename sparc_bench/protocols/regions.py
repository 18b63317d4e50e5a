"""Region classification with given boxes: a region is assigned to the class whose prompts score highest with it.

Shapes: R regions, C classes, N images of a batch, P patches, E edges between size groups.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from numpy import ndarray
from pydantic import model_validator

from sparc_bench.cards.bounds import Area
from sparc_bench.cards.card import Strict
from sparc_bench.cards.prompts import class_words, templates
from sparc_bench.dataset import Example, Examples, Region
from sparc_bench.encoder import Encoder, recut
from sparc_bench.errors import UserError
from sparc_bench.facets import PixelSize
from sparc_bench.features import ImageFeatures, Regions, TextFeatures
from sparc_bench.images.view import View
from sparc_bench.metrics.metric_name import at_path
from sparc_bench.metrics.region_weights import box_weights, mask_weights
from sparc_bench.metrics.statistic import ClassMean, Mean, Statistic
from sparc_bench.metrics.topk import topk_score
from sparc_bench.protocol import Block, Outcome, Part, Predictions, Work
from sparc_bench.protocols._prompted_classes import PromptedClasses

VERSION = 1
TITLE = "region classification with given boxes: top-1 and mean per class"
NEEDS = frozenset({"image", "text", "patches"})
DATA = frozenset({"boxes"})

CHUNK = 64
SIZES = ("small", "medium", "large")


class RegionOptions(Strict):
    """Options in a task card that all region protocols share."""

    prompts: str
    """prompt set: a card of tasks/prompts, `openai80` or `openai7`"""
    classes: str
    """class names in the prompts: a card of tasks/classes, or `own`: the data set's own names"""
    area_of: Literal["object", "box"]
    """area of a region for the size groups: the object's own pixels (COCO), or its box"""
    area_unit: Literal["pixels", "image"]
    """unit of `area_edges`: pixels of the original image (COCO), or fractions of the image"""
    area_edges: tuple[Area, Area]
    """least areas of a medium and of a large region (COCO: 1024 and 9216 pixels)"""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if not 0 < self.area_edges[0] < self.area_edges[1]:
            raise ValueError("area_edges must be two ascending numbers above 0: change them")
        return self


class Options(RegionOptions):
    """Options of the protocol in a task card."""

    region: Literal["box", "mask"]
    """patches that are averaged: those under the box, or those under the mask (under the box if the mask is empty)"""
    min_side: Area
    """least width and height of a scored region's box, in pixels of the original image (CLIPSelf: 8)"""


@dataclass(frozen=True)
class ChosenRegions:
    """Regions that are scored, ordered by example, and how many are left out.

    Attributes:
        example_R: index of each region's example.
        regions: the regions.
        crowd: number of crowd regions left out.
        small: number of small regions left out.
        flat: number of regions without width or height left out.
    """

    example_R: Int[ndarray, "R"]
    regions: tuple[Region, ...]
    crowd: int
    small: int
    flat: int = 0

    @classmethod
    def of(cls, data: Examples, min_side: float) -> ChosenRegions:
        """Those of a data split (see `within`); raises UserError where no region is left."""
        found = cls.within(data, min_side)
        if not len(found):
            raise UserError(
                f"{data.dataset}:{data.split} has no region to score: lower min_side or take another split."
            )
        return found

    @classmethod
    def within(cls, examples: Iterable[Example], min_side: float) -> ChosenRegions:
        """Regions of the examples without crowds and without those with a side of 0 or under `min_side` pixels.

        Raises:
            UserError: a box or area is not finite.
        """
        rows: list[int] = []
        regions: list[Region] = []
        left_out: Counter[str] = Counter()
        for index, example in enumerate(examples):
            for region in example.regions:
                left, top, right, bottom = region.box
                refuse_odd_region(example, region)
                if region.crowd:
                    left_out["crowd"] += 1
                elif min(right - left, bottom - top) <= 0:
                    left_out["flat"] += 1
                elif min(right - left, bottom - top) < min_side:
                    left_out["small"] += 1
                else:
                    rows.append(index)
                    regions.append(region)
        out = (left_out[reason] for reason in ("crowd", "small", "flat"))
        return cls(np.array(rows, dtype=np.int64), tuple(regions), *out)

    def __len__(self) -> int:
        return len(self.regions)

    @property
    def label_R(self) -> Int[ndarray, "R"]:
        """Class of each region."""
        return np.array([region.label for region in self.regions], dtype=np.int64)

    @property
    def box_R4(self) -> Float[ndarray, "R 4"]:
        """Box of each region in pixels: left, top, right, bottom."""
        return np.array([region.box for region in self.regions], dtype=np.float64)

    @property
    def example_N(self) -> Int[ndarray, "N"]:
        """Indices of the examples with a region, in order, each once."""
        return np.unique(self.example_R)


def predict(encoder: Encoder, work: Work, options: Options) -> Iterator[Block]:
    """Credit (`PATH/credit`) and best class (`PATH/predicted`) of every scored region, in the order of the examples."""
    words_C = class_words(options.classes, work.data.classes)
    prompted = PromptedClasses(encoder, words_C, templates(options.prompts))
    for part, chosen, scores in region_scores(encoder, work, prompted, options.min_side, options.region):
        found: dict[str, ndarray] = {}
        for path, scores_RC in scores.items():
            found[at_path(path, "credit")] = topk_score(scores_RC, chosen.label_R, 1)
            found[at_path(path, "predicted")] = scores_RC.argmax(axis=1)
        yield part.block(**found)


def score(predictions: Predictions, data: Examples, options: Options) -> Outcome:
    """Score every region against all classes, by every patch path of the model.

    `top1` is the mean credit over regions, `mean_per_class` the mean over classes of the credit within the class
    (classes without regions are left out); clusters are images. A region whose class ties for the best gets the mean
    credit over random orders of the tied classes. Groups `class` and `size` are of the model's first path, `PATH/class`
    and `PATH/size` of the others. The tie count is the number of regions, over all paths, whose class ties for best.

    Source: recognition of ground-truth boxes as in Zhong et al., RegionCLIP, arXiv 2112.09106, and Wu et al., CLIPSelf,
    arXiv 2310.01403.
    """
    chosen = ChosenRegions.of(data, options.min_side)
    label_R, classes = chosen.label_R, len(data.classes)
    size_R = np.searchsorted(np.array(options.area_edges), _areas(data, chosen, options), side="right")
    metrics: dict[str, Statistic] = {}
    groups: dict[str, dict[str, Statistic]] = {}
    rows: dict[str, ndarray] = {"example": chosen.example_R, "label": label_R}
    examples: dict[str, ndarray] = {}
    ties = 0
    for path in predictions.paths:
        credit_R = predictions.joined(at_path(path, "credit"))
        ties += int(((credit_R > 0) & (credit_R < 1)).sum())
        metrics[at_path(path, "top1")] = Mean.of(credit_R, chosen.example_R, len(data))
        of_class = ClassMean.of(credit_R, label_R, chosen.example_R, len(data), classes)
        metrics[at_path(path, "mean_per_class")] = of_class
        other = path if groups else ""
        groups[at_path(other, "class")] = _grouped(credit_R, label_R, chosen.example_R, len(data), data.classes)
        groups[at_path(other, "size")] = _grouped(credit_R, size_R, chosen.example_R, len(data), SIZES)
        rows[at_path(path, "credit")], rows[at_path(path, "predicted")] = (
            credit_R,
            predictions.joined(at_path(path, "predicted")),
        )
        examples.setdefault("correct", _per_image(credit_R, chosen.example_R, len(data)))
    share_C = np.bincount(label_R, minlength=classes) / len(chosen)
    constant = {"top1": float(share_C.max()), "mean_per_class": 1 / int(np.count_nonzero(share_C))}
    return Outcome(
        metrics=metrics,
        groups=groups,
        examples=examples,
        rows=rows,
        ties=ties,
        counts={
            "images": len(np.unique(chosen.example_R)),
            "regions": len(chosen),
            "crowd_left_out": chosen.crowd,
            "small_left_out": chosen.small,
            "classes": classes,
        },
        reference_rows={
            "constant": {at_path(path, name): v for path in predictions.paths for name, v in constant.items()}
        },
        notes=(*untrained_notes(predictions.paths), *left_out_notes(chosen, options.min_side)),
    )


def region_scores(
    encoder: Encoder, work: Work, classes: PromptedClasses, min_side: float, shape: Literal["box", "mask"]
) -> Iterator[tuple[Part, ChosenRegions, dict[str, Float32[ndarray, "R C"]]]]:
    """Each part with its scored regions and, by patch path, their scores with all classes by the model's own rule.

    Raises:
        UserError: `shape` is "mask" and the data set has none.
    """
    chosen_of: deque[ChosenRegions] = deque()

    def views(part: Part) -> list[View]:
        chosen = ChosenRegions.within(part.examples, min_side)
        chosen_of.append(chosen)
        return [part.examples[row].view for row in chosen.example_N.tolist()]

    for part, batches in work.views(encoder, frozenset({"patches"}), views):
        chosen = chosen_of.popleft()
        found: dict[str, list[ndarray]] = {
            path: [np.empty((0, len(work.data.classes)), dtype=np.float32)] for path in encoder.paths
        }
        image_R, done = np.searchsorted(chosen.example_N, chosen.example_R), 0
        for images in recut(batches, CHUNK):
            here = slice(*np.searchsorted(image_R, [done, done + len(images)]).tolist())
            for path, scores_RC in _scores(encoder, images, chosen.regions[here], image_R[here] - done, classes, shape):
                found[path].append(scores_RC)
            done += len(images)
        yield part, chosen, {path: np.concatenate(parts) for path, parts in found.items()}


def _scores(
    encoder: Encoder,
    images: ImageFeatures,
    regions: Sequence[Region],
    image_index_R: Int[ndarray, "R"],
    classes: PromptedClasses,
    shape: Literal["box", "mask"],
) -> Iterator[tuple[str, Float32[ndarray, "R C"]]]:
    """Each patch path with the scores of regions of these images."""
    weights_RP = _weights(images, regions, image_index_R, shape)
    for path in encoder.paths:
        weighted = Regions(
            torch.from_numpy(weights_RP).to(images.patches[path]),
            torch.from_numpy(image_index_R).to(images.patches[path].device),
        )

        def score(texts: TextFeatures, weighted: Regions = weighted, path: str = path) -> torch.Tensor:
            return encoder.similarity(images, texts, weighted, path)[0]

        yield path, classes.scores(score).detach().float().cpu().numpy()


def refuse_odd_region(example: Example, region: Region) -> None:
    """Raise UserError for a box or an area that is not finite or negative."""
    left, top, right, bottom = region.box
    if not np.isfinite((*region.box, region.area)).all() or right < left or bottom < top or region.area < 0:
        raise UserError(
            f"The image {example.id} has a region with the box {list(region.box)} (left, top, right, bottom) and the "
            f"area {region.area}: mend its annotations."
        )


def untrained_notes(paths: Mapping[str, bool]) -> list[str]:
    """Note for each patch path that no loss trained."""
    return [f"{path}: untrained path, no loss of this model saw it." for path, trained in paths.items() if not trained]


def left_out_notes(chosen: ChosenRegions, min_side: float) -> list[str]:
    """Note for each reason why regions are left out."""
    notes = []
    if chosen.crowd:
        notes.append(f"{chosen.crowd} crowd regions are left out.")
    if chosen.flat:
        notes.append(f"{chosen.flat} regions without width or height are left out.")
    if chosen.small:
        notes.append(f"{chosen.small} regions with a side under {min_side:g} pixels are left out.")
    return notes


def area_of(region: Region, what: Literal["object", "box"]) -> float:
    """Area of a region in pixels: its object's, or its box's."""
    left, top, right, bottom = region.box
    return region.area if what == "object" else (right - left) * (bottom - top)


def _areas(data: Examples, chosen: ChosenRegions, options: RegionOptions) -> Float[ndarray, "R"]:
    """Area of each region in the card's unit."""
    areas_R = np.array([area_of(region, options.area_of) for region in chosen.regions], dtype=np.float64)
    if options.area_unit == "image":
        pixels = {index: image_pixels(data.examples[index]) for index in np.unique(chosen.example_R).tolist()}
        areas_R /= [pixels[index] for index in chosen.example_R.tolist()]
    return areas_R


def image_pixels(example: Example) -> int:
    """Number of pixels of the original image, which is opened only if the data set does not state its size."""
    if example.has(PixelSize):
        size = example.facet(PixelSize)
        return size.width * size.height
    width, height = example.image.open().size
    return width * height


def _weights(
    images: ImageFeatures, regions: Sequence[Region], image_index_R: ndarray, shape: Literal["box", "mask"]
) -> Float32[ndarray, "R P"]:
    """Weights of the regions over the patches of their images."""
    if images.grid is None or images.area_N4 is None:
        raise RuntimeError("patches without a grid and its area")
    areas_R4 = images.area_N4.cpu().numpy()[image_index_R]
    weights_RP = box_weights(np.array([region.box for region in regions]), areas_R4, images.grid)
    if shape == "mask":
        for row, region in enumerate(regions):
            if region.mask is None:
                raise UserError("This data set has regions without masks: set region = 'box' in the task card.")
            mask_HW = region.mask()
            if mask_HW.any():
                weights_RP[row] = mask_weights(mask_HW, areas_R4[row], images.grid)
    return weights_RP.astype(np.float32)


def _grouped(
    credit_R: ndarray, group_R: ndarray, example_R: ndarray, examples: int, names: Sequence[str]
) -> dict[str, Statistic]:
    return {
        names[group]: Mean.of(credit_R[group_R == group], example_R[group_R == group], examples)
        for group in np.unique(group_R)
    }


def _per_image(credit_R: ndarray, example_R: ndarray, examples: int) -> Float[ndarray, "N"]:
    """Mean credit of each example's regions; NaN for an example without regions."""
    mean = Mean.of(credit_R, example_R, examples)
    credit_N: ndarray = np.divide(mean.sum_G, mean.count_G, out=np.full(examples, np.nan), where=mean.count_G > 0)
    return credit_N
