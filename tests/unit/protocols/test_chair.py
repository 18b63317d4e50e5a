from dataclasses import replace

import numpy as np
import pytest

from sparc_bench.blocks.predicted import outcome_from, outcome_of
from sparc_bench.dataset import Example
from sparc_bench.facets import Objects
from sparc_bench.outputs.captions import Captions
from sparc_bench.protocols import chair
from sparc_bench.protocols.chair import OUTPUTS, Options
from tests.toys.encoders import answer_key, caption_key, constant_encoder, item, split_of

OPTIONS = Options(objects="instances_and_captions", ties="expected")
SYNONYMS = {"dog": "dog", "puppy": "dog", "cat": "cat", "car": "car", "man": "person", "person": "person"}
CLASSES = ("person", "car", "cat", "dog")


def data_of(*rows, pool=()):
    examples = [
        Example(
            id=f"i{k}", image=item(f"i{k}"), captions=own, facets=(Objects({name: name in there for name in CLASSES}),)
        )
        for k, (own, there) in enumerate(rows)
    ]
    return split_of(examples, classes=CLASSES, synonyms=SYNONYMS, pool=pool)


def choosing(data, *choices):
    texts = list(dict.fromkeys([*data.captions, *data.pool]))
    truth = np.array([[text in chosen for text in texts] for chosen in choices])
    return answer_key([example.id for example in data.examples], texts, truth)


# image 0 shows a dog and a car, and a caption of it speaks of a man; image 1 shows a cat
DATA = data_of(
    (("A dog.", "A man by a car."), {"dog", "car"}),
    (("A cat.", "Something sits."), {"cat"}),
    pool=("A puppy, a dog and a cat.", "Grass."),
)


def as_chair(values):
    """With CHAIR as it is published, lower being better."""
    return {**values, "chair_i": 1 - values["faithful_objects"], "chair_s": 1 - values["faithful_captions"]}


def found(outcome):
    return as_chair({name: statistic.value for name, statistic in outcome.metrics.items()})


def test_worked_by_hand():
    # image 0: two dogs that are there and a cat that is not; image 1: a man and a car, both not there
    outcome = outcome_of(chair, choosing(DATA, {"A puppy, a dog and a cat."}, {"A man by a car."}), DATA, OPTIONS)
    values = found(outcome)
    assert values["chair_i"] == pytest.approx(3 / 5)
    assert values["chair_s"] == 1
    assert values["faithful_objects"] == pytest.approx(2 / 5)
    assert values["faithful_captions"] == 0
    # of dog and car the dog is named, of cat nothing
    assert values["coverage"] == pytest.approx(1 / 3)
    assert values["r1"] == 0
    assert outcome.notes[0].startswith("CHAIR_i 60.0 %, CHAIR_s 100.0 %: ")
    assert values["faithful_objects_misses"] == values["faithful_objects"]
    assert outcome.counts == {
        "images": 2,
        "captions": 4,
        "candidates": 6,
        "mentions": 5,
        "hallucinated": 3,
        "misses": 2,
    }
    assert outcome.examples["retrieved"].tolist() == [4, 1]
    assert outcome.examples["hallucinated"].tolist() == [1, 2]
    objects = outcome.groups["object"]
    assert {name: statistic.value for name, statistic in objects.items()} == {"person": 0, "car": 0, "cat": 0, "dog": 1}


def test_captions_give_an_image_objects_under_the_official_rule_alone():
    encoder = choosing(DATA, {"A man by a car."}, {"A cat."})
    assert found(outcome_of(chair, encoder, DATA, OPTIONS))["chair_i"] == 0
    instances = outcome_of(chair, encoder, DATA, OPTIONS.model_copy(update={"objects": "instances"}))
    assert found(instances)["chair_i"] == pytest.approx(1 / 3)
    assert found(instances)["chair_s"] == pytest.approx(1 / 2)


def test_tied_candidates_share_the_credit():
    # image 0: "A dog." or "A cat.", so half a caption and half a mention go wrong; image 1 is right
    outcome = outcome_of(chair, choosing(DATA, {"A dog.", "A cat."}, {"A cat."}), DATA, OPTIONS)
    assert outcome.ties == 1
    assert found(outcome)["chair_i"] == pytest.approx(0.5 / 2)
    assert found(outcome)["chair_s"] == pytest.approx(0.5 / 2)
    assert found(outcome)["r1"] == pytest.approx(0.75)
    # the hit at half weight has no part in the misses
    assert found(outcome)["faithful_objects_misses"] == 0


def test_a_caption_that_names_nothing_is_faithful_and_covers_nothing():
    outcome = outcome_of(chair, choosing(DATA, {"Grass."}, {"Grass."}), DATA, OPTIONS)
    values = found(outcome)
    assert (values["chair_s"], values["coverage"], values["faithful_captions"]) == (0, 0, 1)
    assert np.isnan(values["chair_i"])
    assert outcome.notes[0].startswith("CHAIR_i -, CHAIR_s 0.0 %")


def test_equal_scores_are_the_random_caption():
    outcome = outcome_of(chair, constant_encoder(), DATA, OPTIONS)
    assert outcome.ties == 2
    for name, value in outcome.reference_rows["random_caption"].items():
        assert found(outcome)[name] == pytest.approx(value), name
    # of the six candidates each image's wrong mentions: image 0 one (in two captions), image 1 one, two and two
    assert found(outcome)["chair_i"] == pytest.approx((2 + 1 + 2 + 2) / (7 + 7))
    assert found(outcome)["chair_s"] == pytest.approx((2 + 3) / 12)


def test_constant_is_chosen_on_one_half_and_scored_on_the_other():
    data = data_of(
        (("A dog.",), {"dog"}), (("A cat.",), {"cat"}), (("A dog here.",), {"dog"}), (("A cat here.",), {"cat"})
    )
    row = as_chair(outcome_of(chair, constant_encoder(), data, OPTIONS).reference_rows["constant"])
    # images 0 and 2 prefer a dog, 1 and 3 a cat: each is wrong on the other half
    assert row["faithful_objects"] == 0
    assert row["chair_s"] == 1


def test_human_row_leaves_the_judged_caption_out():
    row = as_chair(outcome_of(chair, caption_key(DATA), DATA, OPTIONS).reference_rows["human"])
    # image 0: the man is in no other caption and not annotated; per image one mention, and 3/2
    assert row["chair_i"] == pytest.approx(0.5 / (1.5 + 0.5))
    assert row["chair_s"] == pytest.approx(0.5 / 2)
    assert row["coverage"] == pytest.approx((1 + 0.5) / 3)


def test_captions_of_another_system():
    given = Captions("captions.json", ("i1", "i0"), ("a cat", "A puppy beside a car and a cat"))
    outcome = outcome_from(chair, OUTPUTS["captions"](given, DATA, OPTIONS), DATA, OPTIONS)
    values = found(outcome)
    assert values["chair_i"] == pytest.approx(1 / 4)
    # "a cat" has the words of the image's own caption
    assert values["r1"] == pytest.approx(1 / 2)
    assert outcome.counts["candidates"] == 6
    assert outcome.examples["retrieved"].tolist() == [6, 2]


def test_objects_without_a_word_of_the_list_are_no_mentions():
    data = replace(DATA, classes=("dog",), synonyms=SYNONYMS)
    assert outcome_of(chair, choosing(data, {"A cat."}, {"A cat."}), data, OPTIONS).counts["mentions"] == 0
