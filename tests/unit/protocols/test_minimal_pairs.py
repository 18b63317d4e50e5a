from dataclasses import replace

import numpy as np
import pytest

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.dataset import Example
from sparc_bench.errors import UserError
from sparc_bench.protocols import minimal_pairs
from sparc_bench.protocols.minimal_pairs import Options
from tests.toys.encoders import LookupEncoder, caption_key, constant_encoder, item, split_of

OPTIONS = Options(ties="lose", group_by=("edit", "edit+of"))


def example(name, caption, group, of="object"):
    return Example(id=name, image=item(name), captions=(caption,), group=group, tags={"edit": "swap", "of": of})


DATA = split_of(
    [
        example("a0", "a zero", "a"),
        example("b0", "b zero", "b", of="relation"),
        example("a1", "a one", "a"),
        example("b1", "b one", "b", of="relation"),
    ]
)


def scored(table):
    """An encoder whose scores of image and text are the table's."""
    texts = [example.captions[0] for example in DATA.examples]
    return LookupEncoder(table.__getitem__, dict(zip(texts, np.eye(4), strict=True)).__getitem__)


def test_worked_by_hand_where_members_do_not_stand_together():
    # columns: "a zero", "b zero", "a one", "b one"
    encoder = scored({"a0": [2, 9, 1, 9], "a1": [1, 9, 2, 9], "b0": [9, 2, 9, 1], "b1": [9, 3, 9, 4]})
    outcome = outcome_of(minimal_pairs, encoder, DATA, OPTIONS)
    # group b: each image finds its caption, but "b zero" scores higher with image b1
    assert {name: statistic.value for name, statistic in outcome.metrics.items()} == {
        "text_score": 1,
        "image_score": 0.5,
        "group_score": 0.5,
    }
    assert outcome.examples["correct"].tolist() == [1, 0, 1, 1]
    assert {name: s.value for name, s in outcome.groups["edit+of"].items()} == {"swap object": 1, "swap relation": 0}
    assert outcome.groups["edit"]["swap"].value == 0.5
    assert outcome.counts == {"images": 4, "groups": 2}
    np.testing.assert_array_equal(outcome.metrics["group_score"].count_G, [1, 1, 0, 0])


def test_both_tie_rules():
    lost = outcome_of(minimal_pairs, constant_encoder(), DATA, OPTIONS)
    assert [statistic.value for statistic in lost.metrics.values()] == [0, 0, 0]
    assert lost.reference_rows["constant"] == {"text_score": 0, "image_score": 0, "group_score": 0}
    shared = outcome_of(minimal_pairs, constant_encoder(), DATA, OPTIONS.model_copy(update={"ties": "expected"}))
    assert [s.value for s in shared.metrics.values()] == pytest.approx([1 / 4, 1 / 4, 1 / 6])
    assert shared.ties == lost.ties == 2
    assert shared.examples["correct"] == pytest.approx(np.full(4, 1 / 3))


@pytest.mark.parametrize(
    ("examples", "sentence"),
    [
        (DATA.examples[:3], "Group 'b' has 1 examples"),
        ((replace(DATA.examples[0], captions=("x", "y")),), "2 captions"),
        ((replace(DATA.examples[0], group=None),), "group None"),
    ],
)
def test_other_shapes_are_refused(examples, sentence):
    with pytest.raises(UserError, match=sentence):
        outcome_of(minimal_pairs, constant_encoder(), replace(DATA, examples=tuple(examples)), OPTIONS)


def test_an_unknown_tag_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'edit'"):
        outcome_of(minimal_pairs, caption_key(DATA), DATA, OPTIONS.model_copy(update={"group_by": ("edits",)}))
