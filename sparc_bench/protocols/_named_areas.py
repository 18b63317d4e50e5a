"""The words that name something in an image, the pixels that each names, and words that name nothing there.

Shapes: P patches, H W pixels, Y X rectangles between V and U edges.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray

from sparc_bench.dataset import Example, Examples, Region
from sparc_bench.errors import UserError
from sparc_bench.facets import Attributes, Federated, PixelSize
from sparc_bench.metrics.region_weights import box_raster, cell_sums

NOUN = "class"
"""Kind of the words for classes; all other kinds are attributes."""

Shape = Literal["mask", "box", "semantic"]


@dataclass(frozen=True)
class Word:
    """A word that may name something.

    Attributes:
        name: the class's or the attribute's own name.
        kind: `NOUN`, or the kind of attribute.
    """

    name: str
    kind: str


@dataclass(frozen=True)
class NamedArea:
    """What a word names in an image.

    Attributes:
        word: the word.
        pixels: number of pixels that it names.
        share: their share of the image.
        word_P: those in each patch.
        other_P: other labelled pixels in each patch.
    """

    word: Word
    pixels: float
    share: float
    word_P: Float[ndarray, "P"]
    other_P: Float[ndarray, "P"]


def vocabulary(data: Examples, words: Collection[Literal["noun", "attribute"]]) -> tuple[Word, ...]:
    """All words that are asked for: the classes in their order, and the data set's attributes by kind and name.

    Raises:
        UserError: attributes are asked of a data set that has none, or a word has two meanings.
    """
    found = [Word(name, NOUN) for name in data.classes] if "noun" in words else []
    if "attribute" in words:
        listed = [facet for facet in data.facets(Attributes) if facet is not None]
        pairs = {pair for facet in listed for of_region in facet.of_regions for pair in of_region.items()}
        if not pairs:
            raise UserError(f"{data.dataset} has no attributes of its regions: set words = ['noun'] in the task card.")
        found += [Word(name, kind) for kind, name in sorted(pairs)]
    names = [word.name for word in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{data.dataset} has the word '{twice[0]}' twice: give each class and attribute its own.")
    return tuple(found)


class NamedAreas:
    """The words that name something in one image.

    Attributes:
        present: the words of the vocabulary that name anything there, crowds among it.
    """

    def __init__(self, example: Example, classes: Sequence[str], words: Sequence[Word], shape: Shape) -> None:
        self._example = example
        self._federated = example.facet(Federated) if example.has(Federated) else None
        self._classes = classes
        if shape == "semantic":
            self._raster: _Raster = _Semantic(example, classes)
        else:
            self._raster = _Masks(example) if shape == "mask" else _Boxes(example)
        known = self._raster.regions_of(example, classes)
        self._regions_of = {word: known[word] for word in words if word in known}
        self.present = tuple(self._regions_of)

    def areas(self, area_4: Shaped[ndarray, "4"], grid: tuple[int, int]) -> Iterator[NamedArea]:
        """What each word names, on the grid over an area of the image; words of crowds alone are left out.

        A pixel of a crowd that the word names, and of nothing else that it names, is unlabelled, as void is.
        """
        raster = self._raster
        for word, (regions, crowds) in self._regions_of.items():
            if not regions:
                continue
            word_YX = raster.covered(regions)
            other_YX = raster.labelled_YX & ~word_YX & ~raster.covered(crowds)
            both_2YX = np.stack([word_YX, other_YX]).astype(np.float64)
            sums = cell_sums(both_2YX, raster.edges_down, raster.edges_across, area_4, grid).reshape(2, -1)
            sizes_YX = np.outer(np.diff(raster.edges_down), np.diff(raster.edges_across))
            pixels = float((word_YX * sizes_YX).sum())
            yield NamedArea(word, pixels, pixels / float(sizes_YX.sum()), sums[0], sums[1])

    def absent(self, word: Word, words: Sequence[Word], most: int) -> list[Word]:
        """Up to `most` words of a word's kind that name nothing in the image; drawn from image id and word alone.

        Where an image was checked for some classes only, absent words are among those.
        """
        there = set(self.present)
        free = [other for other in words if other.kind == word.kind and other not in there]
        if self._federated is not None and word.kind == NOUN:
            checked = {self._classes[label] for label in self._federated.absent}
            free = [other for other in free if other.name in checked]
        free.sort(key=lambda other: other.name)
        digest = hashlib.sha256(f"{self._example.id}\x1f{word.name}".encode()).digest()
        order = np.random.default_rng(int.from_bytes(digest[:16], "big")).permutation(len(free))
        return [free[index] for index in order[:most].tolist()]


Found = Mapping[Word, tuple[list[int], list[int]]]
"""Word -> places of the regions that it names, and of the crowds."""


class _Raster:
    """An image cut into rectangles, each wholly inside or outside of every region.

    Attributes:
        edges_down: of the rectangles, in pixels from 0 to the height.
        edges_across: of the rectangles, in pixels from 0 to the width.
        labelled_YX: rectangles that are not void.
    """

    edges_down: Float[ndarray, "V"]
    edges_across: Float[ndarray, "U"]
    labelled_YX: Bool[ndarray, "Y X"]

    def regions_of(self, example: Example, classes: Sequence[str]) -> Found:
        found: dict[Word, tuple[list[int], list[int]]] = {}
        attributes = example.facet(Attributes).of_regions if example.has(Attributes) else ()
        for place, region in enumerate(example.regions):
            named = [Word(classes[region.label], NOUN)]
            if attributes:
                named += [Word(name, kind) for kind, name in attributes[place].items()]
            for word in named:
                found.setdefault(word, ([], []))[region.crowd].append(place)
        return found

    def covered(self, places: Sequence[int]) -> Bool[ndarray, "Y X"]:
        """Rectangles that lie in any of these regions."""
        covered_YX = np.zeros_like(self.labelled_YX)
        for place in places:
            covered_YX |= self.region(place)
        return covered_YX

    def region(self, place: int) -> Bool[ndarray, "Y X"]:
        raise NotImplementedError

    def _whole(self, height: int, width: int) -> None:
        self.edges_down, self.edges_across = np.arange(height + 1.0), np.arange(width + 1.0)


class _Masks(_Raster):
    def __init__(self, example: Example) -> None:
        self._masks = [_mask_of(region, example) for region in example.regions]
        if self._masks:
            self._whole(*self._masks[0].shape)
            self.labelled_YX = np.ones_like(self._masks[0])

    def region(self, place: int) -> Bool[ndarray, "Y X"]:
        return self._masks[place]


class _Boxes(_Raster):
    def __init__(self, example: Example) -> None:
        width, height = _size(example)
        boxes_R4 = np.array([region.box for region in example.regions], dtype=np.float64).reshape(-1, 4)
        if not np.isfinite(boxes_R4).all():
            raise UserError(f"The image {example.id} has a box that is not finite: mend its annotations.")
        self._boxes_R4 = np.clip(boxes_R4, 0, [width, height, width, height])
        self.edges_across = np.unique([0.0, width, *self._boxes_R4[:, 0], *self._boxes_R4[:, 2]])
        self.edges_down = np.unique([0.0, height, *self._boxes_R4[:, 1], *self._boxes_R4[:, 3]])
        self.labelled_YX = np.ones((len(self.edges_down) - 1, len(self.edges_across) - 1), dtype=bool)

    def region(self, place: int) -> Bool[ndarray, "Y X"]:
        return box_raster(self._boxes_R4[[place]], self.edges_down, self.edges_across)


class _Semantic(_Raster):
    def __init__(self, example: Example, classes: Sequence[str]) -> None:
        if example.semantic is None:
            raise UserError(
                f"The image {example.id} has no class for every pixel: set regions = 'mask' or 'box' in the task card."
            )
        self._truth_HW = example.semantic()
        self._whole(*self._truth_HW.shape)
        self.labelled_YX = (self._truth_HW >= -1) & (self._truth_HW < len(classes))

    def regions_of(self, example: Example, classes: Sequence[str]) -> Found:  # noqa: ARG002 - as the others
        labels = [label for label in np.unique(self._truth_HW).tolist() if 0 <= label < len(classes)]
        return {Word(classes[label], NOUN): ([label], []) for label in labels}

    def region(self, place: int) -> Bool[ndarray, "Y X"]:
        return np.asarray(self._truth_HW == place)


def _mask_of(region: Region, example: Example) -> Bool[ndarray, "H W"]:
    """The region's mask; all pixels that the box touches of a crowd without one, which are only left out."""
    if region.mask is not None:
        return region.mask()
    if not region.crowd:
        raise UserError(f"The image {example.id} has a region without a mask: set regions = 'box' in the task card.")
    width, height = _size(example)
    left, top, right, bottom = region.box
    mask_HW = np.zeros((height, width), dtype=bool)
    mask_HW[max(0, int(np.floor(top))) : int(np.ceil(bottom)), max(0, int(np.floor(left))) : int(np.ceil(right))] = True
    return mask_HW


def _size(example: Example) -> tuple[int, int]:
    if example.has(PixelSize):
        size = example.facet(PixelSize)
        return size.width, size.height
    return example.image.open().size
