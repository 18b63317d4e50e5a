"""Facets: what only some protocols need of an example, each a type with the name by which PROVIDES and DATA know it.

A data set gives its examples facets and names them in PROVIDES; a protocol names those that it cannot do without in
DATA and takes them by type: `example.facet(PixelSize).width`. A facet of one's own is a frozen dataclass like these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from sparc_bench.images.item import ImageItem


class Facet:
    """Base of all facets; an example has at most one of a type.

    Attributes:
        NAME: by which PROVIDES and DATA name it.
    """

    NAME: ClassVar[str]


@dataclass(frozen=True)
class PixelSize(Facet):
    """Size of the image as the annotations state it, in pixels; known without opening the image."""

    NAME: ClassVar[str] = "pixel_size"

    width: int
    height: int


@dataclass(frozen=True)
class Federated(Facet):
    """What an image of LVIS was checked for; of classes that are neither there nor listed here nothing is known.

    Attributes:
        absent: labels looked for and not in the image.
        not_exhaustive: labels in the image of which not every object is marked.
    """

    NAME: ClassVar[str] = "federated"

    absent: frozenset[int]
    not_exhaustive: frozenset[int]


@dataclass(frozen=True)
class Objects(Facet):
    """Which things are in the image: the questions of POPE, the annotated objects of CHAIR.

    Attributes:
        present: name of a class -> whether it is in the image, in the data set's order; classes that it lacks are not
            asked for.
    """

    NAME: ClassVar[str] = "objects"

    present: Mapping[str, bool]


@dataclass(frozen=True)
class Attributes(Facet):
    """Words for what the image's regions look like, every one that is true of them.

    Attributes:
        of_regions: for each region, in order: kind of attribute -> its word, such as {"colour": "red"}.
    """

    NAME: ClassVar[str] = "attributes"

    of_regions: tuple[Mapping[str, str], ...]


@dataclass(frozen=True)
class Corruptions(Facet):
    """Corrupted versions of the image, made on demand because millions of paths would not fit in memory.

    Attributes:
        version: function from a corruption and its severity to that version, not yet opened; picklable.
    """

    NAME: ClassVar[str] = "corruptions"

    version: Callable[[str, int], ImageItem]
