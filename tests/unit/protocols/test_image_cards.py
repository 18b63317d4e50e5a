"""The cards of the image-level protocols: their options are whole, and on scenes they give what they promise."""

import numpy as np
import pytest

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.cards import discovery
from sparc_bench.cards.card import parse
from sparc_bench.cards.prompts import class_words, templates
from tests.toys.encoders import constant_encoder

PROTOCOLS = (
    "classification",
    "retrieval",
    "faithfulness",
    "minimal_pairs",
    "caption_choice",
    "chair",
    "object_presence",
)
CARDS = [name for name in discovery.names("tasks") if discovery.task(name).protocol in PROTOCOLS]


@pytest.mark.parametrize("name", CARDS)
def test_options_are_whole(name):
    card = discovery.task(name)
    protocol, reader = discovery.load("protocols", card.protocol), discovery.load("datasets", card.dataset)
    parse(protocol.Options, card.options, name)
    parse(reader.Options, card.data, name)
    assert protocol.DATA <= reader.PROVIDES
    assert "oracle" not in card.reference_rows


@pytest.mark.parametrize("name", [name for name in CARDS if discovery.task(name).dataset == "scenes1"])
def test_scenes_score_their_stated_chance(name):
    card = discovery.task(name)
    protocol, reader = discovery.load("protocols", card.protocol), discovery.load("datasets", card.dataset)
    few = {**card.data, "n": 36}
    data = reader.read(None, card.split, parse(reader.Options, few, name))
    outcome = outcome_of(protocol, constant_encoder(), data, parse(protocol.Options, card.options, name))
    assert card.headline in outcome.metrics
    assert set(card.chance) <= set(outcome.metrics)
    for metric, chance in card.chance.items():
        assert outcome.metrics[metric].value == pytest.approx(chance, abs=1e-6), metric


def test_every_prompt_set_and_class_list_reads():
    for name in ("bare", "a_photo_of_a", "scenes"):
        assert all(template.count("{}") == 1 for template in templates(name))
    for label in ("shape", "colour"):
        reader = discovery.load("datasets", "scenes1")
        classes = reader.read(None, "val", reader.Options(kind="single", n=1, label=label)).classes
        words = class_words(f"scenes_{label}", classes)
        assert len(np.unique(words)) == len(classes)
