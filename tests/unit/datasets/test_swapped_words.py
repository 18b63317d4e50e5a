"""Hand-made captions and tags: which exchanges are made, and which would leave the caption true."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparc_bench.datasets._swapped_words import negative_of, negatives_of
from sparc_bench.scenes.random_stream import RandomStream

TAGS = {
    **dict.fromkeys(("a", "an", "the", "his"), "AT0"),
    **dict.fromkeys(("man", "woman", "dog", "cat", "ball", "hat", "street", "group", "front", "cake", "apple"), "NN1"),
    **dict.fromkeys(("dogs", "men", "people", "balls"), "NN2"),
    **dict.fromkeys(("black", "white", "big", "old", "red", "other"), "AJ0"),
    **dict.fromkeys(("runs", "chases", "sits"), "VVZ"),
    **dict.fromkeys(("eating", "wearing"), "VVG"),
    **dict.fromkeys(("inside", "outside", "together"), "AV0"),
    **dict.fromkeys((",", "."), "PUN"),
    "two": "CRD",
    "and": "CJC",
    "of": "PRF",
    "boston": "NP0",
}


def tags(words):
    return tuple(TAGS.get(word, "PRP") for word in words)


def made(caption):
    return negative_of(caption, tags)


def every_swap(caption):
    """Every negative that another draw would have made."""
    return {negative_of(caption, tags, RandomStream("another", draw)) for draw in range(40)}


@pytest.mark.parametrize(
    ("caption", "text", "kind"),
    [
        ("A dog chases the cat .", "A cat chases the dog .", "noun"),
        ("Dog chases a cat", "Cat chases a dog", "noun"),
        ("a man with a cake on an apple", "a man with an apple on a cake", "noun"),
        ("a black dog and a white cat", "a black cat and a white dog", "noun"),
        ("a dog in an old street", "an old street in a dog", "phrase"),
        ("An apple on a big street", "A big street on an apple", "phrase"),
        ("a black and white dog chases an old cat", "a black and old dog chases a white cat", "adjective"),
        ("a man wearing a hat eating a cake", "a man eating a hat wearing a cake", "verb"),
        ("a dog sits inside , two men runs outside", "a dog sits outside , two men runs inside", "adverb"),
    ],
)
def test_two_of_one_kind_and_form_change_places(caption, text, kind):
    assert (text, kind) in {(swap.text, swap.kind) for swap in every_swap(caption)}
    assert made(caption) in every_swap(caption)
    assert made(caption).rule == "swap"


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ("two dogs on a street", "a street on two dogs"),
        ("A group of people in a street", "A street in a group of people"),
        ("Boston in front of a man", "A man in front of Boston"),
    ],
)
def test_different_forms_change_places_as_whole_phrases_where_there_are_no_others(caption, text):
    assert made(caption) == (text, "swap_unlike", "phrase")


@pytest.mark.parametrize(
    "caption",
    [
        *("a man and a woman", "a dog , a cat and a man", "a dog beside a cat", "a red ball and a red hat"),
        *("a big black dog", "a man runs and sits", "a man sits together outside", "a cat chases a cat"),
    ],
)
def test_an_exchange_that_leaves_the_caption_true_is_not_made(caption):
    negative = made(caption)
    assert (negative.rule, negative.kind) == ("replace", None)
    changed = [
        at for at, pair in enumerate(zip(caption.split(), negative.text.split(), strict=True)) if len({*pair}) > 1
    ]
    assert len(changed) == 1
    assert tags((caption.split()[changed[0]],)) == ("NN1",)
    assert negative.text.split()[changed[0]] not in caption


def test_numbers_and_captions_without_a_noun():
    assert re.fullmatch(r"two (cameras|trees|benches|boats|horses|balls)", made("two dogs").text)
    assert re.fullmatch(r"(Camera|Tree|Bench|Boat|Horse|Ball) \.", made("Runs .").text)
    assert made("...").text == "... ball"
    assert made("ball").text != "ball"
    assert made("A ball , a camera , a tree , a bench , a boat , a horse").rule == "replace"


def test_a_negative_depends_on_its_caption_alone():
    captions = {"1": ("a man in a hat", "two dogs on a street"), "2": ("a big black dog .", "a man in a hat")}
    random.seed(1)
    state = random.getstate()
    forward, note = negatives_of(captions, tags)
    back, _ = negatives_of(dict(reversed(captions.items())), tags)
    assert forward == back
    assert random.getstate() == state
    assert forward["1"][0] == forward["2"][1] == "a hat in a man"
    assert note == (
        "Of 4 negatives, 2 exchange two words or phrases of one form, 1 of different forms, and 1 replace a noun."
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*TAGS, "with", "near", "."]), max_size=12).map(" ".join))
def test_a_negative_is_never_its_caption(caption):
    for text in (caption, caption.capitalize()):
        negative = made(text)
        assert negative.text.strip()
        assert negative.text.lower() != text.lower()
        assert negative.text.split() != text.split()
        assert made(text) == negative
