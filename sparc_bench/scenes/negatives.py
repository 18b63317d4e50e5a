"""Negatives: captions that are false of a scene, made by one edit of a true caption's logical form in the same style.

Edits after SugarCrepe (Hsieh et al., 2023, section 3), as in `minimal_pairs`: a fact is replaced by another, or two
facts are swapped; a fact is an object (its shape), an attribute (colour, pattern, size or place) or a relation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Literal, get_args

from sparc_bench.scenes.captions import LONGEST, SceneCaption, realise
from sparc_bench.scenes.logical_forms import Count, Description, Exactly, Exists, Form, Related, holds
from sparc_bench.scenes.random_stream import RandomStream
from sparc_bench.scenes.scene import Scene
from sparc_bench.scenes.world import FIELDS, MAX_OBJECTS, RELATIONS

Kind = Literal[
    "replace_object", "replace_attribute", "replace_relation", "swap_object", "swap_attribute", "swap_relation"
]
KINDS: tuple[Kind, ...] = get_args(Kind)

_ATTRIBUTES = tuple(field for field in FIELDS if field != "shape")


@dataclass(frozen=True)
class Negative:
    """A caption that is false of its scene.

    Attributes:
        text: sentence of the caption after the edit.
        form: logical form of the sentence.
        kind: kind of the edit, of `KINDS`, or "replace_number" (see `write_negatives`).
    """

    text: str
    form: Form
    kind: str


def write_negatives(
    captions: Sequence[SceneCaption], scene: Scene, kinds: Sequence[Kind], stream: RandomStream
) -> tuple[Negative, ...]:
    """One negative for each caption, of one of the wanted kinds, false of the scene.

    The kinds are tried in random order, each with all of its edits. Where no edit of a wanted kind makes the form false
    (nothing to swap with one object, no relation to replace), a shape or an attribute is replaced. Where that fails
    too, or every such edit is true as well ("exactly one dotted thing" beside one striped and one solid), a number is.
    """
    return tuple(_negative(caption, scene, kinds, stream) for caption in captions)


def _negative(caption: SceneCaption, scene: Scene, kinds: Sequence[Kind], stream: RandomStream) -> Negative:
    instead = [kind for kind in ("replace_object", "replace_attribute") if kind not in kinds]
    for kind in (*stream.shuffled(kinds), *stream.shuffled(instead), "replace_number"):
        edits = list(_EDITS[kind](caption.form))
        while edits:
            form = edits.pop(stream.below(len(edits)))()
            if not holds(form, scene) and _clear(form):
                text = realise(form, caption.style)
                if text.count(" ") < LONGEST:
                    return Negative(text, form, kind)
    raise RuntimeError(f"no edit makes '{caption.text}' false")


def _descriptions(form: Form) -> tuple[Description, ...]:
    """The descriptions of a form, each once."""
    if isinstance(form, Exists | Count):
        return (form.what,)
    if isinstance(form, Related):
        return form.subject, form.other
    if isinstance(form, Exactly):
        return tuple(what for what, _ in form.groups)
    raise RuntimeError("captions do not join sentences")


def _with(form: Form, changed: dict[int, dict[str, str]]) -> Form:
    """The form with other values in some of its `_descriptions`, also where its relations name these objects."""
    whats = [what._replace(**changed.get(at, {})) for at, what in enumerate(_descriptions(form))]
    if isinstance(form, Exists | Count):
        return replace(form, what=whats[0])
    if isinstance(form, Related):
        return Related(whats[0], form.relation, whats[1])
    if isinstance(form, Exactly):

        def renamed(name: Description) -> Description:
            at = next(at for at, (what, _) in enumerate(form.groups) if _names(name, what))
            return name._replace(**{field: v for field, v in changed.get(at, {}).items() if getattr(name, field)})

        return Exactly(
            tuple((what, number) for what, (_, number) in zip(whats, form.groups, strict=True)),
            tuple(Related(renamed(claim.subject), claim.relation, renamed(claim.other)) for claim in form.relations),
        )
    raise RuntimeError("captions do not join sentences")


def _names(name: Description, what: Description) -> bool:
    """Whether every value of a name is also in a description."""
    return all(said in (None, of) for said, of in zip(name, what, strict=True))


def _clear(form: Form) -> bool:
    """Whether all descriptions of a form differ, and the names in its relations fit single objects."""
    if isinstance(form, Related):
        return form.subject != form.other
    if not isinstance(form, Exactly):
        return True
    named = [
        [number for what, number in form.groups if _names(name, what)]
        for claim in form.relations
        for name in (claim.subject, claim.other)
    ]
    whats = _descriptions(form)
    return len(set(whats)) == len(whats) and all(numbers == [1] for numbers in named)


_Edit = Callable[[], Form]
"""Function that returns the edited form; most edits of a form are never computed."""


def _replaced(form: Form, fields: Sequence[str]) -> Iterator[_Edit]:
    for at, what in enumerate(_descriptions(form)):
        for field in fields:
            before = getattr(what, field)
            if before is not None:
                values = (value for value in FIELDS[field] if value != before)
                yield from (partial(_with, form, {at: {field: value}}) for value in values)


def _swapped(form: Form, fields: Sequence[str]) -> Iterator[_Edit]:
    for (at, a), (to, b) in combinations(enumerate(_descriptions(form)), 2):
        for field in fields:
            values = getattr(a, field), getattr(b, field)
            if None not in values and values[0] != values[1]:
                yield partial(_with, form, {at: {field: values[1]}, to: {field: values[0]}})


def _restated(form: Form, edit: Callable[[Related], Sequence[Related]]) -> Iterator[_Edit]:
    """Edits of one relation of the form."""
    if isinstance(form, Related):
        yield from (partial(replace, claim) for claim in edit(form))
    elif isinstance(form, Exactly):
        for at, stated in enumerate(form.relations):
            others = form.relations[:at], form.relations[at + 1 :]
            yield from (partial(replace, form, relations=(*others[0], claim, *others[1])) for claim in edit(stated))


def _other_relations(claim: Related) -> list[Related]:
    return [replace(claim, relation=relation) for relation in RELATIONS if relation != claim.relation]


def _turned_round(claim: Related) -> list[Related]:
    return [Related(claim.other, claim.relation, claim.subject)]


def _other_number(form: Form) -> Iterator[_Edit]:
    if isinstance(form, Count):
        yield from (partial(replace, form, number=n) for n in range(1, MAX_OBJECTS + 1) if n != form.number)


_EDITS: dict[str, Callable[[Form], Iterator[_Edit]]] = {
    "replace_object": lambda form: _replaced(form, ("shape",)),
    "replace_attribute": lambda form: _replaced(form, _ATTRIBUTES),
    "replace_relation": lambda form: _restated(form, _other_relations),
    "swap_object": lambda form: _swapped(form, ("shape",)),
    "swap_attribute": lambda form: _swapped(form, _ATTRIBUTES),
    "swap_relation": lambda form: _restated(form, _turned_round),
    "replace_number": _other_number,
}
