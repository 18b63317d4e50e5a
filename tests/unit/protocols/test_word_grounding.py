"""Word grounding: the answer key, maps that say nothing of a word, and what counts as a word's pixels."""

from dataclasses import replace

import numpy as np
import pytest

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.cards import discovery
from sparc_bench.cards.binding import bind_validation
from sparc_bench.cards.recipe import Validate
from sparc_bench.dataset import Example, Region
from sparc_bench.datasets import coco_words
from sparc_bench.errors import UserError
from sparc_bench.facets import Attributes, Federated, PixelSize
from sparc_bench.protocols import word_grounding
from sparc_bench.protocols._named_areas import NamedAreas, Word, vocabulary
from sparc_bench.protocols._word_maps import WordsInCaptions
from tests.toys.encoders import LookupEncoder, constant_encoder, item, noise, split_of

NAMES = ("ant", "bee", "cow", "dog")
OPTIONS = word_grounding.Options(
    map="text", prompts="bare", classes="own", words=("noun",), regions="mask", absent=2,
    function_words=("the", "of"), area_unit="image", area_edges=(0.1, 0.3),
)  # fmt: skip
AREA = np.array([0.0, 0.0, 8.0, 8.0])


def mask(left, top, right, bottom):
    found = np.zeros((8, 8), dtype=bool)
    found[top:bottom, left:right] = True
    return found


def region(label, *box, crowd=False):
    return Region(tuple(map(float, box)), label, 1.0, mask=mask(*box).copy, crowd=crowd)


def photo(name, *regions, **about):
    return Example(name, item(name), regions=regions, facets=(PixelSize(8, 8),), **about)


DATA = split_of(
    [
        photo("a", region(0, 0, 0, 4, 4), region(1, 4, 4, 8, 8)),
        photo("b", region(2, 2, 2, 6, 4), captions=("there are two cows", "an ant")),
        photo("c"),
    ],
    classes=NAMES,
)


def coverage(example, label):
    found = np.zeros((8, 8))
    for each in example.regions:
        found += each.mask() * (each.label == label if label is not None else 1)
    return found.reshape(4, 2, 4, 2).mean(axis=(1, 3)).reshape(-1)


def encoder_of(maps):
    """The map of a class is what `maps` says of an example and its label; that of other words is flat."""
    by_id = {example.id: example for example in DATA}
    place = dict(zip(NAMES, np.eye(5), strict=False))
    return LookupEncoder(
        lambda _: np.zeros(5),
        lambda text: place.get(text, np.eye(5)[4]),
        patch_vectors=lambda _, name: np.stack([*(maps(by_id[name], label) for label in range(4)), np.zeros(16)], 1),
    )


def values(outcome):
    return {name: statistic.value for name, statistic in outcome.metrics.items()}


def test_answer_key():
    outcome = outcome_of(word_grounding, encoder_of(coverage), DATA, OPTIONS)
    found = values(outcome)
    for name in ("pointing", "auc", "soft_iou", "hard_iou"):
        assert found[f"local/{name}"] == 1, name
    # areas of a quarter each in the first image and an eighth in the second; the third has no word
    area = (1 / 4 + 1 / 8) / 2
    assert found["local/ap_over_area"] == pytest.approx(1 - area)
    assert found["global/pointing_over_absent"] == pytest.approx(1 - area)
    assert found["global/auc_over_absent"] == pytest.approx(0.5)
    assert outcome.reference_rows["oracle"]["local/pointing"] == 1
    assert outcome.counts["images"] == 2
    assert outcome.counts["words"] == 3


def test_constant_scores_the_area():
    outcome = outcome_of(word_grounding, constant_encoder(), DATA, OPTIONS)
    constant = outcome.reference_rows["constant"]
    assert values(outcome) == pytest.approx(constant)
    assert constant["local/auc"] == 0.5
    assert constant["local/pointing"] == pytest.approx((1 / 4 + 1 / 8) / 2)
    assert outcome.reference_rows["absent"] == pytest.approx(constant)
    assert outcome.ties == 2 * 3


def test_every_word_on_the_foreground_gains_nothing_over_an_absent_one():
    outcome = outcome_of(word_grounding, encoder_of(lambda example, _: coverage(example, None)), DATA, OPTIONS)
    found = values(outcome)
    assert found["local/auc"] > 0.9
    assert found["local/auc_over_absent"] == found["local/pointing_over_absent"] == 0
    assert outcome.reference_rows["absent"]["local/auc"] == found["local/auc"]


def test_absent_words_are_of_the_kind_and_drawn_from_id_and_word_alone():
    words = vocabulary(DATA, ("noun",))
    named = NamedAreas(DATA[0], NAMES, words, "mask")
    drawn = named.absent(words[0], words, 5)
    assert {word.name for word in drawn} == {"cow", "dog"}
    assert named.absent(words[0], words[::-1], 1) == drawn[:1]
    checked = replace(DATA[0], facets=(Federated(frozenset({3}), frozenset()),))
    assert NamedAreas(checked, NAMES, words, "mask").absent(words[0], words, 5) == [Word("dog", "class")]


def areas(example, shape="mask", area=AREA, grid=(2, 2), kinds=("noun",)):
    words = vocabulary(split_of([example], classes=NAMES), kinds)
    return {one.word.name: one for one in NamedAreas(example, NAMES, words, shape).areas(area, grid)}


def test_pixels_of_several_regions_count_once_and_crowds_not_at_all():
    found = areas(photo("x", region(0, 0, 0, 4, 4), region(0, 2, 2, 6, 4), region(0, 6, 6, 8, 8, crowd=True)))
    assert found["ant"].word_P.tolist() == [16, 4, 0, 0]
    assert found["ant"].other_P.tolist() == [0, 12, 16, 12]
    assert (found["ant"].pixels, found["ant"].share) == (20, 20 / 64)
    assert areas(photo("x", region(0, 6, 6, 8, 8, crowd=True))) == {}


def test_boxes_are_split_by_area_and_clipped_to_what_the_model_sees():
    boxes = photo("x", Region((0.5, 0.0, 4.5, 2.0), 1, 1.0), Region((4.0, 1.0, 9.0, 2.0), 1, 1.0))
    found = areas(boxes, "box", area=np.array([0.0, 0.0, 8.0, 4.0]), grid=(1, 2))["bee"]
    assert found.word_P == pytest.approx([7.0, 1.0 + 3.5])
    assert found.word_P + found.other_P == pytest.approx([16.0, 16.0])
    assert found.pixels == pytest.approx(11.5)


def test_void_is_no_pixel_of_any_word():
    truth = np.full((8, 8), -1)
    truth[:4, :4], truth[:4, 4:] = 2, -2
    found = areas(Example("x", item("x"), semantic=truth.copy), "semantic")["cow"]
    assert found.word_P.tolist() == [16, 0, 0, 0]
    assert found.other_P.tolist() == [0, 0, 16, 16]


def test_attributes_name_the_regions_that_have_them():
    looks = Attributes(({"colour": "red"}, {"colour": "red"}, {"colour": "blue"}))
    example = photo("x", region(0, 0, 0, 4, 4), region(1, 4, 0, 8, 4), region(1, 0, 4, 4, 8))
    found = areas(replace(example, facets=(looks,)), kinds=("noun", "attribute"))
    assert found["red"].word_P.tolist() == [16, 16, 0, 0]
    assert found["bee"].word_P.tolist() == [0, 16, 16, 0]
    with pytest.raises(UserError, match="no attributes"):
        areas(example, kinds=("attribute",))


def test_words_outside_are_left_out_and_counted():
    encoder = encoder_of(coverage)
    encoder.size = 4  # the patches cover the upper left quarter
    outcome = outcome_of(word_grounding, encoder, DATA, OPTIONS)
    assert outcome.counts["outside"] == 1
    assert [note for note in outcome.notes if note.startswith("1 words name nothing")]


class Reader(LookupEncoder):
    """Knows the map of a word by its singular within captions."""

    token_path = "local"

    def token_maps(self, images, words, path=None):
        texts = self.texts([word.lower().removesuffix("s") for word in words], frozenset({"global"}))
        return self.dense_scores(images, texts, path)


TOKEN = OPTIONS.model_copy(update={"map": "token", "function_words": ("there", "an")})


def test_words_within_captions():
    alone = encoder_of(coverage)
    encoder = Reader(alone.image_vector, alone.text_vector, patch_vectors=alone.patch_vectors)
    outcome = outcome_of(word_grounding, encoder, DATA, TOKEN)
    assert values(outcome)["local/pointing"] == 1
    assert values(outcome)["local/auc_over_absent"] == 0.5
    assert (outcome.counts["words"], outcome.counts["without_caption"]) == (1, 2)
    assert [note for note in outcome.notes if note.startswith("global: plain cosine")]
    assert outcome.reference_rows["function_words"]["local/auc"] == 0.5


def test_a_model_without_token_maps_is_one_sentence():
    with pytest.raises(UserError, match=r'no map of a word within a caption: .*map = "text"'):
        outcome_of(word_grounding, encoder_of(coverage), DATA, TOKEN)
    with pytest.raises(UserError, match="no token vectors"):
        WordsInCaptions(replace(encoder_of(coverage), gives=frozenset({"text"})), DATA, (), ())


def test_a_split_without_words_is_one_sentence():
    with pytest.raises(UserError, match="no word to score"):
        outcome_of(word_grounding, constant_encoder(), DATA.take([2]), OPTIONS)


def test_halves_of_words_average_over_images_first():
    noisy = LookupEncoder(
        lambda _: np.zeros(8), lambda t: noise(t, 8), patch_vectors=lambda p, i: noise(p + i, 128).reshape(16, 8)
    )
    outcome = outcome_of(word_grounding, noisy, DATA, OPTIONS)
    assert outcome.metrics["local/auc"].count_G.tolist() == [1, 1, 0]
    assert outcome.examples["correct"].shape == (3,)


def test_a_training_is_watched_on_the_other_half():
    recipe = discovery.model("scenes_clip")
    watched = recipe.model_copy(update={"validate": Validate(tasks=("coco_val2017_mini_word_grounding",))})
    (task,) = bind_validation(watched)
    assert (task.card.split, discovery.task("coco_val2017_mini_word_grounding").split) == ("val", "test")


def test_halves_of_coco_share_no_photo(test_data):
    card = discovery.task("coco_val2017_mini_word_grounding")
    val, test = (coco_words.read(test_data, split, coco_words.Options(**card.data)) for split in ("val", "test"))
    assert (len(val), len(test)) == (103, 103)
    assert not {example.photo for example in val} & {example.photo for example in test}
