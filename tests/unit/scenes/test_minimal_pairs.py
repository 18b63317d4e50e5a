from collections import Counter

import numpy as np
import pytest

from sparc_bench.scenes.generate import acceptable, split_of
from sparc_bench.scenes.logical_forms import holds
from sparc_bench.scenes.minimal_pairs import EDITS, draw_pair
from sparc_bench.scenes.random_stream import RandomStream
from sparc_bench.scenes.render import render_array

PAIRS = [draw_pair(RandomStream("pairs", index), index, "test") for index in range(120)]


def test_each_caption_is_true_of_its_own_image_alone():
    for pair in PAIRS:
        for i, caption in enumerate(pair.captions):
            assert [holds(caption.form, scene) for scene in pair.scenes] == [i == 0, i == 1]


def test_types_are_balanced():
    assert set(Counter((pair.edit, pair.of) for pair in PAIRS).values()) == {len(PAIRS) // len(EDITS)}
    assert len(EDITS) == 6


def changes(pair):
    """For every object that differs the fields that do."""
    found = []
    for a, b in zip(pair.scenes[0].objects, pair.scenes[1].objects, strict=True):
        if a != b:
            found.append({field for field in a._fields if getattr(a, field) != getattr(b, field)})
    return found


def test_nothing_else_changes():
    for pair in PAIRS:
        assert pair.scenes[0].background == pair.scenes[1].background
        changed = changes(pair)
        fields = set.union(*changed)
        assert len(changed) == (1 if pair.edit == "replace" else 2)
        if pair.of == "object":
            assert fields == {"shape"}
        elif pair.of == "attribute":
            assert fields in ({"colour"}, {"pattern"})
        else:
            assert fields <= {"left", "top"}


def test_swaps_exchange_values():
    for pair in PAIRS:
        if pair.edit == "swap" and pair.of != "relation":
            (field,) = set.union(*changes(pair))
            before, after = ([getattr(o, field) for o in scene.objects] for scene in pair.scenes)
            assert sorted(before) == sorted(after)
            assert before != after


def test_images_differ_in_the_edited_places_alone():
    for pair in PAIRS[:60]:
        differs = (render_array(pair.scenes[0]) != render_array(pair.scenes[1])).any(-1)
        near = np.zeros_like(differs)
        for scene, other in (pair.scenes, pair.scenes[::-1]):
            for a, b in zip(scene.objects, other.objects, strict=True):
                if a != b:
                    near[a.top : a.top + a.extent, a.left : a.left + a.extent] = True
        assert differs.any()
        assert not (differs & ~near).any()


def test_captions_are_the_same_sentence_but_for_the_edit():
    for pair in PAIRS:
        first, second = (caption.text.split() for caption in pair.captions)
        assert first != second
        plain = [[word for word in words if word not in ("a", "an")] for words in (first, second)]
        if pair.edit == "swap":
            assert sorted(plain[0]) == sorted(plain[1])
        elif pair.of == "object":
            assert sum(a != b for a, b in zip(*plain, strict=True)) == 1


def test_scenes_are_good_ones_of_their_split():
    for pair in PAIRS:
        assert all(acceptable(scene) and split_of(scene) == "test" for scene in pair.scenes)


@pytest.mark.parametrize("of", ["object", "attribute", "relation"])
def test_both_ways_of_saying_it_occur(of):
    forms = {type(pair.captions[0].form).__name__ for pair in PAIRS if pair.of == of}
    assert forms == ({"Related"} if of == "relation" else {"Exists", "Related", "All"})
