"""Minimal pairs: two scenes and two captions that differ in one fact, each caption true of its own scene alone.

Edits after SugarCrepe (Hsieh et al., 2023, section 3): a fact is replaced by another, or two facts are swapped; a fact
is an object (its shape), an attribute (colour or pattern) or a relation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sparc_bench.scenes.captions import SceneCaption, realise
from sparc_bench.scenes.generate import acceptable, draw_many, draw_scene, split_of
from sparc_bench.scenes.logical_forms import All, Description, Exists, Form, Related, holds
from sparc_bench.scenes.random_stream import RandomStream
from sparc_bench.scenes.scene import Object, Scene, relations
from sparc_bench.scenes.words import Style
from sparc_bench.scenes.world import FIELDS, SIDE

EDITS = tuple((edit, of) for of in ("object", "attribute", "relation") for edit in ("replace", "swap"))
"""All (edit, kind of the edited fact)."""

_MOVES = 30
"""Number of positions tried for a moved object before another scene is drawn."""

_Two = tuple[Scene, Scene]
_Forms = tuple[Form, Form]


@dataclass(frozen=True)
class Pair:
    """A minimal pair: caption i is true of scene i and false of the other.

    Attributes:
        scenes: two scenes with the same background and the same objects except for the edited fact.
        captions: two sentences that are equal except for the edited fact.
        edit: "replace" or "swap".
        of: "object", "attribute" or "relation".
    """

    scenes: tuple[Scene, Scene]
    captions: tuple[SceneCaption, SceneCaption]
    edit: str
    of: str


def draw_pair(stream: RandomStream, index: int, split: str) -> Pair:
    """A random pair of the split, with the edit number `index` modulo 6 of `EDITS`."""
    edit, of = EDITS[index % len(EDITS)]
    while True:
        drawn = _DRAW[edit, of](stream, split)
        if drawn is None:
            continue
        scenes, forms = drawn
        if not all(split_of(scene) == split and acceptable(scene) for scene in scenes):
            continue
        if all(holds(forms[i], scenes[j]) == (i == j) for i in (0, 1) for j in (0, 1)):
            style = Style.draw(stream)
            texts = [realise(form, style) for form in forms]
            captions = SceneCaption(texts[0], forms[0], "pair", style), SceneCaption(texts[1], forms[1], "pair", style)
            return Pair(scenes, captions, edit, of)


def _replace_value(stream: RandomStream, split: str, field: str) -> tuple[_Two, _Forms] | None:
    """A pair where one object has another value of a field; captions name it alone or related to another object."""
    scene = draw_scene(stream, split)
    at = stream.below(len(scene.objects))
    before = scene.objects[at]
    other_values = [value for value in FIELDS[field] if value != getattr(before, field)]
    after = _changed(before, field, stream.choice(other_values))
    scenes = scene, _with(scene, {at: after})
    fields = ("pattern", "colour", "shape") if field == "pattern" else ("colour", "shape")
    named = Description.of(before, *fields), Description.of(after, *fields)
    partners = [
        (relation, other) for i, other in enumerate(scene.objects) if i != at for relation in relations(before, other)
    ]
    if not partners or stream.chance(1, 2):
        return scenes, (Exists(named[0]), Exists(named[1]))
    relation, other = stream.choice(partners)
    beside = Description.of(other, *fields)
    return scenes, (Related(named[0], relation, beside), Related(named[1], relation, beside))


def _replace_attribute(stream: RandomStream, split: str) -> tuple[_Two, _Forms] | None:
    return _replace_value(stream, split, stream.weighted((("colour", 2), ("pattern", 1))))


def _replace_relation(stream: RandomStream, split: str) -> tuple[_Two, _Forms] | None:
    """A pair where one object moves around another, so that their relation changes."""
    scene = draw_many(stream, split, most=3)
    at, anchor = stream.shuffled(range(len(scene.objects)))[:2]
    before, other = scene.objects[at], scene.objects[anchor]
    fields = ("colour", "shape")
    subject, beside = Description.of(before, *fields), Description.of(other, *fields)
    old = relations(before, other)
    # no pair on a diagonal, where two relations hold and either could be the edited one
    if len(old) != 1 or subject == beside:
        return None
    for _ in range(_MOVES):
        left, top = stream.several(SIDE - 1 - before.extent, SIDE - 1 - before.extent)
        after = before._replace(left=left + 1, top=top + 1)
        new = relations(after, other)
        moved = _with(scene, {at: after})
        if len(new) == 1 and new != old and split_of(moved) == split and acceptable(moved):
            return (scene, moved), (Related(subject, old[0], beside), Related(subject, new[0], beside))
    return None


def _swap_value(stream: RandomStream, split: str, field: str) -> tuple[_Two, _Forms] | None:
    """A pair where two objects exchange their values of a field at unchanged positions."""
    scene = draw_many(stream, split)
    first, second = stream.shuffled(range(len(scene.objects)))[:2]
    a, b = scene.objects[first], scene.objects[second]
    value_a, value_b = getattr(a, field), getattr(b, field)
    if value_a == value_b:
        return None
    scenes = scene, _with(scene, {first: _changed(a, field, value_b), second: _changed(b, field, value_a)})
    fields = ("pattern", "colour", "shape") if field == "pattern" else ("colour", "shape")
    holding = relations(a, b)
    relation = stream.choice(holding) if holding and stream.chance(1, 2) else None
    forms: list[Form] = []
    for version in scenes:
        x, y = (Description.of(version.objects[i], *fields) for i in (first, second))
        forms.append(All((Exists(x), Exists(y))) if relation is None else Related(x, relation, y))
    return scenes, (forms[0], forms[1])


def _swap_attribute(stream: RandomStream, split: str) -> tuple[_Two, _Forms] | None:
    return _swap_value(stream, split, stream.weighted((("colour", 2), ("pattern", 1))))


def _swap_relation(stream: RandomStream, split: str) -> tuple[_Two, _Forms] | None:
    """A pair where two objects exchange their positions, so that their relation is reversed."""
    scene = draw_many(stream, split)
    first, second = stream.shuffled(range(len(scene.objects)))[:2]
    a, b = scene.objects[first], scene.objects[second]
    holding = relations(a, b)
    if len(holding) != 1:
        return None
    fields = ("colour", "shape")
    x, y = Description.of(a, *fields), Description.of(b, *fields)
    if x == y:
        return None
    scenes = scene, _with(scene, {first: _moved(a, b), second: _moved(b, a)})
    return scenes, (Related(x, holding[0], y), Related(y, holding[0], x))


def _moved(object_: Object, to: Object) -> Object:
    """The object moved to the centre of another, one pixel off where their extents differ by an odd number."""
    left = to.left + (to.extent - object_.extent) // 2
    top = to.top + (to.extent - object_.extent) // 2
    limit = SIDE - 1 - object_.extent
    return object_._replace(left=min(max(left, 1), limit), top=min(max(top, 1), limit))


def _changed(object_: Object, field: str, value: str) -> Object:
    return Object(**{**object_._asdict(), field: value})


def _with(scene: Scene, changed: dict[int, Object]) -> Scene:
    """The scene with some objects replaced."""
    return Scene(tuple(changed.get(at, object_) for at, object_ in enumerate(scene.objects)), scene.background)


_DRAW: dict[tuple[str, str], Callable[[RandomStream, str], tuple[_Two, _Forms] | None]] = {
    ("replace", "object"): lambda stream, split: _replace_value(stream, split, "shape"),
    ("swap", "object"): lambda stream, split: _swap_value(stream, split, "shape"),
    ("replace", "attribute"): _replace_attribute,
    ("swap", "attribute"): _swap_attribute,
    ("replace", "relation"): _replace_relation,
    ("swap", "relation"): _swap_relation,
}
