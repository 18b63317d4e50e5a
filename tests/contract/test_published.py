"""Every published number in the project: comparable with what its task measures, with a source and a tolerance."""

import re

import open_clip
import pytest

from sparc_bench.cards import discovery, photo_lists
from sparc_bench.evaluation.exposure import exposure
from sparc_bench.report import published
from sparc_bench.weights.open_clip_source import Options, _split

CARDS = {card.name: card for card in published.cards()}
TOLERANCES = {"classification": 0.0005, "retrieval": 0.002, "compositionality": 0.005}
"""Of each family of tasks. SugarCrepe's is one item of its smallest group (245)."""

LEAST = 15


def metrics(task):
    """Names that the task's record can have, as far as the card tells."""
    found = {task.headline, *task.chance}
    for k in task.options.get("ks", ()):
        found |= {f"image_to_text_r{k}", f"text_to_image_r{k}"}
    return found


def test_there_are_enough_open_checkpoints():
    assert len(CARDS) >= LEAST


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CARDS))
def test_numbers(name):
    card = CARDS[name]
    published.refuse_odd(card)
    for row in card.published:
        task = discovery.task(row.task)
        assert row.metric in metrics(task)
        assert row.tolerance == TOLERANCES[task.family]
        assert re.search(r"@[0-9a-f]{7} ", row.source), "the table and its commit"
    by_k = {(row.task, row.metric): row.value for row in card.published}
    for task in ("coco_karpathy_retrieval", "flickr30k_retrieval"):
        for way in ("image_to_text", "text_to_image"):
            values = [by_k[task, f"{way}_r{k}"] for k in (1, 5, 10)]
            assert values == sorted(values)


@pytest.mark.parametrize("name", sorted(CARDS))
def test_weights_are_a_tag_that_open_clip_lists(name):
    card = CARDS[name]
    architecture, tag = _split(Options(**card.options).weights)
    assert tag in open_clip.list_pretrained_tags_by_model(architecture)


def test_two_cards_are_of_two_checkpoints():
    assert len({card.options["weights"] for card in CARDS.values()}) == len(CARDS)


@pytest.mark.parametrize("name", sorted(CARDS))
def test_exposure_of_models_of_web_collections_is_unknown(name):
    photos = sorted(photo_lists.by_name("coco:val2017").ids)
    known = exposure(CARDS[name].trained_on_here, "coco_captions", "val2017", 5000, photos=photos)
    assert str(known) == "unknown"


def test_the_numbers_that_everybody_knows():
    rows = {(row.task, row.metric): row.value for row in CARDS["openai_clip_vit_b_32"].published}
    assert rows["imagenet1k", "top1"] == pytest.approx(0.6332)
    assert rows["imagenet_v2_matched_frequency", "top1"] == pytest.approx(0.5592)
    assert rows["coco_karpathy_retrieval", "text_to_image_r1"] == pytest.approx(0.3044)
    assert rows["coco_karpathy_retrieval", "image_to_text_r1"] == pytest.approx(0.5012)
    assert rows["flickr30k_retrieval", "image_to_text_r10"] == pytest.approx(0.982)
    assert rows["sugar_crepe", "swap_obj"] == pytest.approx(0.6138)
