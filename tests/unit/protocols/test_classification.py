from dataclasses import replace

import numpy as np
import pytest

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.dataset import Example
from sparc_bench.protocols import classification
from sparc_bench.protocols.classification import Options
from tests.toys.encoders import LookupEncoder, answer_key, constant_encoder, item, split_of

CLASSES = ("cat", "dog", "hen")
OPTIONS = Options(prompts="bare", classes="own", top_k=(1, 2), ties="expected")


def data_of(labels, classes=CLASSES):
    examples = [Example(id=f"i{i}", image=item(f"i{i}"), label=label) for i, label in enumerate(labels)]
    return split_of(examples, classes=classes)


def test_worked_by_hand():
    data = data_of([0, 0, 0, 2])
    said = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    outcome = outcome_of(classification, answer_key([e.id for e in data.examples], CLASSES, said), data, OPTIONS)
    assert outcome.metrics["top1"].value == 3 / 4
    # the third image's class ties with one other for the second place
    assert outcome.metrics["top2"].value == pytest.approx(3.5 / 4)
    assert outcome.metrics["mean_per_class"].value == pytest.approx((2 / 3 + 1) / 2)
    assert outcome.groups["class"]["cat"].value == pytest.approx(2 / 3)
    assert set(outcome.groups["class"]) == {"cat", "hen"}
    assert outcome.examples["predicted"].tolist() == [0, 0, 1, 2]
    assert outcome.examples["correct"].tolist() == [1, 1, 0, 1]
    assert outcome.ties == 1
    assert outcome.reference_rows["constant"] == {"top1": 0.75, "top2": 1.0, "mean_per_class": 0.5}


def test_k_that_reaches_the_classes_is_left_out():
    outcome = outcome_of(classification, constant_encoder(), data_of([0, 1, 2]), replace_k((1, 3, 5)))
    assert set(outcome.metrics) == {"top1", "mean_per_class"}
    assert any("top5 is left out" in note for note in outcome.notes)


def replace_k(top_k):
    return OPTIONS.model_copy(update={"top_k": top_k})


def test_duplicate_class_names_share_the_credit():
    data = data_of([0, 1, 2], classes=("cat", "cat", "hen"))
    vectors = {"cat": np.array([1.0, 0.0]), "hen": np.array([0.0, 1.0])}
    images = {"i0": vectors["cat"], "i1": vectors["cat"], "i2": vectors["hen"]}
    outcome = outcome_of(classification, LookupEncoder(images.__getitem__, vectors.__getitem__), data, OPTIONS)
    assert outcome.examples["correct"].tolist() == [0.5, 0.5, 1]
    assert outcome.ties == 2
    assert any("1 class words repeat" in note for note in outcome.notes)


def test_prompts_are_averaged_as_the_model_says():
    data = data_of([0, 1])
    key = answer_key(["i0", "i1"], CLASSES, np.eye(3)[:2])
    prompted = replace(key, text_vector=lambda text: key.text_vector(text.removesuffix(".").rpartition("a ")[2]))
    options = OPTIONS.model_copy(update={"prompts": "a_photo_of_a"})
    assert outcome_of(classification, prompted, data, options).metrics["top1"].value == 1


def test_an_example_without_a_label_is_the_readers_mistake():
    with pytest.raises(RuntimeError, match="1 has no label"):
        outcome_of(classification, constant_encoder(), data_of([0, None]), OPTIONS)
