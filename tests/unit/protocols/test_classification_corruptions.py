from functools import partial

import numpy as np
import pytest

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.cards import discovery
from sparc_bench.cards.card import parse
from sparc_bench.dataset import Example
from sparc_bench.datasets.imagenet_corruptions import CORRUPTIONS, SEVERITIES
from sparc_bench.errors import UserError
from sparc_bench.facets import Corruptions
from sparc_bench.images.item import ImageItem
from sparc_bench.metrics.estimate import PairedEstimate, estimate, paired_difference
from sparc_bench.protocols import classification_corruptions
from sparc_bench.protocols.classification_corruptions import CorruptionError, Options
from sparc_bench.report.compare import Difference
from tests.toys.encoders import LookupEncoder, constant_encoder, item, split_of

CLASSES = ("cat", "dog", "emu", "owl")
SEEN = {"blur": 0.8, "noise": 0.5}

# AlexNet's top-1 error by severity: README of hendrycks/robustness
ALEXNET = {
    "gaussian_noise": (0.69528, 0.82542, 0.93554, 0.98138, 0.99452),
    "shot_noise": (0.71224, 0.85108, 0.93574, 0.98182, 0.99146),
    "impulse_noise": (0.78374, 0.89808, 0.94870, 0.98720, 0.99548),
    "defocus_blur": (0.65624, 0.73202, 0.85036, 0.91364, 0.94714),
    "glass_blur": (0.64308, 0.75054, 0.88806, 0.91622, 0.93344),
    "motion_blur": (0.58430, 0.70048, 0.82108, 0.89750, 0.92638),
    "zoom_blur": (0.70008, 0.76992, 0.80784, 0.84198, 0.87198),
    "snow": (0.71726, 0.88392, 0.86468, 0.91870, 0.94952),
    "frost": (0.61390, 0.79734, 0.88790, 0.89942, 0.93430),
    "fog": (0.67474, 0.76050, 0.84378, 0.87260, 0.94500),
    "brightness": (0.45140, 0.48502, 0.54048, 0.62166, 0.72440),
    "contrast": (0.64548, 0.76150, 0.88874, 0.97760, 0.99270),
    "elastic_transform": (0.52596, 0.70116, 0.55686, 0.64076, 0.80554),
    "pixelate": (0.52218, 0.54620, 0.73728, 0.87092, 0.91262),
    "jpeg_compression": (0.51002, 0.54718, 0.57294, 0.65458, 0.74778),
    "speckle_noise": (0.66192, 0.74440, 0.90246, 0.94548, 0.97268),
    "gaussian_blur": (0.54732, 0.70444, 0.82574, 0.89864, 0.95940),
    "spatter": (0.47196, 0.62194, 0.75052, 0.84132, 0.90182),
    "saturate": (0.59342, 0.65514, 0.51174, 0.70834, 0.82260),
}


def version(name: str, corruption: str, severity: int) -> ImageItem:
    return item(f"{corruption}/{severity}/{name}")


def photos(count=8):
    examples = [
        Example(id=f"{i}", image=item(f"{i}"), label=i % len(CLASSES), facets=(Corruptions(partial(version, f"{i}")),))
        for i in range(count)
    ]
    return split_of(examples, classes=CLASSES, sizes={"corruptions": 2})


def options(**changes):
    values = {"prompts": "bare", "classes": "own", "severities": [1, 2], "baseline_error": SEEN, "ties": "expected"}
    return parse(Options, {**values, **changes}, "test")


def right_where(rule):
    """An encoder that knows the class of a version where the rule says so, and else names the next class."""

    def image_vector(version: str) -> np.ndarray:
        corruption, severity, photo = version.split("/")
        label = int(photo) % len(CLASSES)
        right = rule(corruption, int(severity), int(photo))
        return np.eye(len(CLASSES))[label if right else (label + 1) % len(CLASSES)]

    return LookupEncoder(image_vector, lambda text: np.eye(len(CLASSES))[CLASSES.index(text)])


def test_mce_by_hand():
    # blur: all wrong in severity 2; noise: photos 0 to 3 wrong in severity 1
    wrong = {("blur", 2, photo) for photo in range(8)} | {("noise", 1, photo) for photo in range(4)}
    outcome = outcome_of(
        classification_corruptions, right_where(lambda *version: version not in wrong), photos(), options()
    )
    assert outcome.metrics["top1"].value == pytest.approx((8 + 0 + 4 + 8) / 32)
    # errors .5 and .25 over both severities; relative to .8 and .5
    assert outcome.metrics["mce"].value == pytest.approx((0.5 / 0.8 + 0.25 / 0.5) / 2)
    of = {name: statistic.value for name, statistic in outcome.groups["corruption"].items()}
    assert of == pytest.approx({"blur": 0.5, "noise": 0.75})
    single = {name: statistic.value for name, statistic in outcome.groups["corruption and severity"].items()}
    assert single == pytest.approx({"blur/1": 1, "blur/2": 0, "noise/1": 0.5, "noise/2": 1})
    assert outcome.examples["correct"] == pytest.approx([0.5] * 4 + [0.75] * 4)
    assert (outcome.ties, outcome.counts["images"], outcome.counts["photos"]) == (0, 32, 8)


def test_always_wrong_is_above_one_and_so_is_its_interval():
    outcome = outcome_of(classification_corruptions, right_where(lambda *_: False), photos(), options())
    mce = outcome.metrics["mce"]
    assert mce.value == pytest.approx((1 / 0.8 + 1 / 0.5) / 2) == pytest.approx(mce.most)
    found = estimate(mce)
    assert found.method == "equal"
    assert 1 < found.low < found.value <= found.high == pytest.approx(mce.most)
    half = outcome_of(
        classification_corruptions, right_where(lambda _corruption, _severity, photo: photo == 0), photos(), options()
    ).metrics["mce"]
    spread = estimate(half)
    assert spread.method == "wilson"
    assert spread.low < 1 < spread.value < spread.high <= half.most
    assert paired_difference(mce, half).value == pytest.approx(mce.most / 8)


def test_a_constant_encoder_scores_chance_and_every_image_is_a_tie():
    outcome = outcome_of(classification_corruptions, constant_encoder(), photos(), options())
    assert outcome.metrics["top1"].value == 1 / 4
    assert outcome.metrics["mce"].value == pytest.approx(0.75 * (1 / 0.8 + 1 / 0.5) / 2)
    assert outcome.ties == outcome.counts["images"] == 32
    assert outcome.reference_rows["constant"] == pytest.approx({"top1": 1 / 4, "mce": outcome.metrics["mce"].value})


def test_every_corrupted_photo_is_asked_for_once():
    encoder = right_where(lambda *_: True)
    outcome_of(classification_corruptions, encoder, photos(), options())
    assert sum(count for what, count in encoder.asked if what == "images") == 8 * 4


def test_the_card_has_to_name_the_corruptions_of_the_split():
    with pytest.raises(UserError, match=r"error for 1 corruptions and .* has 2: name those of this split"):
        outcome_of(classification_corruptions, constant_encoder(), photos(), options(baseline_error={"blur": 0.8}))
    with pytest.raises(UserError, match="0 or less"):
        outcome_of(
            classification_corruptions,
            constant_encoder(),
            photos(),
            options(baseline_error={"blur": 0.8, "noise": 0.0}),
        )
    with pytest.raises(UserError, match="severities"):
        parse(Options, {**options().model_dump(exclude={"severities"})}, "test")


@pytest.mark.parametrize("split", ["test", "validation"])
def test_the_cards_have_alexnets_errors_for_each_split(split):
    cards = [
        card
        for card in map(discovery.task, discovery.names("tasks"))
        if card.protocol == "classification_corruptions" and card.split == split
    ]
    assert cards
    for card in cards:
        found = parse(Options, card.options, card.name)
        assert tuple(found.baseline_error) == CORRUPTIONS[split]
        assert found.severities == SEVERITIES
        for corruption, error in found.baseline_error.items():
            assert error == pytest.approx(np.mean(ALEXNET[corruption]), abs=1e-9), corruption


def test_the_statistic_is_stored_and_read_back():
    statistic = CorruptionError(np.array([[0.5, 1.0], [0.0, 0.2]]), np.array([0.8, 0.5]))
    again = CorruptionError(**statistic.arrays())
    assert again.value == statistic.value == pytest.approx((0.25 / 0.8 + 0.6 / 0.5) / 2)
    assert statistic.clusters == 2
    assert classification_corruptions.VERSION == 1


def test_the_error_is_known_as_one():
    assert CorruptionError.less_is_better
    difference = PairedEstimate(value=0.2, se=0.05, low=0.1, high=0.3, clusters=9, method="wilson")
    assert Difference("mce", 0.9, 0.7, difference, p=0.01, less_is_better=True).verdict == "b"
    assert Difference("top1", 0.9, 0.7, difference, p=0.01).verdict == "a"
    assert Difference("top1", 0.9, 0.7, difference, p=0.05).verdict == "open"
