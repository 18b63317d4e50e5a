from itertools import product

import numpy as np
import pytest

from sparc_bench.scenes.captions import write_captions
from sparc_bench.scenes.generate import draw_scene
from sparc_bench.scenes.logical_forms import All, Count, Description, Exactly, Exists, Related, holds
from sparc_bench.scenes.random_stream import RandomStream
from sparc_bench.scenes.scene import Object, Scene, relations
from sparc_bench.scenes.truth import truth_matrix
from sparc_bench.scenes.world import COLOURS, RELATIONS, SHAPES


def thing(shape, colour, left, top, pattern="solid", size="small", extent=14):
    return Object(shape, colour, pattern, size, left, top, extent)


# a red circle left, a blue square right of it at the same height, a red star far below the square
SCENE = Scene((thing("circle", "red", 2, 4), thing("square", "blue", 40, 4), thing("star", "red", 40, 48, "dotted")), 0)
RED, CIRCLE, STAR = Description(colour="red"), Description("circle"), Description("star")
SQUARE = Description("square", "blue")


@pytest.mark.parametrize(
    ("form", "true"),
    [
        (Exists(Description("circle", "red")), True),
        (Exists(Description("circle", "blue")), False),
        (Exists(Description("star", pattern="dotted", row="bottom", column="right")), True),
        (Exists(Description("star", row="top")), False),
        (Exists(Description()), True),
        (Count(RED, 2), True),
        (Count(RED, 1), False),
        (Count(RED, 3), False),
        (Count(Description(), 3), True),
        (Count(Description("heart"), 0), True),
        (Count(Description("star"), 0), False),
        (Related(CIRCLE, "left of", SQUARE), True),
        (Related(SQUARE, "right of", CIRCLE), True),
        (Related(CIRCLE, "right of", SQUARE), False),
        (Related(CIRCLE, "above", SQUARE), False),
        (Related(SQUARE, "above", STAR), True),
        (Related(RED, "left of", RED), True),
        (Related(RED, "left of", CIRCLE), False),
        (Exactly(((CIRCLE, 1), (STAR, 1), (SQUARE, 1))), True),
        (Exactly(((RED, 2), (SQUARE, 1))), True),
        (Exactly(((RED, 2),)), False),
        (Exactly(((CIRCLE, 1), (SQUARE, 1))), False),
        (Exactly(((RED, 2), (SQUARE, 1)), (Related(STAR, "below", SQUARE),)), True),
        (Exactly(((RED, 2), (SQUARE, 1)), (Related(STAR, "above", SQUARE),)), False),
        (All((Exists(CIRCLE), Exists(STAR))), True),
        (All((Exists(CIRCLE), Exists(Description("heart")))), False),
    ],
)
def test_truth_by_hand(form, true):
    assert holds(form, SCENE) is true
    assert truth_matrix([form], [SCENE]).tolist() == [[true]]


@pytest.mark.parametrize(
    ("right", "down", "found"),
    [
        (10, 0, ["left of"]),
        (9, 0, []),
        (-10, 0, ["right of"]),
        (0, 30, ["above"]),
        (0, -30, ["below"]),
        (20, 20, ["left of", "above"]),
        (20, 40, ["left of", "above"]),
        (19, 40, ["above"]),
        (-40, -19, ["right of"]),
    ],
)
def test_relations_need_a_margin_and_a_direction(right, down, found):
    assert relations(thing("circle", "red", 0, 0), thing("star", "blue", right, down)) == found


def test_relations_go_by_centres_of_any_size():
    small, large = thing("circle", "red", 0, 0, extent=14), thing("star", "blue", 4, 0, size="large", extent=25)
    # centres 7 and 16.5: half a pixel short of the margin
    assert relations(small, large) == []
    assert relations(small, large._replace(left=5)) == ["left of"]


CONVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def test_every_relation_has_its_converse_and_never_both():
    for index in range(100):
        objects = draw_scene(RandomStream("converse", index), "test").objects
        for a, b in product(objects, objects):
            assert sorted(CONVERSE[name] for name in relations(a, b)) == sorted(relations(b, a))
            assert not {"left of", "right of"} <= set(relations(a, b))
            assert not {"above", "below"} <= set(relations(a, b))


def test_places_leave_gaps():
    places = [thing("circle", "red", left, 1).column for left in range(1, 50)]
    # centres 8 to 56: left up to 24, middle 27 to 37, right from 40
    assert places == ["left"] * 17 + [None] * 2 + ["middle"] * 11 + [None] * 2 + ["right"] * 17


def random_forms(stream, count):
    def describe():
        return Description(
            *(stream.choice((None, *values)) for values in (SHAPES[:3], COLOURS[:3], ("solid", "striped"))),
            row=stream.choice((None, None, "top", "bottom")),
        )

    forms = []
    for _ in range(count):
        claim = Related(describe(), stream.choice(RELATIONS), describe())
        group = (describe(), 1 + stream.below(2)), (describe(), stream.below(3))
        forms.append(
            stream.choice(
                (
                    Exists(describe()),
                    Count(describe(), stream.below(4)),
                    claim,
                    Exactly(group),
                    Exactly(group[:1], (claim,)),
                )
            )
        )
        if stream.chance(1, 4):
            forms.append(All((forms[-1], Exists(describe()), claim)))
    return forms


def test_the_matrix_equals_holds_on_every_pair():
    scenes = [draw_scene(RandomStream("matrix", index), "train") for index in range(40)]
    forms = [caption.form for scene in scenes for caption in write_captions(scene, RandomStream(scene.background))]
    forms += random_forms(RandomStream("forms"), 400)
    expected = np.array([[holds(form, scene) for form in forms] for scene in scenes])
    assert 0.02 < expected.mean() < 0.5
    matrix = truth_matrix(forms, scenes)
    assert matrix.dtype == bool
    assert (matrix == expected).all()


def test_the_matrix_in_chunks_and_with_nothing_in_it(monkeypatch):
    scenes = [draw_scene(RandomStream("chunks", index), "train") for index in range(7)]
    forms = random_forms(RandomStream("chunked"), 50)
    whole = truth_matrix(forms, scenes)
    monkeypatch.setattr("sparc_bench.scenes.truth._CHUNK", 3)
    assert (truth_matrix(forms, scenes) == whole).all()
    assert truth_matrix([], scenes).shape == (7, 0)
    assert truth_matrix(forms, []).shape == (0, len(forms))
