"""Captions: logical forms that are true of a scene, and their English sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations

from sparc_bench.scenes.logical_forms import All, Count, Description, Exactly, Exists, Form, Related
from sparc_bench.scenes.random_stream import RandomStream
from sparc_bench.scenes.scene import Object, Scene, relations
from sparc_bench.scenes.words import Style, listing, noun_phrase, number_word, relation_phrase

LONGEST = 32
"""Largest number of words of a caption; a longer caption is drawn again."""

KINDS = ("attribute", "count", "relation", "inventory", "full")


@dataclass(frozen=True)
class SceneCaption:
    """A caption: its text, its logical form, its kind (of `KINDS`) and its style."""

    text: str
    form: Form
    kind: str
    style: Style


def write_captions(scene: Scene, stream: RandomStream) -> tuple[SceneCaption, ...]:
    """One caption of each kind, each true of the scene.

    - attribute: an object with its shape and one more attribute: colour, pattern, size or place.
    - count: the exact number of objects that fit a description (or of all objects).
    - relation: two objects and a relation between them. Without two related objects: one object and its place in the
      image; where that place has no word either: the exact list of objects.
    - inventory: the exact list of objects, by shape or by colour and shape.
    - full: the exact list of objects with all attributes (size only in short captions), and one or two relations
      between them; for a single object its place.
    """
    captions = []
    for kind in KINDS:
        while True:
            form = _FORMS[kind](scene, stream)
            style = Style.draw(stream)
            text = realise(form, style)
            if text.count(" ") < LONGEST:
                break
        captions.append(SceneCaption(text, form, kind, style))
    return tuple(captions)


def realise(form: Form, style: Style) -> str:
    """The English sentence of a form, in lower case without a full stop."""
    if isinstance(form, Exists):
        return _realise_exists(form, style)
    if isinstance(form, Count):
        return _realise_count(form, style)
    if isinstance(form, Related):
        return _realise_related(form, style)
    if isinstance(form, Exactly):
        return _realise_full(form, style) if form.relations else _realise_inventory(form, style)
    return _realise_all(form, style)


def _pick(style: Style, *texts: str) -> str:
    return texts[style.template % len(texts)]


def _realise_exists(form: Exists, style: Style) -> str:
    phrase = noun_phrase(form.what, style)
    return _pick(
        style,
        phrase,
        f"there is {phrase}",
        f"a picture with {phrase}",
        f"you can see {phrase} here",
        f"this image shows {phrase}",
        f"{phrase} can be seen in this scene",
    )


def _realise_count(form: Count, style: Style) -> str:
    bare = noun_phrase(form.what, style, None)
    number, verb = number_word(form.number), "is" if form.number == 1 else "are"
    exactly = noun_phrase(form.what, style, form.number, counted=True)
    return _pick(
        style,
        f"exactly {exactly}",
        f"there {verb} exactly {exactly}",
        f"{exactly} in total",
        f"the number of {bare} is {number}",
        f"you can count {exactly} in this image",
        f"we see {exactly}, no more and no less",
        f"a scene that has exactly {exactly}",
    )


def _realise_related(form: Related, style: Style) -> str:
    subject, other = noun_phrase(form.subject, style), noun_phrase(form.other, style)
    relation = relation_phrase(form.relation, style)
    return _pick(
        style,
        f"{subject} {relation} {other}",
        f"{subject} is {relation} {other}",
        f"there is {subject} {relation} {other}",
        f"a picture of {subject} that is {relation} {other}",
        f"in this scene {subject} lies {relation} {other}",
    )


def _realise_inventory(form: Exactly, style: Style) -> str:
    groups = listing([noun_phrase(what, style, number) for what, number in form.groups])
    return _pick(
        style,
        f"{groups} and nothing else",
        f"only {groups}",
        f"nothing but {groups}",
        f"the picture shows just {groups}",
        f"all you can see is {groups}",
        f"this image contains {groups} and no other objects",
    )


def _realise_full(form: Exactly, style: Style) -> str:
    groups = listing([noun_phrase(what, style, number) for what, number in form.groups])
    relations = listing(
        [
            f"{noun_phrase(relation.subject, style, definite=True)} is {relation_phrase(relation.relation, style)} "
            f"{noun_phrase(relation.other, style, definite=True)}"
            for relation in form.relations
        ]
    )
    return _pick(
        style,
        f"{groups}, and {relations}",
        f"{groups}, where {relations}",
        f"here {'is' if form.groups[0][1] == 1 else 'are'} {groups}, and {relations}",
        f"a scene of {groups} in which {relations}",
    )


def _realise_all(form: All, style: Style) -> str:
    if not all(isinstance(part, Exists) for part in form.parts):
        raise RuntimeError("only existing objects can be joined in a sentence")
    phrases = listing([noun_phrase(part.what, style) for part in form.parts if isinstance(part, Exists)])
    return _pick(style, phrases, f"there is {phrases}", f"a picture with {phrases}", f"this image shows {phrases}")


def _attribute(scene: Scene, stream: RandomStream) -> Form:
    object_ = stream.choice(scene.objects)
    field = stream.weighted((("colour", 11), ("pattern", 4), ("size", 2), ("place", 3)))
    if field == "place":
        place = _place(object_, stream)
        if place is not None:
            return Exists(Description(object_.shape, row=place[0], column=place[1]))
        field = "colour"
    return Exists(Description.of(object_, "shape", field))


def _place(object_: Object, stream: RandomStream) -> tuple[str | None, str | None] | None:
    """The row, the column or both of an object's place in words; None where the place has no word."""
    row, column = object_.row, object_.column
    if row is None and column is None:
        return None
    keep = stream.below(4)
    if row and column and keep == 1 and row != "middle":
        return row, None
    if row and column and keep == 2 and column != "middle":
        return None, column
    return row, column


_COUNTED: tuple[tuple[tuple[str, ...], int], ...] = (
    (("shape",), 6),
    (("colour",), 4),
    (("colour", "shape"), 4),
    (("pattern",), 2),
    (("pattern", "shape"), 2),
    ((), 3),
)
"""(Fields of a counted description, weight of the draw)."""

_RELATED: tuple[tuple[tuple[str, ...], int], ...] = (
    (("colour", "shape"), 5),
    (("shape",), 2),
    (("pattern", "shape"), 1),
    (("colour",), 1),
)
"""(Fields of the descriptions of two related objects, weight of the draw)."""


def _count(scene: Scene, stream: RandomStream) -> Form:
    fields = stream.weighted(_COUNTED)
    counted = Counter([Description.of(object_, *fields) for object_ in scene.objects])
    several = [(what, number) for what, number in counted.items() if number > 1]
    what, number = stream.choice(several if several and stream.chance(4, 5) else list(counted.items()))
    return Count(what, number)


def _relation(scene: Scene, stream: RandomStream) -> Form:
    claim = next(_related_pairs(scene, stream), None)
    if claim is None:
        return _relation_of_one(stream.choice(scene.objects), scene, stream)
    subject, relation, other = claim
    fields = stream.weighted(_RELATED)
    described = Description.of(subject, *fields), Description.of(other, *fields)
    if described[0] == described[1]:
        fields = ("pattern", "colour", "shape")
        described = Description.of(subject, *fields), Description.of(other, *fields)
    return Related(described[0], relation, described[1])


def _relation_of_one(object_: Object, scene: Scene, stream: RandomStream) -> Form:
    place = _place(object_, stream)
    if place is None:
        return Exactly(((Description.of(object_, "colour", "shape"), len(scene.objects)),))
    return Exists(Description(object_.shape, object_.colour, row=place[0], column=place[1]))


def _inventory(scene: Scene, stream: RandomStream) -> Form:
    fields = ("colour", "shape") if stream.chance(3, 4) else ("shape",)
    return Exactly(_groups(scene, stream, fields))


def _full(scene: Scene, stream: RandomStream) -> Form:
    count = len(scene.objects)
    fields: tuple[str, ...] = ("pattern", "colour", "shape")
    if count == 1 or (count < MAX_SIZED and stream.chance(1, 2)):
        fields = ("size", *fields)
    if count == 1:
        object_ = scene.objects[0]
        place = _place(object_, stream) or (None, None)
        what = Description(object_.shape, object_.colour, object_.pattern, object_.size, *place)
        return Exactly(((what, 1),))
    groups = _groups(scene, stream, fields)
    wanted = 2 if count == 3 and "size" not in fields and stream.chance(1, 2) else 1
    stated: list[Related] = []
    for subject, relation, other in _related_pairs(scene, stream):
        named = _name(subject, scene), _name(other, scene)
        if named[0] is None or named[1] is None:
            continue
        if all({named[0], named[1]} != {known.subject, known.other} for known in stated):
            stated.append(Related(named[0], relation, named[1]))
        if len(stated) == wanted:
            break
    return Exactly(groups, tuple(stated))


MAX_SIZED = 4
"""Number of objects from which on a full caption leaves out sizes."""


def _groups(scene: Scene, stream: RandomStream, fields: tuple[str, ...]) -> tuple[tuple[Description, int], ...]:
    """(Description, number of objects that share it), in random order."""
    described = [Description.of(object_, *fields) for object_ in scene.objects]
    return tuple(Counter(stream.shuffled(described)).items())


def _related_pairs(scene: Scene, stream: RandomStream) -> Iterator[tuple[Object, str, Object]]:
    """(Subject, relation, other object) for every related pair of objects, starting at a random pair."""
    pairs = list(permutations(scene.objects, 2))
    if not pairs:
        return
    start, pick = stream.several(len(pairs), 2)
    for subject, other in pairs[start:] + pairs[:start]:
        holding = relations(subject, other)
        if holding:
            yield subject, holding[pick % len(holding)], other


def _name(object_: Object, scene: Scene) -> Description | None:
    """The shortest description that fits only this object of the scene; None where no description does."""
    for fields in (("shape",), ("colour", "shape"), ("pattern", "colour", "shape")):
        said = [[getattr(each, field) for field in fields] for each in scene.objects]
        if said.count([getattr(object_, field) for field in fields]) == 1:
            return Description.of(object_, *fields)
    return None


_FORMS: dict[str, Callable[[Scene, RandomStream], Form]] = {
    "attribute": _attribute,
    "count": _count,
    "relation": _relation,
    "inventory": _inventory,
    "full": _full,
}
