"""Logical forms: the claims of a caption, and their truth in a scene.

Every form is a conjunction of two kinds of claims: the number of objects that fit a description, and the existence of
an object that fits one description and stands in a relation to an object that fits another.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

from sparc_bench.scenes.scene import BIT, PRESENT, Object, Scene, relations
from sparc_bench.scenes.world import FIELDS, RELATIONS

Code = tuple[tuple[tuple[int, int, int], ...], tuple[tuple[int, int, int], ...]]
"""A form as integers, for `truth.truth_matrix`: (description, least, most) and (subject, relation, other)."""


class Description(NamedTuple):
    """A description of one object: a value or None for each field; without any value it fits every object."""

    shape: str | None = None
    colour: str | None = None
    pattern: str | None = None
    size: str | None = None
    row: str | None = None
    column: str | None = None

    def fits(self, object_: Object) -> bool:
        """Whether every stated value is true of the object."""
        return all(getattr(self, field) in (None, getattr(object_, field)) for field in FIELDS)

    @property
    def code(self) -> int:
        """The description as bits that a fitting object's code contains."""
        return _code(self)

    @classmethod
    def of(cls, object_: Object, *fields: str) -> Description:
        """The description of an object by its values of the given fields."""
        return cls(*[getattr(object_, field) if field in fields else None for field in FIELDS])


@cache
def _code(what: Description) -> int:
    said = [BIT[field, value] for field, value in zip(FIELDS, what, strict=True) if value is not None]
    return PRESENT | sum(said)


MANY = 99
"""An upper bound of the number of objects, for claims without one."""


@dataclass(frozen=True)
class Exists:
    """The claim that at least one object fits."""

    what: Description

    @cached_property
    def code(self) -> Code:
        """The form as integers (see `Code`)."""
        return ((self.what.code, 1, MANY),), ()


@dataclass(frozen=True)
class Count:
    """The claim that exactly `number` objects fit."""

    what: Description
    number: int

    @cached_property
    def code(self) -> Code:
        """The form as integers (see `Code`)."""
        return ((self.what.code, self.number, self.number),), ()


@dataclass(frozen=True)
class Related:
    """The claim that some object that fits `subject` stands in `relation` to some object that fits `other`."""

    subject: Description
    relation: str
    other: Description

    @cached_property
    def code(self) -> Code:
        """The form as integers (see `Code`)."""
        return (), ((self.subject.code, RELATIONS.index(self.relation), self.other.code),)


@dataclass(frozen=True)
class Exactly:
    """The claim that the scene has these objects and no others, and that the stated relations hold.

    Each description fits exactly the stated number of objects, and the scene has as many objects as all numbers
    together; the descriptions exclude each other.
    """

    groups: tuple[tuple[Description, int], ...]
    relations: tuple[Related, ...] = ()

    @cached_property
    def code(self) -> Code:
        """The form as integers (see `Code`)."""
        total = sum(number for _, number in self.groups)
        counts = [(PRESENT, total, total), *((what.code, number, number) for what, number in self.groups)]
        return tuple(counts), tuple(claim for relation in self.relations for claim in relation.code[1])


@dataclass(frozen=True)
class All:
    """The claim that every part is true."""

    parts: tuple[Form, ...]

    @cached_property
    def code(self) -> Code:
        """The form as integers (see `Code`)."""
        codes = [part.code for part in self.parts]
        return tuple(c for counts, _ in codes for c in counts), tuple(r for _, relations in codes for r in relations)


Form = Exists | Count | Related | Exactly | All


def holds(form: Form, scene: Scene) -> bool:
    """Whether a form is true of a scene; a relation within the margin is false (see `scene.relations`)."""
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
