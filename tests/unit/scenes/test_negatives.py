from collections import Counter

import pytest

from sparc_bench.datasets.scenes1 import Options, keep_captions, read
from sparc_bench.scenes.captions import LONGEST, SceneCaption, realise, write_captions
from sparc_bench.scenes.generate import draw_scene
from sparc_bench.scenes.logical_forms import Count, Description, Exactly, Exists, Related, holds
from sparc_bench.scenes.negatives import KINDS, write_negatives
from sparc_bench.scenes.random_stream import RandomStream
from sparc_bench.scenes.scene import Object, Scene
from sparc_bench.scenes.words import Style
from sparc_bench.scenes.world import FIELDS, SHAPES

REPLACE, SWAP = KINDS[:3], KINDS[3:]
STYLE = Style(0, 0, 0, 0, 0, 0)
SCENES = [draw_scene(RandomStream("negatives", index), "train") for index in range(300)]
CAPTIONS = [write_captions(scene, RandomStream("true", index)) for index, scene in enumerate(SCENES)]


def written(kinds, scenes=SCENES, captions=CAPTIONS):
    """(scene, caption, negative) of every caption."""
    for index, (scene, said) in enumerate(zip(scenes, captions, strict=True)):
        for caption, negative in zip(
            said, write_negatives(said, scene, kinds, RandomStream("false", index)), strict=True
        ):
            yield scene, caption, negative


def things(form):
    """What a form says of each thing."""
    if isinstance(form, Exists | Count):
        return [form.what]
    return [form.subject, form.other] if isinstance(form, Related) else [what for what, _ in form.groups]


def relations(form):
    return [form] if isinstance(form, Related) else list(form.relations) if isinstance(form, Exactly) else []


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [KINDS, REPLACE, SWAP, *([kind] for kind in KINDS)], ids=str)
def test_every_negative_is_false_in_the_captions_own_words(kinds):
    for scene, caption, negative in written(kinds):
        assert holds(caption.form, scene)
        assert not holds(negative.form, scene)
        assert negative.text == realise(negative.form, caption.style) != caption.text
        assert type(negative.form) is type(caption.form)
        assert 0 < len(negative.text.split()) <= LONGEST


@pytest.mark.slow
def test_ten_thousand_captions_have_a_false_one():
    scenes = [draw_scene(RandomStream("many", index), "val") for index in range(2000)]
    captions = [write_captions(scene, RandomStream("many true", index)) for index, scene in enumerate(scenes)]
    total = 0
    for scene, caption, negative in written(KINDS, scenes, captions):
        assert not holds(negative.form, scene)
        assert negative.text == realise(negative.form, caption.style) != caption.text
        total += 1
    assert total == 10_000


def test_a_replacement_changes_one_value_and_a_swap_keeps_them_all():
    seen = Counter()
    for _, caption, negative in written(KINDS):
        seen[negative.kind] += 1
        before, after = things(caption.form), things(negative.form)
        changed = [
            (at, field)
            for at, (a, b) in enumerate(zip(before, after, strict=True))
            for field in FIELDS
            if getattr(a, field) != getattr(b, field)
        ]
        edit, of = negative.kind.split("_")
        if of == "relation":
            assert isinstance(caption.form, Related | Exactly)
            pairs = zip(relations(caption.form), relations(negative.form), strict=True)
            ((old, new),) = [(a, b) for a, b in pairs if a != b]
            if edit == "replace":
                assert (old.subject, old.other) == (new.subject, new.other)
            else:
                assert (old.subject, old.relation, old.other) == (new.other, new.relation, new.subject)
            assert isinstance(caption.form, Related) or not changed
            continue
        if of == "number":
            assert not changed
            continue
        (field,) = {field for _, field in changed}
        assert (field == "shape") == (of == "object")
        assert len(changed) == (1 if edit == "replace" else 2)
        if edit == "swap":
            assert sorted(getattr(what, field) for what in before if getattr(what, field)) == sorted(
                getattr(what, field) for what in after if getattr(what, field)
            )
    assert set(seen) == {*KINDS, "replace_number"}
    assert seen["replace_number"] < 0.05 * sum(seen.values())


def possible(kind, form):
    """Whether there is anything in the form that an edit of the kind could change."""
    edit, of = kind.split("_")
    if of == "relation":
        return bool(relations(form))
    fields = ["shape"] if of == "object" else [field for field in FIELDS if field != "shape"]
    values = [{getattr(what, field) for what in things(form)} - {None} for field in fields]
    return any(len(of_field) >= (1 if edit == "replace" else 2) for of_field in values)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_is_as_asked_wherever_the_form_has_such_an_edit(kind):
    asked = [(possible(kind, caption.form), negative.kind == kind) for _, caption, negative in written([kind])]
    assert (False, True) not in asked
    # the rest would be true (two stars and a heart swapped where both are there) or name what cannot be told apart
    assert asked.count((True, True)) > 0.8 * (asked.count((True, True)) + asked.count((True, False)))
    assert asked.count((True, True)) > 100


def test_kinds_take_turns_where_a_form_has_several():
    counts = Counter(negative.kind for _, _, negative in written(REPLACE))
    assert set(counts) == {*REPLACE, "replace_number"}
    assert counts["replace_number"] < 0.05 * sum(counts.values())
    assert min(counts[kind] for kind in REPLACE) > 0.1 * sum(counts.values())
    assert {negative.kind for _, _, negative in written(SWAP)} == {
        *SWAP,
        *("replace_object", "replace_attribute", "replace_number"),
    }


def test_a_full_description_stays_one_of_a_possible_scene():
    for _, caption, negative in written(KINDS):
        if caption.kind == "full" and isinstance(negative.form, Exactly):
            whats = things(negative.form)
            assert len(set(whats)) == len(whats)
            for claim in negative.form.relations:
                for name in (claim.subject, claim.other):
                    fitting = [
                        number
                        for what, number in negative.form.groups
                        if all(said in (None, of) for said, of in zip(name, what, strict=True))
                    ]
                    assert fitting == [1], negative.text


def small(shape, colour, left, pattern="solid"):
    return Object(shape, colour, pattern, "small", left, 20, 14)


STAR, HEART = small("star", "red", 2), small("heart", "blue", 40)


STAR_OF_HEART = Related(Description("star"), "left of", Description("heart"))
RED_OF_BLUE = Related(Description("star", "red"), "left of", Description("heart", "blue"))
SMALL_STAR = Exists(Description("star", size="small"))


@pytest.mark.parametrize(
    ("kind", "form", "texts"),
    [
        ("swap_relation", STAR_OF_HEART, ["a heart left of a star"]),
        ("swap_object", RED_OF_BLUE, ["a red heart left of a blue star"]),
        ("swap_attribute", RED_OF_BLUE, ["a blue star left of a red heart"]),
        ("replace_relation", STAR_OF_HEART, [f"a star {r} a heart" for r in ("right of", "above", "below")]),
        ("replace_attribute", SMALL_STAR, ["a large star"]),
        # no two things to swap: size or shape is replaced, and "a small heart" would be true
        ("swap_object", SMALL_STAR, ["a large star", *(f"a small {s}" for s in SHAPES if s not in ("star", "heart"))]),
        (
            "replace_object",
            Count(Description(), 2),
            ["exactly one object", *(f"exactly {n} objects" for n in ("three", "four"))],
        ),
        (
            "swap_object",
            Exactly(
                ((Description("star", "red", "solid"), 1), (Description("heart", "blue", "solid"), 1)),
                (STAR_OF_HEART,),
            ),
            ["a solid red heart and a solid blue star, and the heart is left of the star"],
        ),
    ],
)
def test_edits_by_hand(kind, form, texts):
    scene = Scene((STAR, HEART), 0)
    caption = SceneCaption(realise(form, STYLE), form, "any", STYLE)
    drawn = {write_negatives([caption], scene, [kind], RandomStream("hand", index))[0].text for index in range(60)}
    assert drawn == set(texts)


def test_a_pattern_that_another_object_has_gets_another_number():
    scene = Scene((STAR, small("heart", "blue", 20, "dotted"), small("cross", "green", 44, "striped")), 0)
    caption = SceneCaption("", Count(Description(pattern="solid"), 1), "count", STYLE)
    (negative,) = write_negatives([caption], scene, REPLACE, RandomStream(0))
    assert negative.kind == "replace_number"
    assert not holds(negative.form, scene)


def test_the_data_set_is_the_same_with_negatives_and_keeps_those_of_kept_captions():
    plain, more = (read(None, "val", Options(n=40, negatives=kinds)) for kinds in ((), REPLACE))
    assert plain.fingerprint != more.fingerprint
    for example, with_negatives in zip(plain, more, strict=True):
        assert example.negatives == ()
        assert (example.id, example.captions, example.facets) == (
            with_negatives.id,
            with_negatives.captions,
            with_negatives.facets,
        )
        assert len(with_negatives.negatives) == 5
        assert not set(with_negatives.negatives) & set(with_negatives.captions)
        kept = keep_captions(with_negatives, [3, 1])
        assert kept.negatives == (with_negatives.negatives[3], with_negatives.negatives[1])
    again = read(None, "val", Options(n=5, negatives=REPLACE))
    assert [example.negatives for example in again] == [example.negatives for example in more.examples[:5]]
    assert keep_captions(plain[0], [2]).negatives == ()


def test_negatives_use_the_words_that_captions_use():
    data = read(None, "val", Options(n=300, negatives=KINDS))
    said = {word for e in data for text in e.negatives for word in text.replace(",", "").split()}
    assert said <= set(data.word_tags)


def test_pairs_of_some_edits_are_those_among_all():
    everything = read(None, "test", Options(kind="pairs", n=24))
    for edit in ("swap", "replace"):
        some = read(None, "test", Options(kind="pairs", n=12, edits=(edit,)))
        assert [(e.id, e.captions) for e in some] == [(e.id, e.captions) for e in everything if e.tags["edit"] == edit]
        assert some.fingerprint != everything.fingerprint
    turned = read(None, "test", Options(kind="pairs", n=24, edits=("swap", "replace")))
    assert turned.fingerprint == everything.fingerprint
    assert [e.id for e in turned] == [e.id for e in everything]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "single", "negatives": ["swap_object"]}, "negatives are written for kind = 'scenes'"),
        ({"edits": ["swap"]}, "edits belong to kind = 'pairs'"),
    ],
)
def test_options_without_a_use_are_refused(values, said):
    with pytest.raises(ValueError, match=said):
        Options.model_validate(values)


def test_options_that_change_nothing_enter_no_hash():
    assert Options().model_dump(mode="json") == {"kind": "scenes", "n": None, "label": "shape"}
    assert Options(negatives=SWAP).model_dump(mode="json")["negatives"] == list(SWAP)
    assert Options(kind="pairs", edits=("swap",)).model_dump(mode="json")["edits"] == ["swap"]
