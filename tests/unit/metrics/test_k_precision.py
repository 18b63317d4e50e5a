import numpy as np
import pytest

from sparc_bench.metrics.k_precision import KPrecision, k_precision_score
from sparc_bench.metrics.tokens import caption_words

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
