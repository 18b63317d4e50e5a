from dataclasses import replace

import numpy as np
import pytest

from sparc_bench.blocks.predicted import outcome_from, outcome_of
from sparc_bench.dataset import Example
from sparc_bench.errors import UserError
from sparc_bench.outputs.similarity import Similarity
from sparc_bench.protocols import caption_choice
from sparc_bench.protocols.caption_choice import OUTPUTS, Options
from tests.toys.encoders import LookupEncoder, constant_encoder, item, random_encoder, split_of

OPTIONS = Options(ties="lose", group_by="group", exclude=(), min_count=1, group_metrics=True, text_only=False)


def example(name, image, group, captions, negatives):
    return Example(id=name, image=item(image), captions=captions, negatives=negatives, tags={"group": group})


DATA = split_of(
    [
        example("swap/0", "cat", "swap", ("a cat",), ("a dog",)),
        example("swap/1", "dog", "swap", ("a dog",), ("a cat",)),
        example("add/0", "cat", "add", ("a cat",), ("a cat and a dog",)),
        example("add/1", "cat", "add", ("a pet",), ("a dog",)),
        example("add/2", "dog", "add", ("a dog",), ("a cat and a dog",)),
    ]
)
TEXTS = ("a cat", "a dog", "a pet", "a cat and a dog")
SCORES = {"cat": [5, 2, 2, 4], "dog": [3, 3, 1, 1]}


def scored():
    return LookupEncoder(SCORES.__getitem__, dict(zip(TEXTS, np.eye(4), strict=True)).__getitem__)


def values(outcome):
    return {name: statistic.value for name, statistic in outcome.metrics.items()}


def test_worked_by_hand_with_several_items_of_a_photo():
    # swap/1 is a tie at 3, add/1 one at 2
    encoder = scored()
    outcome = outcome_of(caption_choice, encoder, DATA, OPTIONS)
    assert values(outcome) == pytest.approx({"macro_accuracy": 7 / 12, "accuracy": 3 / 5, "swap": 1 / 2, "add": 2 / 3})
    assert list(outcome.metrics) == ["macro_accuracy", "accuracy", "add", "swap"]
    assert outcome.examples["correct"].tolist() == [1, 0, 1, 0, 1]
    assert (outcome.ties, outcome.counts) == (2, {"images": 2, "items": 5})
    assert {name: table.value for name, table in outcome.groups["group"].items()} == pytest.approx(
        {"add": 2 / 3, "swap": 1 / 2}
    )
    assert encoder.asked == [("images", 2), ("texts", 4)]
    expected = outcome_of(caption_choice, scored(), DATA, OPTIONS.model_copy(update={"ties": "expected"}))
    assert values(expected) == pytest.approx(
        {"macro_accuracy": 19 / 24, "accuracy": 4 / 5, "swap": 3 / 4, "add": 5 / 6}
    )
    assert expected.ties == 2


def test_items_of_a_photo_are_resampled_together():
    outcome = outcome_of(caption_choice, scored(), DATA, OPTIONS)
    np.testing.assert_array_equal(outcome.metrics["accuracy"].count_G, [3, 2, 0, 0, 0])
    only_dog = np.array([[0.0, 1, 0, 0, 0]])
    assert outcome.metrics["accuracy"].values_S(only_dog).tolist() == [0.5]
    assert outcome.metrics["macro_accuracy"].values_S(only_dog).tolist() == [0.5]


def test_parts_of_a_photo_are_images_of_their_own():
    parts = [
        replace(each, window=(0.0, 0.0, 4.0, 4.0) if index == 2 else None) for index, each in enumerate(DATA.examples)
    ]
    encoder = scored()
    outcome = outcome_of(caption_choice, encoder, replace(DATA, examples=tuple(parts)), OPTIONS)
    assert (encoder.asked[0], outcome.counts["images"]) == (("images", 3), 3)
    np.testing.assert_array_equal(outcome.metrics["accuracy"].count_G, [3, 2, 0, 0, 0])


def test_groups_that_the_macro_mean_leaves_out():
    for change in ({"exclude": ("swap",)}, {"min_count": 3}):
        outcome = outcome_of(caption_choice, scored(), DATA, OPTIONS.model_copy(update=change))
        assert values(outcome) == pytest.approx({"macro_accuracy": 2 / 3, "accuracy": 3 / 5, "add": 2 / 3})
        assert list(outcome.groups["group"]) == ["add"]
        assert outcome.notes[0].startswith("The macro mean is over 1 of 2 groups of 'group', without 2 of 5 items")
    with pytest.raises(UserError, match=r"No group of 'group' has 4 items.*change min_count"):
        outcome_of(caption_choice, scored(), DATA, OPTIONS.model_copy(update={"min_count": 4}))


def test_without_groups_there_is_no_macro_mean():
    outcome = outcome_of(caption_choice, scored(), DATA, OPTIONS.model_copy(update={"group_by": ""}))
    assert (values(outcome), outcome.groups, outcome.notes) == (pytest.approx({"accuracy": 3 / 5}), {}, ())


def test_a_constant_encoder():
    lost = outcome_of(caption_choice, constant_encoder(), DATA, OPTIONS)
    assert (values(lost)["macro_accuracy"], lost.ties) == (0, 5)
    shared = outcome_of(caption_choice, constant_encoder(), DATA, OPTIONS.model_copy(update={"ties": "expected"}))
    assert (values(shared)["macro_accuracy"], shared.ties) == (0.5, 5)


def many(items):
    return split_of(
        [
            example(f"i{i}", f"photo {i % 50}", f"g{i % 3}", (f"true {i}", f"also true {i}"), (f"false {i}",))
            for i in range(items)
        ]
    )


def cosine(encoder, first, second):
    def vector(name):
        return encoder.text_vector(name).astype(np.float32)

    return float(vector(first) @ vector(second) / np.linalg.norm(vector(first)) / np.linalg.norm(vector(second)))


@pytest.mark.parametrize("prompt_ensemble", ["embeddings", "scores"])
def test_the_official_rules_in_a_plain_loop(prompt_ensemble):
    data = many(150)
    encoder = replace(random_encoder(), prompt_ensemble=prompt_ensemble)
    image_right, text_right = [], []
    for each in data:
        image = encoder.image_vector(each.image.id).astype(np.float32)
        first, second, false = (float(image @ encoder.text_vector(t)) for t in (*each.captions, *each.negatives))
        image_right.append(first > false and second > false)
        (p1, p2), (n,) = each.captions, each.negatives
        among = cosine(encoder, p1, p2)
        text_right.append(among > cosine(encoder, p1, n) and among > cosine(encoder, p2, n))
    outcome = outcome_of(caption_choice, encoder, data, OPTIONS.model_copy(update={"text_only": True}))
    assert outcome.examples["correct"].tolist() == image_right
    assert outcome.examples["text_only_correct"].tolist() == text_right
    found = values(outcome)
    assert found["accuracy"] == pytest.approx(np.mean(image_right))
    assert found["g1"] == pytest.approx(np.mean(image_right[1::3]))
    assert found["text_only_g1"] == pytest.approx(np.mean(text_right[1::3]))
    assert found["text_only_accuracy"] == pytest.approx(np.mean(text_right))
    assert found["text_only_macro_accuracy"] == pytest.approx(np.mean([np.mean(text_right[g::3]) for g in range(3)]))


def test_a_false_caption_that_is_the_true_one_ties_in_both_tasks():
    twin = replace(many(1).examples[0], negatives=("true 0",))
    options = OPTIONS.model_copy(update={"text_only": True, "ties": "expected"})
    for seed in range(5):
        outcome = outcome_of(caption_choice, random_encoder(seed), split_of([twin]), options)
        # the other true caption is above or below both; cos(p1, p2) = cos(n, p2) < cos(p1, n) = 1
        assert outcome.examples["correct"][0] in (0.0, 0.5)
        assert outcome.examples["text_only_correct"][0] == 0
    assert outcome_of(caption_choice, constant_encoder(), split_of([twin]), options).ties == 2


def test_scores_of_another_system():
    matrix = np.array([SCORES["dog"], SCORES["cat"]], dtype=np.float32)
    file = Similarity("scores.npz", ("dog", "cat"), {text: column for column, text in enumerate(TEXTS)}, matrix, matrix)
    outcome = outcome_from(caption_choice, caption_choice.OUTPUTS["similarity"](file, DATA, OPTIONS), DATA, OPTIONS)
    assert values(outcome) == values(outcome_of(caption_choice, scored(), DATA, OPTIONS))
    with_texts = OPTIONS.model_copy(update={"text_only": True})
    pairs = replace(DATA, examples=(replace(DATA.examples[0], captions=("a cat", "a pet")),))
    outcome = outcome_from(
        caption_choice, caption_choice.OUTPUTS["similarity"](file, pairs, with_texts), pairs, with_texts
    )
    assert "text_only_accuracy" not in outcome.metrics
    assert outcome.notes[-1] == "The text-only task is left out: there are no text vectors to compare."
    few = Similarity("scores.npz", ("dog",), file.column_of, matrix[:1], matrix[:1])
    with pytest.raises(UserError, match=r"lacks 1 of the task's 2 images \(cat\)"):
        OUTPUTS["similarity"](few, DATA, OPTIONS)


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        ({"negatives": ()}, {}, "has 1 captions and 0 negatives"),
        ({"captions": ()}, {}, "has 0 captions and 1 negatives"),
        ({}, {"group_by": "groups"}, "No tag 'groups' to group by: did you mean 'group'"),
        ({}, {"text_only": True}, "has one true caption: set text_only = false"),
    ],
)
def test_other_shapes_are_refused(change, options, sentence):
    data = replace(DATA, examples=(replace(DATA.examples[0], **change), *DATA.examples[1:]))
    with pytest.raises(UserError, match=sentence):
        outcome_of(caption_choice, constant_encoder(), data, OPTIONS.model_copy(update=options))
