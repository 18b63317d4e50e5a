import json
import re
import string

import numpy as np
import pytest

from sparc_bench.metrics.caption_words import caption_words
from sparc_bench.metrics.k_precision import KPrecision, best_caption, k_precision_score

RULES = ("union", "multiset", "max")
REFERENCES = [["dog", "runs", "fast"], ["brown", "dog"]]


@pytest.mark.parametrize(("rule", "expected"), [("union", 4 / 5), ("multiset", 4 / 5), ("max", 2 / 5)])
def test_worked_by_hand(rule, expected):
    # dog twice: union has it, the two references together have it twice, each alone has it once
    assert k_precision_score(["dog", "dog", "brown", "runs", "red"], REFERENCES, rule) == pytest.approx(expected)


def test_multiset_counts_a_word_no_more_often_than_the_references():
    words = ["dog", "dog", "dog", "dog"]
    assert k_precision_score(words, REFERENCES, "union") == 1
    assert k_precision_score(words, REFERENCES, "multiset") == 0.5
    assert k_precision_score(words, REFERENCES, "max") == 0.25


@pytest.mark.parametrize("rule", RULES)
def test_no_words_and_no_references(rule):
    assert np.isnan(k_precision_score([], REFERENCES, rule))
    assert k_precision_score(["dog"], [], rule) == 0


@pytest.mark.parametrize("rule", RULES)
def test_the_matrix_equals_the_plain_form(rule):
    rng = np.random.default_rng(0)
    draw = lambda most: [f"w{i}" for i in rng.integers(0, 12, size=int(rng.integers(0, most)))]  # noqa: E731
    captions = [draw(9) for _ in range(30)]
    references = [[draw(7) for _ in range(int(rng.integers(0, 4)))] for _ in range(11)]
    scores = KPrecision(captions, rule).scores(references)
    plain = [[k_precision_score(words, reference, rule) for words in captions] for reference in references]
    np.testing.assert_allclose(scores, plain, atol=1e-12)


def test_the_matrix_of_nothing():
    assert KPrecision([], "max").scores([[["dog"]]]).shape == (1, 0)
    assert KPrecision([["dog"]], "max").scores([]).shape == (0, 1)


def test_words_are_normalised_as_the_reference_implementation_does():
    assert caption_words("The dog, a black-and-white one, isn't HERE.", "drop") == (
        "dog",
        "blackandwhite",
        "one",
        "isnt",
        "here",
    )
    assert caption_words("An apple", "keep") == ("an", "apple")
    assert caption_words(" ... A", "drop") == ()


def instruct_qa_words(caption):
    """The rule of McGill-NLP/instruct-qa: lower case, no ASCII punctuation, articles out as whole words."""
    plain = "".join(letter for letter in caption.lower() if letter not in string.punctuation)
    return tuple(re.sub(r"\b(?:a|an|the)\b", " ", plain).split())


@pytest.mark.slow
def test_the_tokeniser_is_the_reference_implementations_on_coco(test_data):
    path = test_data / "coco_val2017_mini" / "captions_val2017_all.json"
    captions = [row["caption"] for row in json.loads(path.read_text())["annotations"]]
    assert len(captions) == 25014
    assert [c for c in captions if caption_words(c, "drop") != instruct_qa_words(c)] == []


def test_runs_of_letters_are_words():
    assert caption_words("A black/white T-shirt_2, isn't", "drop", "letters") == (
        *("black", "white", "t", "shirt", "2", "isn", "t"),
    )


@pytest.mark.parametrize("rule", ["union", "multiset", "max"])
def test_the_best_caption_is_the_best_of_all(rule):
    rng = np.random.default_rng(3)
    words = [f"w{k}" for k in range(12)]

    def caption():
        return tuple(rng.choice(words, size=rng.integers(0, 5), p=np.arange(12, 0, -1) / 78))

    captions = [caption() for _ in range(700)]
    references = [[caption() for _ in range(3)] for _ in range(40)]
    plain = np.nan_to_num(KPrecision(captions, rule).scores(references)).sum(axis=0)
    first = int(np.flatnonzero(plain > plain.max() - 1e-9)[0])
    assert best_caption(captions, references, rule) == first
    assert plain.max() > 1.5 * np.median(plain)


def test_a_set_without_references_scores_nothing():
    for rule in ("union", "multiset", "max"):
        scores_NM = KPrecision([("red", "dog"), ()], rule).scores([[], [("dog",), ("red",)], []])
        assert scores_NM[:, 0].tolist() == [0, 0.5 if rule == "max" else 1, 0]
        assert np.isnan(scores_NM[:, 1]).all()
