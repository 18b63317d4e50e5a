"""Captions that another system gives are scored as those that an encoder retrieves."""

import numpy as np
import pytest

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.cards.binding import bind
from sparc_bench.errors import UserError
from tests.toys.encoders import random_encoder
from tests.unit.outputs.test_similarity import scored, values


@pytest.fixture
def small(task, data_of):
    card = task("faithfulness")
    return card, data_of(card)


def test_equals_the_encoder_that_retrieved_them(small, json_file):
    card, data = small
    bound = bind(card)
    theirs = outcome_of(bound.protocol, random_encoder(), data, bound.options)
    strings = (*data.captions, *data.pool)
    retrieved = {e.id: strings[k] for e, k in zip(data, theirs.examples["retrieved"], strict=True)}
    assert theirs.ties == 0
    ours = scored(card, json_file(retrieved), data)
    assert values(ours) == values(theirs)
    assert ours.counts == theirs.counts
    assert ours.reference_rows == theirs.reference_rows
    for name, array in theirs.examples.items():
        assert np.array_equal(ours.examples[name], array)
    rows = [{"image_id": f"{item_id}.jpg", "caption": text} for item_id, text in retrieved.items()]
    assert values(scored(card, json_file(rows[::-1]), data)) == values(theirs)


def test_captions_of_ones_own_making(small, json_file):
    """Three of four words are the image's own; the pool's reference rows do not move."""
    card, data = small
    words = sorted(data.word_tags)
    own = [{word for caption in example.captions for word in caption.lower().split()} for example in data]
    strange = [next(word for word in words if word not in known) for known in own]
    made = {}
    for example, other in zip(data, strange, strict=True):
        mine = [word for word in example.captions[0].lower().split() if word not in ("a", "an", "the")][:3]
        made[example.id] = " ".join([*mine, other])
    outcome = scored(card, json_file(made), data)
    sizes = [len(text.split()) for text in made.values()]
    assert values(outcome)["k_precision"] == pytest.approx(np.mean([(n - 1) / n for n in sizes]))
    assert values(outcome)["r1"] == 0
    assert outcome.counts["misses"] == len(data)
    bound = bind(card)
    theirs = outcome_of(bound.protocol, random_encoder(), data, bound.options)
    # of the misses rows only those whose own captions do not matter are the same
    for row in ("constant", "random_caption", "human"):
        assert outcome.reference_rows[row]["k_precision"] == pytest.approx(theirs.reference_rows[row]["k_precision"])
    assert outcome.counts["candidates"] == theirs.counts["candidates"]
    assert "precision asks for no length" in outcome.notes[0]


def test_an_own_caption_in_another_spelling_is_no_miss(small, json_file):
    card, data = small
    shouted = {e.id: f"  {e.captions[0].upper()}!! " for e in data}
    outcome = scored(card, json_file(shouted), data)
    assert values(outcome)["r1"] == 1
    assert np.isnan(values(outcome)["k_precision_misses"])
    assert values(outcome)["k_precision"] == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda table: table.popitem(), r"lacks 1 of the task's 12 images"),
        (lambda table: table.update({next(iter(table)): "  "}), "has 1 blank captions, such as that of scenes1"),
        (lambda table: table.update({next(iter(table)): "The, a!"}), "has 1 captions without a word that counts"),
        (lambda table: table.update({next(iter(table)): "a giraffe"}), "has the word 'giraffe', but this task knows"),
        (lambda table: table.update({f"{next(iter(table))}.png": "a circle"}), None),
    ],
)
def test_captions_that_do_not_fit(small, json_file, change, sentence):
    card, data = small
    table = {example.id: example.captions[0] for example in data}
    change(table)
    if sentence is None:  # the exact id is the image's, the other one of an image beyond
        assert "1 images of" in " ".join(scored(card, json_file(table), data).notes)
        return
    with pytest.raises(UserError, match=sentence):
        scored(card, json_file(table), data)


def test_rows_twice_and_rows_that_are_none(small, json_file):
    card, data = small
    rows = [{"image_id": example.id, "caption": example.captions[0]} for example in data]
    with pytest.raises(UserError, match="more than once: keep one entry"):
        scored(card, json_file([*rows, rows[0]]), data)
    with pytest.raises(UserError, match=r"row 1\.caption: .*: mend it"):
        scored(card, json_file([rows[0], {"image_id": "x", "caption": 3}]), data)
