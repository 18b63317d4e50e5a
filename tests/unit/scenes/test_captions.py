import re
from collections import Counter

import pytest

from sparc_bench.scenes.captions import KINDS, LONGEST, realise, write_captions
from sparc_bench.scenes.generate import draw_scene
from sparc_bench.scenes.logical_forms import All, Count, Description, Exactly, Exists, Related, holds
from sparc_bench.scenes.random_stream import RandomStream
from sparc_bench.scenes.words import Style, word_tags
from sparc_bench.scenes.world import COLOURS, COLUMNS, PATTERNS, ROWS, SHAPES, SIZES

SCENES = [draw_scene(RandomStream("captions", index), "val") for index in range(400)]
CAPTIONS = [write_captions(scene, RandomStream("said", index)) for index, scene in enumerate(SCENES)]
TEXTS = [caption.text for captions in CAPTIONS for caption in captions]


def test_every_caption_is_true_of_its_scene_and_one_of_each_kind():
    for scene, captions in zip(SCENES, CAPTIONS, strict=True):
        assert tuple(caption.kind for caption in captions) == KINDS
        assert all(holds(caption.form, scene) for caption in captions)


def test_kinds_have_their_forms():
    for scene, (attribute, count, relation, inventory, full) in zip(SCENES, CAPTIONS, strict=True):
        assert isinstance(attribute.form, Exists)
        said = attribute.form.what
        assert said.shape is not None
        assert [said.colour, said.pattern, said.size, said.row or said.column].count(None) == 3
        assert isinstance(count.form, Count)
        assert count.form.number >= 1
        if len(scene.objects) == 1:
            assert isinstance(relation.form, Exists | Exactly)
        assert isinstance(inventory.form, Exactly)
        assert inventory.form.relations == ()
        assert isinstance(full.form, Exactly)
        assert all(what.shape and what.colour and what.pattern for what, _ in full.form.groups)
        if len(scene.objects) > 1 and isinstance(relation.form, Related):
            assert len(full.form.relations) in (0, 1, 2)


def test_nearly_every_scene_of_several_objects_has_its_relations():
    several = [captions for scene, captions in zip(SCENES, CAPTIONS, strict=True) if len(scene.objects) > 1]
    assert sum(isinstance(captions[2].form, Related) for captions in several) > 0.98 * len(several)
    assert sum(bool(captions[4].form.relations) for captions in several) > 0.95 * len(several)


def test_groups_exclude_each_other_and_cover_the_scene():
    for scene, captions in zip(SCENES, CAPTIONS, strict=True):
        for caption in captions:
            if isinstance(caption.form, Exactly):
                fitting = [[what.fits(object_) for what, _ in caption.form.groups] for object_ in scene.objects]
                assert all(sum(row) == 1 for row in fitting)


def test_related_things_in_a_full_description_are_unambiguous():
    for scene, captions in zip(SCENES, CAPTIONS, strict=True):
        for claim in captions[4].form.relations:
            for what in (claim.subject, claim.other):
                assert sum(what.fits(object_) for object_ in scene.objects) == 1


def test_english():
    for text in TEXTS:
        assert re.fullmatch(r"[a-z]+(,? [a-z]+)*", text), text
        for article, word in re.findall(r"\b(an?) ([a-z]+)", text):
            assert (article == "an") == (word[0] in "aeiou"), text
        nouns = "object|shape|thing|" + "|".join(SHAPES)
        adjectives = "small|little|large|big|solid|plain|striped|dotted|spotted|" + "|".join(COLOURS)
        for number, noun in re.findall(
            rf"\b(an?|one|two|three|four) (?:(?:{adjectives}) )*({nouns}|crosses|\w+s)\b", text
        ):
            assert noun.endswith("s") and noun != "crosss" if number in ("two", "three", "four") else noun in nouns, (
                text
            )
        assert "crosss" not in text


def test_lengths_vary():
    lengths = [len(text.split()) for text in TEXTS]
    assert min(lengths) <= 3
    assert 26 <= max(lengths) <= LONGEST
    assert len(set(lengths)) > 20


def test_every_word_has_its_part_of_speech():
    tags = word_tags()
    said = Counter(word for text in TEXTS for word in text.replace(",", "").split())
    assert set(said) <= set(tags)
    assert set(tags.values()) == {"NOUN", "ADJ", "OTHER"}
    assert all(tags[word] == "NOUN" for word in (*SHAPES, "crosses", "object", "left"))
    assert all(tags[word] == "ADJ" for word in (*COLOURS, "striped", "big"))
    assert tags["above"] == tags["two"] == tags["is"] == "OTHER"


def test_words_of_every_form_in_every_style_are_covered():
    tags = word_tags()
    whats = [
        Description("cross", colour, pattern, size)
        for colour, pattern, size in zip(COLOURS, PATTERNS * 2, SIZES * 3, strict=True)
    ]
    whats += [Description(row=row, column=column) for row in (None, *ROWS) for column in (None, *COLUMNS)]
    whats += [Description(shape) for shape in SHAPES]
    said = set()
    for number in range(60):
        style = Style(number, number % 3, number % 2, number % 3, number % 3, number % 2)
        for what in whats:
            claims = [Related(what, relation, what) for relation in ("left of", "right of", "above", "below")]
            forms = [Exists(what), *(Count(what, k) for k in range(5)), *claims, All((Exists(what), Exists(what)))]
            forms += [Exactly(((what, 1), (Description("star"), 2)), tuple(claims[:relations])) for relations in (0, 1)]
            said.update(word for form in forms for word in realise(form, style).replace(",", "").split())
    assert said == set(tags)


def test_captions_are_paraphrased():
    form = Exists(Description("circle", "red"))
    texts = {realise(form, Style.draw(RandomStream("style", index))) for index in range(100)}
    assert len(texts) >= 5
    claim = Related(Description("circle"), "left of", Description("star"))
    assert len({realise(claim, Style.draw(RandomStream("style", index))) for index in range(200)}) >= 12


@pytest.mark.parametrize(
    ("form", "style", "text"),
    [
        (Exists(Description("star", "orange")), Style(0, 0, 0, 0, 0, 0), "an orange star"),
        (Count(Description("cross"), 2), Style(1, 0, 0, 0, 0, 0), "there are exactly two crosses"),
        (Count(Description(pattern="dotted"), 1), Style(3, 2, 0, 2, 0, 0), "the number of things with dots is one"),
        (
            Related(Description("heart", row="top"), "below", Description("star", "blue")),
            Style(1, 0, 0, 0, 1, 0),
            "a heart at the top is under a blue star",
        ),
        (
            Exactly(((Description("circle", "red", "solid"), 2), (Description("star", "blue", "striped"), 1))),
            Style(0, 0, 0, 1, 0, 0),
            "two plain red circles and a striped blue star and nothing else",
        ),
        (
            Exactly(
                ((Description("star"), 1), (Description("heart"), 1), (Description("cross"), 1)),
                (Related(Description("star"), "left of", Description("cross")),),
            ),
            Style(1, 0, 0, 0, 1, 0),
            "a star, a heart and a cross, where the star is to the left of the cross",
        ),
        (
            All((Exists(Description("star")), Exists(Description("heart")))),
            Style(1, 0, 0, 0, 0, 0),
            "there is a star and a heart",
        ),
    ],
)
def test_sentences_by_hand(form, style, text):
    assert realise(form, style) == text
