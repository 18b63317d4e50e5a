"""Logical forms: what a caption claims, and whether that is true of a scene.

Every form is a conjunction of two kinds of claim: how many objects fit a description, and whether some object that
fits one description stands in a relation to some object that fits another.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

from sparc_bench.scenes.scene import BIT, PRESENT, Object, Scene, relations
from sparc_bench.scenes.world import FIELDS, RELATIONS

Code = tuple[tuple[tuple[int, int, int], ...], tuple[tuple[int, int, int], ...]]
"""A form for `truth.truth_matrix`: counts as (description, least, most), relations as (subject, relation, other)."""


class Description(NamedTuple):
    """What is said of one object; None where nothing is. Without any word it fits every object."""

    shape: str | None = None
    colour: str | None = None
    pattern: str | None = None
    size: str | None = None
    row: str | None = None
    column: str | None = None

    def fits(self, object_: Object) -> bool:
        """Whether all of it is true of the object."""
        return all(getattr(self, field) in (None, getattr(object_, field)) for field in FIELDS)

    @property
    def code(self) -> int:
        """The bits that an object's code must have."""
        return _code(self)

    @classmethod
    def of(cls, object_: Object, *fields: str) -> Description:
        """What is true of the object in the given fields."""
        return cls(*[getattr(object_, field) if field in fields else None for field in FIELDS])


@cache
def _code(what: Description) -> int:
    said = [BIT[field, value] for field, value in zip(FIELDS, what, strict=True) if value is not None]
    return PRESENT | sum(said)


MANY = 99
"""More objects than any scene has."""


@dataclass(frozen=True)
class Exists:
    """At least one object fits."""

    what: Description

    @cached_property
    def code(self) -> Code:
        """See `Code`."""
        return ((self.what.code, 1, MANY),), ()


@dataclass(frozen=True)
class Count:
    """Exactly `number` objects fit, no more and no fewer."""

    what: Description
    number: int

    @cached_property
    def code(self) -> Code:
        """See `Code`."""
        return ((self.what.code, self.number, self.number),), ()


@dataclass(frozen=True)
class Related:
    """Some object that fits `subject` stands in `relation` to some object that fits `other`."""

    subject: Description
    relation: str
    other: Description

    @cached_property
    def code(self) -> Code:
        """See `Code`."""
        return (), ((self.subject.code, RELATIONS.index(self.relation), self.other.code),)


@dataclass(frozen=True)
class Exactly:
    """The scene holds these objects and no others, and the stated relations hold.

    Each description fits exactly as many objects as stated and the scene has as many objects as all of them together;
    the descriptions exclude each other, so that this pins down what the scene consists of.
    """

    groups: tuple[tuple[Description, int], ...]
    relations: tuple[Related, ...] = ()

    @cached_property
    def code(self) -> Code:
        """See `Code`."""
        total = sum(number for _, number in self.groups)
        counts = [(PRESENT, total, total), *((what.code, number, number) for what, number in self.groups)]
        return tuple(counts), tuple(claim for relation in self.relations for claim in relation.code[1])


@dataclass(frozen=True)
class All:
    """Every part is true."""

    parts: tuple[Form, ...]

    @cached_property
    def code(self) -> Code:
        """See `Code`."""
        codes = [part.code for part in self.parts]
        return tuple(c for counts, _ in codes for c in counts), tuple(r for _, relations in codes for r in relations)


Form = Exists | Count | Related | Exactly | All


def holds(form: Form, scene: Scene) -> bool:
    """Whether a form is true of a scene; a relation within the margin is not true (see `scene.related`)."""
    if isinstance(form, Exists):
        return _fitting(form.what, scene) >= 1
    if isinstance(form, Count):
        return _fitting(form.what, scene) == form.number
    if isinstance(form, Related):
        return any(
            form.relation in relations(subject, other)
            for subject in scene.objects
            for other in scene.objects
            if form.subject.fits(subject) and form.other.fits(other)
        )
    if isinstance(form, Exactly):
        return (
            len(scene.objects) == sum(number for _, number in form.groups)
            and all(_fitting(what, scene) == number for what, number in form.groups)
            and all(holds(relation, scene) for relation in form.relations)
        )
    return all(holds(part, scene) for part in form.parts)


def _fitting(what: Description, scene: Scene) -> int:
    return sum(what.fits(object_) for object_ in scene.objects)
