"""The cards of benchmarks of captions: what they expect adds up, and on real photos a constant encoder scores 0."""

import numpy as np
import pytest

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.cards import discovery
from sparc_bench.cards.binding import bind
from sparc_bench.cards.card import parse
from sparc_bench.errors import UserError
from tests.toys.encoders import constant_encoder, random_encoder

CARDS = [name for name in discovery.names("tasks") if discovery.task(name).protocol == "caption_choice"]
ITEMS = {"items", "photos", "captions", "negatives"}


@pytest.mark.parametrize("name", CARDS)
def test_the_groups_that_a_card_expects_are_its_items(name):
    card = discovery.task(name)
    groups = {group: count for group, count in card.expect.items() if group not in ITEMS}
    assert not groups or sum(groups.values()) == card.expect["items"]
    assert card.options["group_metrics"] == bool(groups)
    assert set(groups) <= set(card.chance)
    assert {"accuracy", card.headline} <= set(card.chance)
    assert len(set(card.options["exclude"])) == len(card.options["exclude"])


def test_a_sample_is_scored_as_the_whole():
    whole, part = discovery.task("sugar_crepe"), discovery.task("sugar_crepe_mini")
    assert (part.options, part.headline, part.chance) == (whole.options, whole.headline, whole.chance)
    assert (whole.sample, part.sample, whole.data["absent"], part.data["absent"]) == (False, True, "refuse", "skip")


def scored(encoder, test_data):
    card = discovery.task("sugar_crepe_mini")
    reader, protocol = discovery.load("datasets", card.dataset), discovery.load("protocols", card.protocol)
    data = reader.read(test_data, card.split, parse(reader.Options, card.data, card.name))
    return data, outcome_of(protocol, encoder, data, parse(protocol.Options, card.options, card.name))


@pytest.mark.slow
def test_a_constant_encoder_on_real_items(test_data):
    data, outcome = scored(constant_encoder(), test_data)
    assert set(outcome.metrics) == set(discovery.task("sugar_crepe_mini").chance)
    assert {statistic.value for statistic in outcome.metrics.values()} == {0.0}
    assert outcome.ties == len(data) == 825
    assert np.count_nonzero(outcome.metrics["accuracy"].count_G) == outcome.counts["images"] == 156


def test_a_plain_loop_on_real_items(test_data):
    encoder = random_encoder()
    data, outcome = scored(encoder, test_data)
    right: dict[str, list[bool]] = {}
    for example in data:
        image = encoder.image_vector(example.image.id)
        (true,), (false,) = example.captions, example.negatives
        right.setdefault(example.tags["group"], []).append(
            image @ encoder.text_vector(true) > image @ encoder.text_vector(false)
        )
    shares = {group: float(np.mean(of)) for group, of in right.items()}
    found = {name: statistic.value for name, statistic in outcome.metrics.items()}
    assert {group: found[group] for group in shares} == pytest.approx(shares)
    assert found["macro_accuracy"] == pytest.approx(np.mean(list(shares.values())))


def test_part_of_the_photos_is_a_sample_or_nothing():
    card = discovery.task("sugar_crepe")
    loose = card.model_copy(update={"data": {**card.data, "absent": "skip"}})
    with pytest.raises(UserError, match=r"may be a part of its benchmark: add sample = true, or set absent"):
        bind(loose)
    assert bind(loose.model_copy(update={"sample": True}))
