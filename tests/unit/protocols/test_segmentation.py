from dataclasses import replace

import numpy as np
import pytest
import torch

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.cards.card import parse
from sparc_bench.dataset import Example
from sparc_bench.datasets import voc_segmentation
from sparc_bench.errors import UserError
from sparc_bench.metrics.iou import best_constant
from sparc_bench.metrics.region_weights import class_fractions
from sparc_bench.models.finite_encoder import FiniteEncoder
from sparc_bench.protocol import Block, Predictions
from sparc_bench.protocols import segmentation
from tests.toys.encoders import LookupEncoder, item, split_of

OPTIONS = {
    "prompts": "bare",
    "classes": "own",
    "background": "ignore",
    "background_words": (),
    "background_score": "none",
    "upsample": "nearest",
}
TEXTS = {"cat": [1, 0, 0], "dog": [0, 1, 0], "nothing": [0, 0, 1]}
PATCHES = [[3, 1, 0], [1, 2, 0], [2, 2, 1], [0, 0, 1]]
"""Four patches over 2 x 2 cells: cat, dog, a tie of both, neither."""
TRUTH = np.array([[0, 0, 1, 1], [0, 0, 0, 1], [1, 0, -1, -1], [0, 1, -2, -1]])


def options(**changes):
    return segmentation.Options(**{**OPTIONS, **changes})


def encoder(area=(0.0, 0.0, 4.0, 4.0), patches=PATCHES, names=("local",), **about):
    model = LookupEncoder(
        lambda _: np.zeros(3),
        lambda text: np.array(TEXTS[text]),
        patch_vectors=lambda _path, _id: np.array(patches),
        grid=(2, 2),
        size=4,
        paths=dict.fromkeys(names, True),
        **about,
    )
    model.preprocess = lambda _item, _size=None: (torch.zeros(3, 4, 4), area)
    return model


def split(truth=TRUTH):
    return split_of([Example(id="a", image=item("a"), semantic=lambda: truth)], classes=("cat", "dog"))


def test_background_ignored_worked_by_hand():
    outcome = outcome_of(segmentation, encoder(), split(), options())
    # cell 0: 4 cats right; cell 1: 3 dogs right, 1 cat as dog; cell 2: 2 cats and 2 dogs, each half right
    cat, dog = 5 / (7 + 6 - 5), 4 / (5 + 6 - 4)
    assert outcome.metrics["local/miou"].value == pytest.approx((cat + dog) / 2)
    assert outcome.metrics["local/pixel_accuracy"].value == pytest.approx(9 / 12)
    assert outcome.metrics["local/image_miou"].value == pytest.approx((cat + dog) / 2)
    assert {name: s.value for name, s in outcome.groups["class"].items()} == pytest.approx({"cat": cat, "dog": dog})
    assert outcome.ties == 4
    assert outcome.counts["pixels"] == 12
    assert outcome.reference_rows["constant"]["local/miou"] == pytest.approx(7 / 12 / 2)


def test_background_by_words_worked_by_hand():
    outcome = outcome_of(segmentation, encoder(), split(), options(background="class", background_words=("nothing",)))
    groups = {name: s.value for name, s in outcome.groups["class"].items()}
    # the fourth cell is background: its 3 background pixels are right, its void pixel is nobody's
    assert groups == pytest.approx({"cat": 5 / 8, "dog": 4 / 7, "background": 1.0})
    assert outcome.counts["pixels"] == 15
    assert outcome.counts["classes"] == 3


def test_background_by_a_score_worked_by_hand():
    outcome = outcome_of(segmentation, encoder(), split(), options(background="class", background_score=2.0))
    groups = {name: s.value for name, s in outcome.groups["class"].items()}
    # cell 1 ties dog with background, cell 2 ties all three
    cat, dog = 4 + 2 / 3, 3 / 2 + 2 / 3
    assert groups["cat"] == pytest.approx(cat / (7 + 4 + 4 / 3 - cat))
    assert groups["dog"] == pytest.approx(dog / (5 + 2 + 4 / 3 - dog))
    assert groups["background"] == pytest.approx(3 / (3 + 2 + 4 / 3 + 3 - 3))
    assert outcome.ties == 8


def test_several_background_words_count_as_their_best():
    one = outcome_of(segmentation, encoder(), split(), options(background="class", background_words=("nothing",)))
    two = outcome_of(
        segmentation, encoder(), split(), options(background="class", background_words=("nothing", "nothing"))
    )
    assert two.metrics["local/miou"].value == one.metrics["local/miou"].value


def test_pixels_outside_the_area_have_no_prediction():
    outcome = outcome_of(
        segmentation, encoder(area=(0.0, 0.0, 4.0, 2.0)), split(np.zeros((4, 4), dtype=int)), options()
    )
    assert outcome.counts["uncovered_pixels"] == 8
    # the area holds row 0 of the grid in image row 0 (2 cats, 2 dogs), row 1 in image row 1 (2 halves; 2 halves)
    assert outcome.metrics["local/pixel_accuracy"].value == pytest.approx((2 + 1 + 1) / 16)
    assert any("count as wrong" in note for note in outcome.notes)
    # the oracle sees no more than the model
    assert outcome.reference_rows["oracle"]["local/pixel_accuracy"] == 0.5


def test_bilinear_scores_cross_between_cell_centres():
    patches = [[1, 0, 0], [0, 0.9, 0], [1, 0, 0], [0, 2.9, 0]]
    found = outcome_of(
        segmentation, encoder(patches=patches), split(np.zeros((4, 4), dtype=int)), options(upsample="bilinear")
    )
    scores = torch.nn.functional.interpolate(
        torch.tensor(patches).T[:2].reshape(1, 2, 2, 2).float(), size=(4, 4), mode="bilinear"
    )[0]
    assert found.metrics["local/pixel_accuracy"].value == pytest.approx(float((scores[0] > scores[1]).float().mean()))


def test_a_model_that_averages_scores_is_scored_as_such():
    as_scores = encoder(prompt_ensemble="scores")
    assert outcome_of(segmentation, as_scores, split(), options()).ties == 4


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"background_words": ("sky",)}, "ignore"),
        ({"background": "class"}, "either background_words or"),
        ({"background": "class", "background_words": ("sky",), "background_score": 0.2}, "either background_words or"),
        ({"upsample": "bicubic"}, "upsample"),
    ],
)
def test_options_that_contradict_each_other_are_refused(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        parse(segmentation.Options, {**OPTIONS, **changes}, "card")


def test_no_option_has_a_default():
    for name in OPTIONS:
        with pytest.raises(UserError, match=name):
            parse(segmentation.Options, {key: value for key, value in OPTIONS.items() if key != name}, "card")


def test_missing_masks_and_broken_scores_end_in_a_sentence():
    data = split()
    with pytest.raises(UserError, match="has no mask"):
        outcome_of(
            segmentation, encoder(), replace(data, examples=(replace(data.examples[0], semantic=None),)), options()
        )
    with pytest.raises(UserError, match="not finite"):
        outcome_of(segmentation, FiniteEncoder(encoder(patches=[[np.nan, 0, 0]] * 4)), data, options())
    with pytest.raises(UserError, match="two classes of one name"):
        outcome_of(segmentation, encoder(), replace(data, classes=("cat", "cat")), options())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("background", "constant", "oracle"),
    [("ignore", 0.0138, {8: 0.93, 14: 0.96}), ("class", 0.0353, {8: 0.68, 14: 0.80})],
)
def test_reference_rows_of_the_voc_photos(test_data, background, constant, oracle):
    """Best constant and grid oracles of these 60 photos as computed independently."""
    data = voc_segmentation.read(test_data, "val", voc_segmentation.Options(folder="voc2012_mini"))
    rules = options(background=background, background_score=0.0 if background == "class" else "none")
    classes = 20 + (background == "class")
    for side, expected in oracle.items():
        counts = []
        for example in data.examples:
            truth = segmentation._truth(example, 20, background)
            area = np.array([0, 0, truth.shape[1], truth.shape[0]])
            shares = class_fractions(truth, classes, area, (side, side)).astype(np.float32)
            counts.append(segmentation.count_image(shares, truth, area, classes, rules, scored=True))
        block = Block(np.arange(len(data)), dict(segmentation._arrays("", counts)))
        found = segmentation._Counts.of(Predictions((block,)), "", len(data)).statistics()
        assert found["miou"].value == pytest.approx(expected, abs=0.005)
    assert best_constant(np.stack([one.truth_C for one in counts]))["miou"] == pytest.approx(constant, abs=5e-5)
