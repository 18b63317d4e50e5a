"""The data-set seam: examples as tasks and the trainer see them.

A new data set is one Python file: its splits, what it provides, the options of its reader, and `read(root, split,
options)`, which returns `Examples`. Images are opened later, by whoever needs them. A complete one:

    from functools import partial

    from PIL import Image

    from sparc_bench.cards.card import Strict
    from sparc_bench.dataset import Example, Examples
    from sparc_bench.images.item import ImageItem

    SPLITS = ("test",)
    PROVIDES = frozenset({"captions", "labels"})
    CLASSES = ("red", "green", "blue")


    class Options(Strict):
        n: int = 30


    def square(number):
        colour = CLASSES[number % 3]
        image = ImageItem(f"{number}", partial(Image.new, "RGB", (8, 8), colour))
        return Example(f"{number}", image, captions=(f"a {colour} square",), label=number % 3)


    def read(root, split, options):
        examples = tuple(square(number) for number in range(options.n))
        return Examples("squares", split, examples, CLASSES, fingerprint=f"squares, version 1, {options.n}")

Where examples are many, `LazyExamples` makes each from columns when it is asked for (docs/adding.md has one). What only
some protocols need of an example are typed facets (`sparc_bench.facets`), such as `facets=(PixelSize(8, 8),)` with
"pixel_size" in PROVIDES.

A split that may be trained on is marked: `SPLITS = {"train": "train", "val": "val", "test": "test"}` gives one split
for training, one for watching a training and choosing settings, one for evaluation alone. Names without a mark, as
above, are for evaluation alone.

Named by `--plugin squares.py`, it is the `dataset = "squares"` of a task card. A data set that ships with the package
is such a file in `sparc_bench/datasets/`, with TITLE, SOURCE and NEEDS_ON_DISK (empty for none), whose `read` refuses
an unknown split; the card of its source, licence and counts lies in `tasks/data/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from sparc_bench.errors import UserError
from sparc_bench.facets import Facet
from sparc_bench.images.item import Box, ImageItem
from sparc_bench.images.view import View

AnyFacet = TypeVar("AnyFacet", bound=Facet)
AnyValue = TypeVar("AnyValue")


@dataclass(frozen=True)
class Region:
    """Labelled object or part of an image.

    Attributes:
        box: left, top, right, bottom in pixels of the original image.
        label: index into the data set's classes.
        area: area of the object itself (not of its box), in pixels.
        mask: function that returns the object's mask, HW bool at the original size; None in a data set of boxes alone.
        crowd: whether the region is a group of objects, ignored in scoring (COCO's iscrowd).
    """

    box: Box
    label: int
    area: float
    mask: Callable[[], Bool[ndarray, "H W"]] | None = None
    crowd: bool = False


@dataclass(frozen=True)
class Example:
    """One image with its annotations; those that a data set lacks are empty.

    Attributes:
        id: identifier, unique within the data set.
        image: the image, not yet opened.
        window: the rectangle of the image that the example is about, in pixels; None for the whole image.
        captions: texts that are true of the image.
        caption_tags: kind of each caption, or empty.
        negatives: texts that are false of the image, one per caption or as the data set pairs them.
        label: index into the data set's classes.
        group: name shared by the examples of a minimal pair.
        photo: name of the photo in all data sets that contain it, such as `coco:139` or `flickr:1000268201`, by which
            exposure is found; empty if unknown.
        tags: values for per-group tables, such as {"edit": "swap"}.
        regions: labelled regions.
        semantic: function that returns the class of every pixel, HW int; -1 background (no class of the data set), -2
            void (never scored).
        facets: what only some protocols need, by type (see `sparc_bench.facets`): `example.facet(PixelSize)`.
    """

    id: str
    image: ImageItem
    captions: tuple[str, ...] = ()
    caption_tags: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    label: int | None = None
    group: str | None = None
    photo: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    regions: tuple[Region, ...] = ()
    semantic: Callable[[], Int[ndarray, "H W"]] | None = None
    facets: tuple[Facet, ...] = ()
    window: Box | None = None

    @property
    def view(self) -> View:
        """What a model looks at, at its own input size: the image, or its window."""
        return View(self.image, self.window)

    def has(self, kind: type[Facet]) -> bool:
        """Whether the example has a facet of this type."""
        return any(isinstance(facet, kind) for facet in self.facets)

    def facet(self, kind: type[AnyFacet]) -> AnyFacet:
        """The example's facet of this type.

        Raises:
            UserError: it has none.
        """
        for facet in self.facets:
            if isinstance(facet, kind):
                return facet
        raise UserError(
            f"The example {self.id} lacks the facet {kind.__name__}: give it to the data set's examples and name "
            f"'{kind.NAME}' in its PROVIDES, or choose another data set."
        )


_BARE = Example("", ImageItem.file("", Path()))
"""An example with every default."""


@dataclass(frozen=True, eq=False)
class LazyExamples(Sequence[Example]):
    """Examples that are made of columns when they are asked for, so that a million take the memory of their columns.

    Every example has an image of its own, whose id is the example's.

    Attributes:
        columns: field of `Example` -> its value at every position, "id" among them and "image" not; fields without a
            column have their default in every example. A column may be lazy itself (see `Computed`).
        image: function from a position to the image there, not yet opened.
        rows: positions of the examples that are in here, in order.
    """

    columns: Mapping[str, Sequence[Any]]
    image: Callable[[int], ImageItem]
    rows: Sequence[int]

    @classmethod
    def of(cls, columns: Mapping[str, Sequence[Any]], image: Callable[[int], ImageItem]) -> LazyExamples:
        """The examples of all positions."""
        return cls(columns, image, range(len(columns["id"])))

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> LazyExamples: ...
    def __getitem__(self, index: int | slice) -> Example | LazyExamples:
        if isinstance(index, slice):
            return self.take(self.rows[index])
        row = self.rows[index]
        return Example(image=self.image(row), **{field: column[row] for field, column in self.columns.items()})

    def take(self, rows: Sequence[int]) -> LazyExamples:
        """The examples at some of the columns' positions."""
        return LazyExamples(self.columns, self.image, rows)

    def values(self, field: str) -> Iterator[Any]:
        """The values of a field other than `image`, without making an example."""
        if field not in self.columns:
            return repeat(getattr(_BARE, field), len(self))
        column = self.columns[field]
        return (column[row] for row in self.rows)


@dataclass(frozen=True, eq=False)
class Computed(Sequence[AnyValue]):
    """A column whose values are computed when they are asked for.

    Attributes:
        length: number of values.
        value: function from a position to the value there; picklable.
    """

    length: int
    value: Callable[[int], AnyValue]

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> AnyValue: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[AnyValue, ...]: ...
    def __getitem__(self, index: int | slice) -> AnyValue | tuple[AnyValue, ...]:
        at = range(self.length)[index]
        return self.value(at) if isinstance(at, int) else tuple(map(self.value, at))


@dataclass(frozen=True)
class _Views(Sequence[View]):
    examples: Sequence[Example]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - as in Examples
        found = self.examples[index]
        return [example.view for example in found] if isinstance(index, slice) else found.view

    def __iter__(self) -> Iterator[View]:
        return (example.view for example in self.examples)


@dataclass(frozen=True)
class Examples(Sequence[Example]):
    """Examples of one split, in a fixed order, with the annotations of the whole data set.

    Attributes:
        dataset: name of the data set's module.
        split: name of the split.
        examples: in the data set's order; `LazyExamples` where they are many.
        classes: class names as the data set's owner writes them; labels index them.
        fingerprint: sha256 over annotation bytes and sorted image ids with the hashes of their contents (scenes: the
            version and the arguments), the record's data hash.
        caption_truth: function from examples of this data set to the full truth, the matrix NM of which caption (all
            captions of the examples, in order) is true of which image; None if unknown.
        keep_captions: function that returns an example with the chosen ones of its captions; for `caption_truth`.
        word_tags: word -> "NOUN" | "ADJ" | "OTHER", for a data set that generates its captions.
        pool: further candidate captions for faithfulness and CHAIR, beside the examples' own.
        tuning: captions of other images (one tuple per image), on which the constant caption of faithfulness is chosen.
        synonyms: word or pair of words -> its class; empty for a data set without a list of synonyms.
        notes: sentences on what was left out and why; shown, and kept in the record.
        category_ids: the owner's number of each class, ascending, by which detections name classes.
        frequencies: frequency of each class, "r" (rare), "c" (common) or "f" (frequent), as LVIS states it.
        sizes: further counts by name, for the card's [expect] (items of each group).
        pixels_hash: hash of the images alone, without labels and selection, for images without `content`: splits with
            equal hashes share cached features; empty: the fingerprint.
    """

    dataset: str
    split: str
    examples: Sequence[Example]
    classes: tuple[str, ...] = ()
    fingerprint: str = ""
    caption_truth: Callable[[Sequence[Example]], Bool[ndarray, "N M"]] | None = None
    keep_captions: Callable[[Example, Sequence[int]], Example] | None = None
    word_tags: Mapping[str, str] | None = None
    pool: tuple[str, ...] = ()
    tuning: tuple[tuple[str, ...], ...] = ()
    synonyms: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()
    frequencies: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    pixels_hash: str = ""

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - Sequence's own overload: int gives one, slice several
        return self.examples[index]

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)

    def values(self, field: str) -> Iterator[Any]:
        """A field of every example, in order; lazy examples are not made for it."""
        if isinstance(self.examples, LazyExamples):
            return self.examples.values(field)
        return (getattr(example, field) for example in self.examples)

    def facets(self, kind: type[AnyFacet]) -> Iterator[AnyFacet | None]:
        """The facet of this type of every example, in order, None where it has none; as `values`."""
        for found in self.values("facets"):
            yield next((facet for facet in found if isinstance(facet, kind)), None)

    def take(self, indices: Iterable[int]) -> Examples:
        """The split with some of its examples alone, in this order; lazy ones stay lazy."""
        if isinstance(self.examples, LazyExamples):
            rows = self.examples.rows
            return replace(self, examples=self.examples.take([rows[index] for index in indices]))
        return replace(self, examples=tuple(self.examples[index] for index in indices))

    @property
    def image_count(self) -> int:
        """Number of images, of which several examples may show one."""
        if isinstance(self.examples, LazyExamples):
            return len(self.examples)
        return len({example.image.id for example in self.examples})

    @property
    def views(self) -> Sequence[View]:
        """The views of all examples, each made when it is asked for."""
        return _Views(self.examples)

    @property
    def captions(self) -> tuple[str, ...]:
        """All captions of all examples, in order (M of them)."""
        return tuple(caption for captions in self.values("captions") for caption in captions)

    @property
    def caption_image_M(self) -> Int[ndarray, "M"]:
        """Index of each caption's example."""
        return np.repeat(np.arange(len(self)), [len(captions) for captions in self.values("captions")])

    def own_truth(self) -> Bool[ndarray, "N M"]:
        """Truth of the annotators' own pairs: a caption is true of its own image only."""
        return np.asarray(np.arange(len(self))[:, None] == self.caption_image_M[None, :])

    def counts(self) -> dict[str, int]:
        """Counts that a task card's [expect] table states."""
        return {
            "images": len(self),
            "captions": sum(map(len, self.values("captions"))),
            "negatives": sum(map(len, self.values("negatives"))),
            "pool": len(self.pool),
            "tuning": len(self.tuning),
            "classes": len(self.classes),
            "regions": sum(map(len, self.values("regions"))),
            "masks": sum(semantic is not None for semantic in self.values("semantic")),
            "groups": len({group for group in self.values("group") if group is not None}),
            **self.sizes,
        }
