"""Scenes and their objects, and the relations between objects."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from sparc_bench.scenes.random_stream import mix
from sparc_bench.scenes.world import COLOURS, COLUMNS, FIELDS, MARGIN, MAX_OBJECTS, PATTERNS, RELATIONS, ROWS, SIDE
from sparc_bench.scenes.world import zone as zone_of

PRESENT = 1
BIT = {
    key: 1 << at
    for at, key in enumerate([(field, value) for field, values in FIELDS.items() for value in values], start=1)
}
"""(field, value) -> bit in an object's code; bit 0 (`PRESENT`) marks an object."""

_AT = {value: at for field in ("shape", "colour", "pattern") for at, value in enumerate(FIELDS[field])}


class Object(NamedTuple):
    """One object of a scene.

    Attributes:
        shape: shape, of `world.SHAPES`.
        colour: colour, of `world.COLOURS`.
        pattern: pattern, of `world.PATTERNS`.
        size: size word, of `world.SIZES`.
        left: column of the left edge of the object's square, in pixels.
        top: row of the upper edge of the object's square, in pixels.
        extent: width and height of the object's square, in pixels.
    """

    shape: str
    colour: str
    pattern: str
    size: str
    left: int
    top: int
    extent: int

    @property
    def column(self) -> str | None:
        """The word for the horizontal place, or None between two places."""
        zone = zone_of(self.left + self.extent / 2)
        return None if zone is None else COLUMNS[zone]

    @property
    def row(self) -> str | None:
        """The word for the vertical place, or None between two places."""
        zone = zone_of(self.top + self.extent / 2)
        return None if zone is None else ROWS[zone]

    @property
    def code(self) -> int:
        """All attributes of the object as bits (see `BIT`)."""
        row, column = self.row, self.column
        return (
            PRESENT
            | BIT["shape", self.shape]
            | BIT["colour", self.colour]
            | BIT["pattern", self.pattern]
            | BIT["size", self.size]
            | (BIT["row", row] if row else 0)
            | (BIT["column", column] if column else 0)
        )

    @property
    def fingerprint(self) -> int:
        """A 64-bit hash of the object and its position."""
        kind = (_AT[self.shape] * len(COLOURS) + _AT[self.colour]) * len(PATTERNS) + _AT[self.pattern]
        return mix(((kind * SIDE + self.extent) * SIDE + self.left) * SIDE + self.top)


def relations(subject: Object, other: Object) -> list[str]:
    """All relations of `subject` to `other`, in the order of `world.RELATIONS`.

    "a left of b": a's centre lies at least `MARGIN` pixels to the left of b's, and at least half as far to the left as
    it lies above or below. Within the margin neither "left of" nor "right of" holds; on a diagonal both "left of" and
    "above" may hold.
    """
    # twice the distances of the centres, since centres can lie on half pixels
    right = 2 * (other.left - subject.left) + other.extent - subject.extent
    down = 2 * (other.top - subject.top) + other.extent - subject.extent
    found = []
    if abs(right) >= 2 * MARGIN and 2 * abs(right) >= abs(down):
        found.append("left of" if right > 0 else "right of")
    if abs(down) >= 2 * MARGIN and 2 * abs(down) >= abs(right):
        found.append("above" if down > 0 else "below")
    return found


@dataclass(frozen=True)
class Scene:
    """The content of an image.

    Attributes:
        objects: 1 to `MAX_OBJECTS` objects, from back to front.
        background: 64-bit key of the background texture.
    """

    objects: tuple[Object, ...]
    background: int

    @cached_property
    def code(self) -> tuple[int, ...]:
        """The scene as integers, for `truth.truth_matrix`: a code per object (0: none), 16 bits per relation.

        Bit 4 i + j of a relation is set where it holds of object i to object j.
        """
        codes = [object_.code for object_ in self.objects]
        pairs = [0] * len(RELATIONS)
        for i, subject in enumerate(self.objects):
            for j, other in enumerate(self.objects):
                for relation in relations(subject, other):
                    pairs[RELATIONS.index(relation)] |= 1 << (MAX_OBJECTS * i + j)
        return (*codes, *[0] * (MAX_OBJECTS - len(codes)), *pairs)

    @property
    def fingerprint(self) -> int:
        """A 64-bit hash of the objects and their positions, independent of their order and the background."""
        return mix(sum(object_.fingerprint for object_ in self.objects) % (1 << 64))
